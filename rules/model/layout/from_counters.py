"""The page size from what counts pages or gives an order of pages, where nothing states it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.expressions import expression
from parsers.log_messages import Kind

if TYPE_CHECKING:
    from parsers.cmdline import CommandLine
    from parsers.dmesg import Boot
    from parsers.hugepages import HugePages
    from parsers.meminfo import Meminfo
    from parsers.zoneinfo import Zoneinfo

__all__ = ["page_size_of", "page_size_of_boot"]

_SIZES = (4 << 10, 16 << 10, 64 << 10)
_TOLERANCE = 0.05
"""Memory that is plugged, or ballooned, between reading the two files."""
_OWN_SIZES = {64 << 10: 4 << 10, 512 << 20: 64 << 10, 16 << 30: 64 << 10}
"""Huge page sizes that one page size alone has (arch/arm64/mm/hugetlbpage.c, v4.17 to v6.12)."""
_DEFAULTS = {2 << 20: 4 << 10, 32 << 20: 16 << 10, 512 << 20: 64 << 10}
"""A PMD's size, the default huge page size, by page size."""
_TABLE = expression(r"[\w -]{1,24} hash table entries: \d{1,12} \(order: (-?\d{1,2}), (\d{4,13}) bytes")


def page_size_of_boot(boot: Boot) -> tuple[int, int] | None:
    """Bytes of a page by the hash tables of a boot, and the line that says so; None where no table was printed.

    alloc_large_system_hash() (mm/mm_init.c, before 6.5 mm/page_alloc.c) prints the size of each table in bytes and its
    order, ``ilog2(size) - PAGE_SHIFT``.
    """
    found = [(match, message.line) for message in boot.of(Kind.STEP) if (match := _TABLE.match(message.text))]
    shifts = {int(match[2]).bit_length() - 1 - int(match[1]) for match, _ in found}
    sizes = {1 << shift for shift in shifts if 0 < shift < 64}
    return (sizes.pop(), found[0][1]) if len(shifts) == 1 and sizes & {*_SIZES} else None


def page_size_of(
    meminfo: Meminfo | None, zoneinfo: Zoneinfo | None, hugepages: HugePages | None, command_line: CommandLine | None
) -> tuple[int, str] | None:
    """Bytes of a page, and what says so: MemTotal by the managed pages of all zones, or the sizes of huge pages.

    Both are of the kernel's own making: MemTotal is ``totalram_pages() << PAGE_SHIFT``, and managed pages add up to
    ``totalram_pages()`` (mm/page_alloc.c).  None where they are missing or fit no page size.
    """
    return _by_zones(meminfo, zoneinfo) or _by_pools(hugepages) or _by_default(meminfo, command_line)


def _by_zones(meminfo: Meminfo | None, zoneinfo: Zoneinfo | None) -> tuple[int, str] | None:
    total = None if meminfo is None else meminfo.get("MemTotal")
    if meminfo is None or zoneinfo is None or not total:
        return None
    pages = int(np.where(zoneinfo.managed > 0, zoneinfo.managed, 0).sum())
    fits = [size for size in _SIZES if pages and abs(total / (pages * size) - 1) < _TOLERANCE]
    return (fits[0], f"MemTotal of {meminfo.path} by the managed pages of {zoneinfo.path}") if fits else None


def _by_pools(hugepages: HugePages | None) -> tuple[int, str] | None:
    found = {_OWN_SIZES[size] for size in hugepages.pools if size in _OWN_SIZES} if hugepages is not None else set()
    if hugepages is None or len(found) != 1:
        return None
    return found.pop(), f"the huge page sizes in {hugepages.path}"


def _by_default(meminfo: Meminfo | None, command_line: CommandLine | None) -> tuple[int, str] | None:
    """The default huge page size, unless the command line may have set it."""
    size = None if meminfo is None or command_line is None else _DEFAULTS.get(meminfo.get("Hugepagesize") or 0)
    if meminfo is None or command_line is None or size is None or "default_hugepagesz" in command_line:
        return None
    return size, f"Hugepagesize of {meminfo.path}"
