"""Struct pages that are mapped and hold nothing: what a removal and a later add leave of a neighbour's (VMM-02)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import EMPTY, Ranges

if TYPE_CHECKING:
    from parsers.mapping import I64, Bool
    from parsers.vmcore.rows import StructPageRows
    from rules.model.memory.sections import SectionTable

__all__ = ["blank_struct_pages", "unproven_blanks"]


def blank_struct_pages(rows: StructPageRows | None, sections: SectionTable) -> Ranges:
    """PFNs of subsections in use whose struct pages were never initialised, as far as they were read.

    Memory that was added after boot is in use when it is online, or a driver's.  A driver's altmap lies at the start
    of its range, and memremap_pages() leaves the struct pages of the altmap itself alone (memmap_init_zone_device()):
    blank subsections before the first other one are taken for an altmap, unless the whole range is blank.  Something
    else in the section has struct pages in use: what was added last.  Without that the dump may be full of zeros.
    """
    if rows is None or not rows.blank.any():
        return EMPTY
    end = rows.pfn[_in_use(rows, sections) & _beside_others(rows, sections)] + 1
    return Ranges.of(end - rows.pages_per_subsection, end)


def unproven_blanks(rows: StructPageRows | None, sections: SectionTable) -> int:
    """Number of subsections in use whose struct pages are zero, as all others of the section that were read are."""
    if rows is None or not rows.blank.any():
        return 0
    return int((_in_use(rows, sections) & ~_beside_others(rows, sections)).sum())


def _in_use(rows: StructPageRows, sections: SectionTable) -> Bool:
    """Blank rows of memory that was added after boot and is online, or a driver's."""
    online = sections.online & sections.hotadded
    units = sections.device_units
    inside = online.contains(rows.pfn) | _inside(rows, units.start_pfn, units.end_pfn)
    return np.asarray(rows.blank & inside, dtype=np.bool_)


def _beside_others(rows: StructPageRows, sections: SectionTable) -> Bool:
    """Rows of sections of which another row is not blank."""
    section = rows.pfn // sections.pages_per_section
    return np.isin(section, section[~rows.blank])


def _inside(rows: StructPageRows, start: I64, end: I64) -> Bool:
    """Rows in the ranges of drivers that no altmap explains."""
    if not start.size:
        return np.zeros(len(rows), dtype=np.bool_)
    unit = np.maximum(np.searchsorted(start, rows.pfn, side="right") - 1, 0)
    inside = (start[unit] <= rows.pfn) & (rows.pfn < end[unit])
    used = np.cumsum(~rows.blank)  # up to and with each row
    first = np.searchsorted(rows.pfn, start)
    last = np.searchsorted(rows.pfn, end) - 1
    before = np.concatenate(([0], used))[first]
    whole_is_blank = rows.pfn[np.maximum(last, 0)] == end - 1
    whole_is_blank &= used[np.maximum(last, 0)] == before
    return np.asarray(inside & (whole_is_blank[unit] | (used > before[unit])))
