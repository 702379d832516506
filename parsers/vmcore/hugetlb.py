"""Pools of huge pages and whether their struct pages are deduplicated (mm/hugetlb.c, mm/hugetlb_vmemmap.c)."""

from __future__ import annotations

import numpy as np

from parsers.vmcore.dump import Dump
from parsers.vmcore.rows import HugetlbRows

__all__ = ["read_hugetlb"]

_MAX_HSTATES = 16


def read_hugetlb(dump: Dump) -> HugetlbRows:
    """Read ``hstates``; LookupError where symbols or types are missing, or the kernel has no huge pages."""
    if not dump.has_types:
        raise LookupError("hstates need BTF or a vmlinux")
    count = min(max(int(dump.prog["hugetlb_max_hstate"]), 0), _MAX_HSTATES)
    states = [dump.prog["hstates"][number] for number in range(count)]
    optimized = None
    if dump.symbol("vmemmap_optimize_enabled") is not None:
        optimized = bool(dump.prog["vmemmap_optimize_enabled"])
    columns = np.array(
        [
            [int(getattr(state, name)) for name in ("order", "nr_huge_pages", "free_huge_pages", "surplus_huge_pages")]
            for state in states
        ],
        dtype=np.int64,
    ).reshape(-1, 4)
    return HugetlbRows(
        name=tuple(state.name.string_().decode("ascii", "replace") for state in states),
        order=columns[:, 0],
        nr_huge_pages=columns[:, 1],
        free_huge_pages=columns[:, 2],
        surplus_huge_pages=columns[:, 3],
        vmemmap_optimized=optimized,
    )
