"""/proc/meminfo: sizes in bytes.

Format from fs/proc/meminfo.c and mm/hugetlb.c (4.14 to 6.18): ``Name:  value kB``, where kB is 1024 bytes;
the HugePages_* counts have no unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from parsers.errors import ArchitectureError, Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import numbered, text_of, unread_lines
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "Meminfo", "parse_meminfo"]

MAX_BYTES = 1 << 20

_FIELD = expression(rb"^[ \t]*([A-Z][\w()]*):[ \t]+(\d{1,18})(?:[ \t]+(kB))?[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Meminfo:
    """Fields by name: bytes, or a count where the kernel prints no unit.

    >>> text = b'''MemTotal:         495808 kB
    ... PageTables:          136 kB
    ... HugePages_Total:       3
    ... Hugepagesize:       2048 kB
    ... '''
    >>> meminfo = parse_meminfo(text, "meminfo")
    >>> meminfo.get("MemTotal"), meminfo.get("HugePages_Total"), meminfo.get("DirectMap4k"), meminfo.line("PageTables")
    (507707392, 3, None, 2)
    """

    path: str
    fields: Mapping[str, int]
    lines: Mapping[str, int]
    """1-based line of each field."""
    diagnostics: tuple[Diagnostic, ...] = ()

    def get(self, name: str) -> int | None:
        """Bytes, or the count of a field without unit; None if it is not listed."""
        return self.fields.get(name)

    def line(self, name: str) -> int | None:
        """1-based line of a field."""
        return self.lines.get(name)


def parse_meminfo(data: bytes, path: str) -> Meminfo:
    """Read ``/proc/meminfo``; FormatError without ``MemTotal``, ArchitectureError for that of a 32-bit kernel."""
    data = text_of(data, path, limit=MAX_BYTES, what="/proc/meminfo")
    fields: dict[str, int] = {}
    lines: dict[str, int] = {}
    for line, match in numbered(_FIELD, data):
        name = match[1].decode()
        fields[name] = int(match[2]) << (10 if match[3] else 0)
        lines[name] = line
    if "MemTotal" not in fields:
        raise FormatError("no MemTotal, no /proc/meminfo", path=path)
    if "HighTotal" in fields:  # CONFIG_HIGHMEM, which arm64 cannot have
        line = lines["HighTotal"]
        raise ArchitectureError("memory of a 32-bit kernel (HighTotal), not of arm64", path=path, line=line)
    return Meminfo(
        path=path,
        fields=MappingProxyType(fields),
        lines=MappingProxyType(lines),
        diagnostics=unread_lines(data, lines.values(), path),
    )
