"""A walk as the kernel's own dump would print it: rows joined over physical gaps, cut at the markers.

mm/ptdump.c and arch/arm64/mm/ptdump.c (5.6 to 6.18): a row ends where level or attributes change, or at the
address of the next marker.  The markers are read from the dump where the kernel has the dump code.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from parsers.arm64 import Granule
from parsers.mapping import I64, U64, Bool, Mapping, Marker
from parsers.records import dataclass
from parsers.vmcore.addresses import MASK
from parsers.vmcore.dump import Dump

__all__ = ["Boundary", "as_printed", "read_boundaries"]

_MAX_MARKERS = 64


@dataclass(frozen=True, slots=True)
class Boundary:
    """A named address of the kernel's address space: the marker line that the dump prints there."""

    address: int
    name: str


def read_boundaries(dump: Dump) -> tuple[Boundary, ...]:
    """The markers in the kernel's order, from its own table, or those that VMCOREINFO gives (5.18 and later)."""
    found = dump.attempt("marker table", lambda: _own_table(dump)) if dump.symbol("kernel_ptdump_info") else None
    return tuple(found) if found else _from_vmcoreinfo(dump)


def _own_table(dump: Dump) -> list[Boundary]:
    """``kernel_ptdump_info.markers``: pairs of address and name, ended by one without a name."""
    table = dump.field(dump.global_at("kernel_ptdump_info"), "ptdump_info", "markers")
    result: list[Boundary] = []
    for number in range(_MAX_MARKERS):
        record = dump.read(table + 16 * number, 16)
        address, name = int.from_bytes(record[:8], "little"), int.from_bytes(record[8:], "little")
        if not name:
            break
        result.append(Boundary(address, dump.string(name).decode("ascii", "replace")))
    return result


def _from_vmcoreinfo(dump: Dump) -> tuple[Boundary, ...]:
    addresses, info = dump.addresses, dump.vmcoreinfo
    named = [
        (-(1 << addresses.va_actual) & MASK, "Linear Mapping start"),
        (addresses.linear_end, "Linear Mapping end"),
        (info.number("MODULES_VADDR"), "Modules start"),
        (info.number("MODULES_END"), "Modules end"),
        (info.number("VMALLOC_START"), "vmalloc() area"),
        (info.number("VMALLOC_END"), "vmalloc() end"),
        (_vmemmap_start(dump), "vmemmap start"),
        (info.number("VMEMMAP_END"), "vmemmap end"),
    ]
    known = [Boundary(address & MASK, name) for address, name in named if address is not None and address <= MASK]
    return tuple(sorted(known, key=lambda item: item.address))


def _vmemmap_start(dump: Dump) -> int | None:
    """Where the kernel prints the marker since 6.9: the first struct page that the bits in use can need."""
    addresses, info = dump.addresses, dump.vmcoreinfo
    start, size = info.number("VMEMMAP_START"), info.size("page")
    if start is None or size is None:
        return start
    unused = max((-(1 << addresses.va_actual) & MASK) - addresses.page_offset, 0)
    return start + (unused >> addresses.granule.page_shift) * size


def as_printed(mapping: Mapping, boundaries: tuple[Boundary, ...], granule: Granule) -> Mapping:
    """The same ranges as the text dump of the same tables has them, markers included; output addresses are dropped."""
    places = _places(mapping, np.array([item.address for item in boundaries], dtype=np.uint64), granule)
    inside = np.searchsorted(mapping.start, places, side="right").astype(np.int64) - 1
    held = (
        (inside >= 0) & (places <= mapping.last[np.maximum(inside, 0)])
        if len(mapping)
        else np.zeros(places.size, np.bool_)
    )
    start = np.unique(np.concatenate((mapping.start, places[held])))
    source = np.searchsorted(mapping.start, start, side="right") - 1
    last = np.minimum(np.append(start[1:], np.uint64(0)) - np.uint64(1), mapping.last[source])
    same = (last[:-1] + np.uint64(1) == start[1:]) & ~np.isin(start[1:], places)
    for column in (mapping.level, mapping.attrs, mapping.memtype):
        same &= column[source[1:]] == column[source[:-1]]
    breaks = np.concatenate((np.ones(min(start.size, 1), dtype=np.bool_), ~same))
    first = np.flatnonzero(breaks)
    end = np.append(first[1:], start.size)[: first.size] - 1
    rows = start[first]
    return replace(
        mapping,
        start=rows,
        size=last[end] - rows + np.uint64(1),
        level=mapping.level[source[first]],
        attrs=mapping.attrs[source[first]],
        memtype=mapping.memtype[source[first]],
        pa=None,
        markers=tuple(
            Marker(item.name, int(row)) for item, row in zip(boundaries, np.searchsorted(rows, places), strict=True)
        ),
    )


def _places(mapping: Mapping, addresses: U64, granule: Granule) -> U64:
    """Where the walk notices each marker: at the first entry that does not start before it."""
    if not len(mapping):
        return addresses
    row, inside = _rows_at(mapping, addresses)
    level = mapping.level[row].astype(np.int64)
    span = np.uint64(1) << (granule.page_shift + (3 - level) * granule.bits_per_level).astype(np.uint64)
    rounded = (addresses + span - np.uint64(1)) & ~(span - np.uint64(1))
    return np.where(inside & (rounded >= addresses), rounded, addresses).astype(np.uint64)


def _rows_at(mapping: Mapping, addresses: U64) -> tuple[I64, Bool]:
    """The row that each address is in, and whether there is one."""
    if not len(mapping):
        return np.zeros(addresses.size, dtype=np.int64), np.zeros(addresses.size, dtype=np.bool_)
    row = np.searchsorted(mapping.start, addresses, side="right").astype(np.int64) - 1
    index = np.maximum(row, 0)
    return index, (row >= 0) & (addresses <= mapping.last[index])
