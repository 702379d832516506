"""Pools of huge pages and whether their struct pages are deduplicated (mm/hugetlb.c, mm/hugetlb_vmemmap.c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parsers.mapping import I64
from parsers.vmcore.dump import Dump

__all__ = ["HugetlbRows", "read_hugetlb"]

_MAX_HSTATES = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class HugetlbRows:
    """One row a huge page size."""

    name: tuple[str, ...]
    order: I64
    """A huge page is ``2**order`` pages."""
    nr_huge_pages: I64
    free_huge_pages: I64
    surplus_huge_pages: I64
    vmemmap_optimized: bool | None
    """Whether HVO is switched on; None where the kernel does not have it (arm64 had it from 5.19 to 6.2)."""

    def __len__(self) -> int:
        return len(self.name)


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
