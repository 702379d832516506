"""Findings made of rows of the page tables that share a wrong attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rules.finding import Claim, Evidence, Hit, Severity, VaRange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.layout import KernelLayout
    from parsers.mapping import Bool, Mapping

__all__ = ["hit_of_rows"]

MAX_RANGES = 64
MAX_QUOTED = 6


def hit_of_rows(
    mapping: Mapping, layout: KernelLayout, rows: Bool, what: str, claim: Claim, severity: Severity | None = None
) -> Iterator[Hit]:
    """One hit for all chosen rows, none if no row is chosen."""
    chosen = np.flatnonzero(rows)
    if not chosen.size:
        return
    total = int(mapping.size[chosen].sum(dtype=np.uint64))
    listed = chosen[:MAX_RANGES].tolist()
    ranges = tuple(
        VaRange(
            int(mapping.start[row]),
            int(mapping.start[row]) + int(mapping.size[row]),
            layout.region_of(int(mapping.start[row])),
        )
        for row in listed
    )
    quoted = tuple(
        Evidence(mapping.source, mapping.describe(row), None if mapping.line is None else int(mapping.line[row]))
        for row in listed[:MAX_QUOTED]
    )
    left = chosen.size - MAX_QUOTED
    more = (Evidence(mapping.source, f"and {left} more rows"),) if left > 0 else ()
    yield Hit(
        title=f"Kernel memory is {what}",
        message=f"{total >> 10} KiB in {chosen.size} rows are {what}, first at {ranges[0].start:#x}.",
        claim=claim,
        severity=severity,
        vas=ranges,
        evidence=quoted + more,
        key=what,
    )
