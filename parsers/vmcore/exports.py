"""Variables that the kernel exports to modules, by its own table of them.

Without CONFIG_KALLSYMS_ALL kallsyms names functions only.  Some variables are exported, and ``__ksymtab`` says where
each is: signed 32-bit offsets, from their own places, to the variable, to its name, and since 5.4 to its namespace
(``struct kernel_symbol`` in include/linux/export.h; CONFIG_HAVE_ARCH_PREL32_RELOCATIONS, on arm64 since 4.19).  The
table is found by the names in ``__ksymtab_strings``: both are among the read-only data.  What is searched is not
recorded: a small core holds the entries and names that were found, and the same search finds them there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from parsers.mapping import U8
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.memory import PhysicalMemory

__all__ = ["EXPORTED", "find_exports"]

EXPORTED = ("iomem_resource", "node_data", "contig_page_data", "kernel_kobj")
"""Variables that are looked for."""
_MAX_IMAGE = 512 << 20
_STEP = 4 << 20
_WORD = 4
_ALIGNED = 8  # pointers and structures


class _Image(Protocol):
    """What reads the kernel image (`parsers.vmcore.dump.Dump`)."""

    addresses: AddressMap
    memory: PhysicalMemory

    def read(self, va: int, size: int) -> bytes:
        """Exactly ``size`` bytes; MissingMemoryError otherwise."""


def find_exports(dump: _Image) -> dict[str, int]:
    """Run-time addresses of those of `EXPORTED` that the kernel exports; what is ambiguous is left out."""
    start, names = dump.addresses.image_start, _names(dump)
    if not names:
        return {}
    places = np.array(sorted(names), dtype=np.int64)
    found: dict[str, set[tuple[int, int, int]]] = {}
    for offset, data in _pieces(dump):
        words = data.view("<i4")
        target = words + np.arange(offset, offset + data.size, _WORD, dtype=np.int64)
        row = np.minimum(np.searchsorted(places, target), places.size - 1)
        hits = np.flatnonzero(places[row] == target)
        for hit in hits[hits > 0].tolist():
            variable, name = int(target[hit - 1]), int(target[hit])
            if _is_data(dump.addresses, start + variable):
                found.setdefault(names[name], set()).add((variable, offset + _WORD * (hit - 1), name))
    certain = {}
    for symbol, entries in found.items():
        if len(entries) == 1:
            variable, entry, name = next(iter(entries))
            dump.read(start + entry, 2 * _WORD)
            dump.read(start + name - 1, len(symbol) + 2)  # with the zeros before and after it
            certain[symbol] = start + variable
    return certain


def _names(dump: _Image) -> dict[int, str]:
    """Where the names stand in the image, each between two zeros: offsets, and which name it is."""
    found = {}
    for offset, data in _pieces(dump):
        text = data.tobytes()
        for name in EXPORTED:
            wanted = b"\0" + name.encode() + b"\0"
            at = text.find(wanted)
            while at >= 0:
                found[offset + at + 1] = name
                at = text.find(wanted, at + 1)
    return found


def _pieces(dump: _Image) -> Iterator[tuple[int, U8]]:
    """The image up to its page tables: offsets from its start, and bytes; zeros where pages are missing.

    Each piece begins with the last page of the one before, so that what is searched lies in one of them as a whole.
    """
    addresses, page = dump.addresses, dump.addresses.granule.page_size
    memory, end = dump.memory.unrecorded, min(addresses.swapper_pg_dir - addresses.image_start, _MAX_IMAGE)
    for offset in range(0, end, _STEP - page):
        va = np.arange(offset, min(offset + _STEP, end), page, dtype=np.uint64) + np.uint64(addresses.image_start)
        data, _ = memory.read_pages(addresses.physical(va)[0], page)
        yield offset, data.reshape(-1)


def _is_data(addresses: AddressMap, va: int) -> bool:
    """Whether an address can be that of a variable: data and bss follow the page tables (vmlinux.lds.S)."""
    return addresses.swapper_pg_dir < va < addresses.image_end and va % _ALIGNED == 0
