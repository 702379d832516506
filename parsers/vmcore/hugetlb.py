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
    first, size = dump.global_at("hstates"), dump.size("hstate")
    if not size:
        raise LookupError("struct hstate")
    count = min(dump.number(dump.global_at("hugetlb_max_hstate"), 4), _MAX_HSTATES)
    states = [first + size * number for number in range(count)]
    switch = dump.symbol("vmemmap_optimize_enabled")
    optimized = None if switch is None else bool(dump.number(switch, 1))
    members = ("order", "nr_huge_pages", "free_huge_pages", "surplus_huge_pages")
    values = [[dump.field(state, "hstate", name) for name in members] for state in states]
    columns = np.array(values, dtype=np.uint64).reshape(-1, 4).astype(np.int64)
    name = dump.member("hstate", "name")
    return HugetlbRows(
        name=tuple(dump.string(state + name.offset, name.size or 0).decode("ascii", "replace") for state in states),
        order=columns[:, 0],
        nr_huge_pages=columns[:, 1],
        free_huge_pages=columns[:, 2],
        surplus_huge_pages=columns[:, 3],
        vmemmap_optimized=optimized,
    )
