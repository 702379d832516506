"""Laws: how a dump cuts its rows and in which order sources come changes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.audit import audit
from analyzer.sources.read import Request, read_sources
from parsers.ptdump import PageTableDump
from rules.engine import Verdict, builtin_rules, run
from rules.model.captured import Captured, build_facts
from tests.cases import FIXTURES
from tests.cases import case as case_directory

CAPTURES = [
    FIXTURES / "captures" / name
    for name in (
        "pmem-6.12-vuln/01-three-namespaces",
        "pmem-6.12-vuln/02-one-removed",
        "dimm-6.12/03-two-blocks-offline",
        "pmem-6.12-16k/02-one-removed",
        "pmem-6.12-64k/01-namespaces",
        "kaslr-pmem-6.12-4k-a72/01-namespaces",
        "fallback-6.12-4k/02-dimm-online",
    )
] + [
    case_directory(name)
    for name in (
        "LIN-03/fires",
        "LIN-08/fires",
        "VMM-05/fires",
        "HVO-02/fires",
        "HVO-04/quiet-optimised",
        "HVO-04/fires",
        "ATT-05/fires",
        "TBL-01/fires",
    )
]


@cache
def captured(case: Path) -> Captured:
    return read_sources(Request((case,))).captured


def conclusions(evidence: Captured) -> list[object]:
    return [said(verdict) for verdict in run(builtin_rules(), build_facts(evidence))]


def said(verdict: Verdict) -> object:
    """Everything but the quoted evidence, and counts of rows in messages."""
    findings = [
        (
            str(one.severity),
            str(one.hit.claim),
            one.hit.title,
            one.sections,
            tuple(one.hit.pfns.tuples()),
            joined(one),
        )
        for one in verdict.findings
    ]
    return verdict.rule.code, str(verdict.outcome), verdict.reason, findings


def joined(finding: object) -> tuple[tuple[int, int], ...]:
    """Virtual ranges with neighbours joined: rules that speak of rows list each."""
    ranges: list[tuple[int, int]] = []
    for va in sorted((va.start, va.end) for va in finding.hit.vas):  # type: ignore[attr-defined]
        if ranges and ranges[-1][1] == va[0]:
            ranges[-1] = (ranges[-1][0], va[1])
        else:
            ranges.append(va)
    return tuple(ranges)


@cache
def unsplit(case: Path) -> list[object]:
    return conclusions(captured(case))


def split(dump: PageTableDump, row: int, at: int) -> PageTableDump:
    """The dump with one row cut in two of the same kind, ``at`` bytes into it."""
    start, size = np.insert(dump.start, row, dump.start[row]), np.insert(dump.size, row, at)
    start[row + 1] += np.uint64(at)
    size[row + 1] -= np.uint64(at)
    broken = np.insert(dump.break_before, row + 1, False)
    columns = {name: np.insert(getattr(dump, name), row, getattr(dump, name)[row]) for name in _COLUMNS}
    markers = tuple(replace(mark, row=mark.row + (mark.row > row)) for mark in dump.markers)
    return replace(dump, start=start, size=size, break_before=broken, markers=markers, **columns)


_COLUMNS = ("word", "attrs", "memtype", "line")


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_cutting_a_row_in_two_changes_nothing(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(CAPTURES), label="case")
    evidence = captured(case)
    assert evidence.dump is not None
    row = data.draw(st.integers(0, len(evidence.dump) - 1), label="row")
    unit = leaf_bytes(case, evidence.dump, row)
    pieces = int(evidence.dump.size[row]) // unit
    if pieces < 2:
        return
    at = data.draw(st.integers(1, pieces - 1), label="pieces before the cut") * unit
    assert conclusions(replace(evidence, dump=split(evidence.dump, row, at))) == unsplit(case)


def leaf_bytes(case: Path, dump: PageTableDump, row: int) -> int:
    """Where a walker could cut: between entries, and contiguous runs stay whole."""
    mapping = dump.to_mapping(*geometry(case))
    from parsers.arm64 import Attr, granule  # noqa: PLC0415

    sizes = granule(geometry(case)[1])
    level = int(mapping.level[row])
    if int(mapping.attrs[row]) & Attr.CONT and level >= 2:
        return int(sizes.cont_span(level))
    return int(sizes.span(level))


@cache
def geometry(case: Path) -> tuple[int, int]:
    from parsers.layout import KernelLayout  # noqa: PLC0415

    layout = build_facts(captured(case)).get(KernelLayout)
    assert layout is not None
    return layout.va_bits_actual, layout.page_size


@pytest.mark.parametrize("case", CAPTURES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_order_of_sources_changes_nothing(case: Path) -> None:
    names = ["kernel_page_tables", "iomem", "memory_blocks", "uname", "dmesg"]
    files = [case / name for name in names if (case / name).exists()]
    orders = list(permutations(files))
    chosen = {tuple(files), tuple(reversed(files)), orders[len(orders) // 3], orders[len(orders) // 2]}
    assert len({repr([said(one) for one in audit(Request(order)).verdicts]) for order in chosen}) == 1


@pytest.mark.parametrize("case", CAPTURES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_reading_again_says_the_same(case: Path) -> None:
    assert [said(one) for one in audit(Request((case,))).verdicts][: len(unsplit(case))] == unsplit(case)
