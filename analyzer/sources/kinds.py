"""The kinds of file that are understood: by name in a capture, by content when a single file is given.

One table; the reader, ``--kind`` and the documentation derive from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from parsers import ftrace, ptdump
from parsers.boot_id import parse_boot_id
from parsers.cmdline import parse_cmdline
from parsers.dmesg import parse_dmesg
from parsers.hugepages import parse_hugepages
from parsers.iomem import parse_iomem
from parsers.kconfig import parse_kconfig
from parsers.lsmem import parse_lsmem
from parsers.meminfo import parse_meminfo
from parsers.memmap_on_memory import parse_memmap_on_memory
from parsers.memory_blocks import parse_memory_blocks, parse_memory_nodes
from parsers.uname import parse_uname
from parsers.vmcoreinfo import parse_vmcoreinfo
from parsers.zoneinfo import parse_zoneinfo

__all__ = ["BY_NAME", "KINDS", "Kind", "kind_of_content", "kind_of_path"]

SNIFF_BYTES = 1 << 18
"""Enough for the first block of a zstd frame, which is at most 128 KiB."""


@dataclass(frozen=True)
class Kind:
    """A kind of file: the names it goes by, how its content is told, what reads it."""

    name: str
    paths: re.Pattern[str]
    """Matches the end of a path in a capture, or in a copied /proc, /sys or /boot."""
    sniff: Callable[[bytes], bool]
    parse: Callable[[bytes, str], object] | None
    """None where the file is known and holds nothing that the audit uses."""
    read: Callable[..., object] | None = None
    """Instead of ``parse`` for files that are too large to hold: takes a Path or bytes, and ``path``."""


def _paths(*names: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|/)(?:{'|'.join(names)})$")


def _has(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda head: compiled.search(head) is not None


def _is_trace(head: bytes) -> bool:
    """A log that holds a dumped ring buffer is a log first, and read as both."""
    return ftrace.looks_like(head) and b"Dumping ftrace buffer:" not in head


def _never(_: bytes) -> bool:
    return False


KINDS: tuple[Kind, ...] = (
    Kind("ptdump", _paths(r"kernel_page_tables(?:\.txt)?"), ptdump.looks_like, ptdump.parse),
    Kind(
        "iomem",
        _paths(r"(?:proc_)?iomem(?:\.txt)?"),
        _has(rb"^[^\S\n]*[0-9a-f]{8,16}-[0-9a-f]{8,16} : \S"),
        parse_iomem,
    ),
    Kind(
        "memory_blocks",
        _paths(r"memory_blocks(?:\.txt)?"),
        _has(rb"^(?:> ?)*(?:\S*/)?(?:memory\d+/state: *(?:online|offline|going)|block_size_bytes:)"),
        parse_memory_blocks,
    ),
    Kind("memory_nodes", _paths("memory_nodes"), _has(rb"\bnode\d+ -> \S*node\d+"), parse_memory_nodes),
    Kind(
        "lsmem",
        _paths(r"lsmem(?:\.txt|\.json)?", r"lsmem_-\S*"),
        _has(rb"^RANGE +|\"memory\"\s*:\s*\["),
        parse_lsmem,
    ),
    Kind("zoneinfo", _paths(r"(?:proc_)?zoneinfo(?:\.txt)?"), _has(rb"^Node \d+, zone +\w+"), parse_zoneinfo),
    Kind(
        "config",
        _paths(r"config(?:\.gz)?", r"config-[\w.+~-]+", r"kernel_config"),
        lambda head: head.startswith(b"\x1f\x8b") or _has(rb"^CONFIG_ARM64=y|^CONFIG_\w+=")(head),
        parse_kconfig,
    ),
    Kind("vmcoreinfo", _paths(r"vmcoreinfo(?:\.txt)?"), _has(rb"^OSRELEASE=|VMCOREINFO"), parse_vmcoreinfo),
    Kind("meminfo", _paths(r"(?:proc_)?meminfo(?:\.txt)?"), _has(rb"^MemTotal: +\d+ kB"), parse_meminfo),
    Kind("hugepages", _paths(r"hugetlb", r"hugepages(?:\.txt)?"), _has(rb"hugepages-\d+kB/"), parse_hugepages),
    Kind("trace", _paths(r"trace(?:\.txt)?", r"trace\.dat"), _is_trace, None, ftrace.read),
    Kind(
        "dmesg",
        _paths(
            r"dmesg(?:\.txt|\.log)?",
            r"dmesg_-\S*",
            r"vmcore-dmesg(?:\.txt)?",
            r"serial\.log",
            r"console\.log",
            r"kern\.log",
            r"journal(?:\.txt|\.json)?",
            r"journalctl_-\S*",
            "messages",
            "syslog",
        ),
        _has(
            rb"Linux version \d|^(?:<\d+>)?\[ *\d+\.\d{6}\]|Unable to handle kernel |Internal error: Oops|Call trace:"
            rb"|^\{[^\n]{0,8192}\"MESSAGE\"\s*:|\A\s*\{\s*\"dmesg\"\s*:"
        ),
        parse_dmesg,
    ),
    Kind(
        "uname",
        _paths(r"uname(?:\.txt)?", r"uname_-a", r"osrelease", r"proc/version"),
        _has(rb"\ALinux \S+ \d+\.\d+"),
        parse_uname,
    ),
    Kind("cmdline", _paths(r"(?:proc_)?cmdline(?:\.txt)?"), _never, parse_cmdline),
    Kind(
        "memmap_on_memory",
        _paths(r"memmap_on_memory", r"sys/module/memory_hotplug/parameters/memmap_on_memory"),
        _never,
        parse_memmap_on_memory,
    ),
    Kind("boot_id", _paths("boot_id"), _never, parse_boot_id),
    Kind("vmcoreinfo_addr", _paths("vmcoreinfo_addr"), _never, None),
)

BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}


def kind_of_path(path: str) -> Kind | None:
    """The kind that a file of this name in a capture has."""
    return next((kind for kind in KINDS if kind.paths.search(path)), None)


def kind_of_content(head: bytes) -> Kind | None:
    """The kind that the first bytes of a file show."""
    return next((kind for kind in KINDS if kind.sniff(head[:SNIFF_BYTES])), None)
