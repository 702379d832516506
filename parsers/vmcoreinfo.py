"""VMCOREINFO: the facts that a kernel writes down for those who read its dump.

Format from include/linux/crash_core.h, later vmcore_info.h (4.10 to 6.18): ``KEY=VALUE`` lines.  The radix
depends on the key: SYMBOL() and KERNELOFFSET are hexadecimal without 0x, SIZE(), OFFSET() and LENGTH() decimal,
NUMBER() decimal and signed in generic code and 0x hexadecimal in arch/arm64/kernel/vmcore_info.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import at_lines, numbered, text_of
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "VmcoreInfo", "parse_vmcoreinfo"]

MAX_BYTES = 1 << 20  # the kernel has one page for it, 64 KiB at most

_NOTE_NAME = b"VMCOREINFO\0"
_NOTE_HEADER = struct.Struct("<III")  # Elf64_Nhdr: n_namesz, n_descsz, n_type
_LINE = expression(rb"^([A-Za-z][\w.-]*(?:\([\w.]+\))?)=([^\n]*)", re.MULTILINE)
_TYPED = expression(r"(SYMBOL|NUMBER|SIZE|OFFSET|LENGTH)\([\w.]+\)")
_HEXADECIMAL = expression(r"(?:0[xX])?([0-9a-fA-F]{1,16})")
_UNSIGNED = expression(r"([0-9]{1,20})")
_SIGNED_OR_HEXADECIMAL = expression(r"(-?[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16})")
# Key or kind of key: spelling of its value, radix (0: by prefix).
_SPELLINGS = {
    "SYMBOL": (_HEXADECIMAL, 16),
    "KERNELOFFSET": (_HEXADECIMAL, 16),
    "NUMBER": (_SIGNED_OR_HEXADECIMAL, 0),
    "SIZE": (_UNSIGNED, 10),
    "OFFSET": (_UNSIGNED, 10),
    "LENGTH": (_UNSIGNED, 10),
    "PAGESIZE": (_UNSIGNED, 10),
    "CRASHTIME": (_UNSIGNED, 10),
}
_LAST_SECOND = 253_402_300_799  # of the year 9999
_PROOF = ("OSRELEASE", "PAGESIZE", "SYMBOL(", "NUMBER(")


@dataclass(frozen=True, kw_only=True)
class VmcoreInfo:
    """The keys of VMCOREINFO; every accessor gives None for a missing key.

    >>> text = b'''OSRELEASE=6.12.117
    ... PAGESIZE=4096
    ... SYMBOL(swapper_pg_dir)=ffff800080bff000
    ... NUMBER(VA_BITS)=48
    ... NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456
    ... NUMBER(PHYS_OFFSET)=0x40000000
    ... '''
    >>> info = parse_vmcoreinfo(text, "vmcoreinfo")
    >>> info.osrelease, info.page_size, hex(info.symbol("swapper_pg_dir")), info.number("VA_BITS")
    ('6.12.117', 4096, '0xffff800080bff000', 48)
    >>> info.number("PAGE_BUDDY_MAPCOUNT_VALUE"), hex(info.number("PHYS_OFFSET")), info.line("NUMBER(PHYS_OFFSET)")
    (-268435456, '0x40000000', 6)
    >>> info.size("page") is None
    True
    """

    path: str
    text: Mapping[str, str]
    """Every key as written, ``SIZE(page)`` or ``OSRELEASE``, and its value as written."""
    values: Mapping[str, int]
    """The keys of a known kind whose value is a number."""
    lines: Mapping[str, int]
    """1-based line of each key, counted from the first line of the text."""
    diagnostics: tuple[Diagnostic, ...] = ()

    def symbol(self, name: str) -> int | None:
        """Virtual address of a symbol; for an exported pointer (``mem_section``, ``vmemmap``), its value."""
        return self.values.get(f"SYMBOL({name})")

    def number(self, name: str) -> int | None:
        """A number; negative where the kernel printed it so, an address is in 0 … 2**64-1."""
        return self.values.get(f"NUMBER({name})")

    def size(self, name: str) -> int | None:
        """Bytes of a type."""
        return self.values.get(f"SIZE({name})")

    def offset(self, name: str) -> int | None:
        """Offset of ``type.member``, bytes."""
        return self.values.get(f"OFFSET({name})")

    def length(self, name: str) -> int | None:
        """Elements of an array."""
        return self.values.get(f"LENGTH({name})")

    def line(self, key: str) -> int | None:
        """1-based line of a full key, ``NUMBER(VA_BITS)``."""
        return self.lines.get(key)

    @property
    def osrelease(self) -> str | None:
        return self.text.get("OSRELEASE")

    @property
    def crash_time(self) -> datetime | None:
        """When the kernel crashed, UTC (crash_save_vmcoreinfo() writes ``CRASHTIME``); None if it has not."""
        seconds = self.values.get("CRASHTIME", 0)
        return datetime.fromtimestamp(seconds, UTC) if 0 < seconds <= _LAST_SECOND else None

    @property
    def build_id(self) -> str | None:
        return self.text.get("BUILD-ID")

    @property
    def page_size(self) -> int | None:
        return self.values.get("PAGESIZE")

    @property
    def kernel_offset(self) -> int | None:
        """Bytes by which KASLR moved the kernel image."""
        return self.values.get("KERNELOFFSET")


def parse_vmcoreinfo(data: bytes, path: str) -> VmcoreInfo:
    """Read VMCOREINFO from text, a NUL-padded page or the ELF note around it; FormatError if it is not one.

    Of a key that occurs twice the first value counts, as for crash and makedumpfile.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"{len(data)} bytes, and no VMCOREINFO has more than {MAX_BYTES}", path=path)
    content, diagnostics = _description(data, path)
    content = text_of(content.partition(b"\0")[0], path, limit=MAX_BYTES, what="VMCOREINFO")
    text: dict[str, str] = {}
    lines: dict[str, int] = {}
    contradicted = []
    for line, match in numbered(_LINE, content):
        key, value = match[1].decode(), match[2].decode("utf-8", "replace").strip()
        if text.setdefault(key, value) != value:
            contradicted.append(line)
        lines.setdefault(key, line)
    if not any(key.startswith(_PROOF) for key in text):
        raise FormatError("no key of VMCOREINFO", path=path)
    values = {key: number for key, value in text.items() if (number := _number(key, value)) is not None}
    malformed = [lines[key] for key in text if key not in values and _kind(key) in _SPELLINGS]
    return VmcoreInfo(
        path=path,
        text=MappingProxyType(text),
        values=MappingProxyType(values),
        lines=MappingProxyType(lines),
        diagnostics=(
            *diagnostics,
            *at_lines("the value is not a number of the kind that this key has", malformed, path),
            *at_lines("given before with another value; the first one counts", contradicted, path),
        ),
    )


def _description(data: bytes, path: str) -> tuple[bytes, tuple[Diagnostic, ...]]:
    """What an ELF note of the name VMCOREINFO holds; other data as it is."""
    start = _NOTE_HEADER.size
    if not data.startswith(_NOTE_NAME, start):
        return data, ()
    name_size, size, _ = _NOTE_HEADER.unpack_from(data)
    start += -(-name_size // 4) * 4
    content = data[start : start + size]
    if len(content) < size:
        return content, (Diagnostic(f"the note is cut short: {len(content)} of {size} bytes", path),)
    return content, ()


def _kind(key: str) -> str:
    typed = _TYPED.fullmatch(key)
    return typed[1] if typed else key


def _number(key: str, value: str) -> int | None:
    spelling, radix = _SPELLINGS.get(_kind(key), (None, 0))
    match = spelling.fullmatch(value) if spelling else None
    return int(match[1], radix or (16 if "x" in match[1].lower() else 10)) if match else None
