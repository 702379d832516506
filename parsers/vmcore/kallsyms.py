"""Symbols of a dump without debuginfo: the kernel's own kallsyms, or a System.map.

Since 6.0 VMCOREINFO says where the kallsyms tables are (f09bddbd8661 "vmcoreinfo: add kallsyms_num_syms symbol"); for
older kernels a System.map of the same build does.  Format: scripts/kallsyms.c and kernel/kallsyms.c, 6.0 to 7.3.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from parsers.errors import FormatError, InputError
from parsers.expressions import expression
from parsers.mapping import I64, U8, U64
from parsers.vmcore.addresses import MASK
from parsers.vmcore.chains import chain
from parsers.vmcore.memory import MissingMemoryError
from parsers.vmcoreinfo import VmcoreInfo

__all__ = ["Kallsyms", "SymbolAddress", "kallsyms", "system_map"]

SymbolAddress = Callable[[str], int | None]
"""Run-time address of a symbol, or None."""

_MAX_SYMBOLS = 1 << 24
_TABLES = ("kallsyms_names", "kallsyms_num_syms", "kallsyms_token_table", "kallsyms_token_index")
_NR_TOKENS = 256
_MAX_TOKEN = 1 << 10
_MAX_NAMES = 64 << 20
_USUAL_NAME = 16  # bytes of a compressed name, and more
_PIECE = 256 << 10  # bytes of names that are worked on at once
_CLONE = expression(rb"(?:\.(?:isra|constprop|part|cold|llvm)[.\d]*)*")
_NEAR = 64
"""Symbols that may share an address, as aliases do."""
_MAX_FUNCTION = 1 << 16
_LONG = 0x80  # a length of two bytes: seven bits, then the rest (73bbb94466fd, 6.1)
_ROW = expression(rb"^[0-9a-fA-F]{16} [A-Za-z] \S+$", re.MULTILINE)
_REFERENCES = ("_stext", "swapper_pg_dir", "init_uts_ns")


class _Reader(Protocol):
    """What reads the kernel's virtual memory (`parsers.vmcore.dump.Dump`)."""

    def read(self, va: int, size: int) -> bytes:
        """Exactly ``size`` bytes; MissingMemoryError otherwise."""

    def peek(self, va: int, size: int) -> bytes:
        """As many of ``size`` bytes as follow each other, not recorded."""


class _Places(Protocol):
    """What knows where the tables lie: VMCOREINFO, or `parsers.image.kallsyms_tables`."""

    def symbol(self, name: str) -> int | None:
        """Address of ``kallsyms_…``."""


def kallsyms(dump: _Reader, info: VmcoreInfo) -> Kallsyms | None:
    """Symbols from the kallsyms tables in the dump; None if VMCOREINFO names no tables.

    Raises FormatError where the tables are damaged or not in the dump.
    """
    if any(info.symbol(name) is None for name in _TABLES):
        return None
    try:
        return Kallsyms(dump, info)
    except MissingMemoryError as error:
        raise FormatError(f"kallsyms cannot be read: {error.message}") from error


class Kallsyms:
    """The names, expanded into one text, and where the address of each lies."""

    def __init__(self, dump: _Reader, info: _Places) -> None:
        def at(name: str) -> int:
            return info.symbol(f"kallsyms_{name}") or 0

        count = int.from_bytes(dump.read(at("num_syms"), 4), "little")
        if not 0 < count < _MAX_SYMBOLS:
            raise FormatError(f"kallsyms claims {count} symbols")
        index: U64 = np.frombuffer(dump.read(at("token_index"), 2 * _NR_TOKENS), dtype="<u2").astype(np.uint64)
        end = dump.peek(at("token_table"), int(index[-1]) + _MAX_TOKEN).find(b"\0", int(index[-1]))
        places: I64 = index.astype(np.int64)
        if end < 0 or (places[1:] <= places[:-1]).any():
            raise FormatError("the token table of kallsyms is damaged")
        texts = dump.read(at("token_table"), end + 1)
        length: I64 = np.append(places[1:], end + 1) - places - 1
        self._text, self._start = _expanded(_names(dump, at("names"), count), texts, places, length)
        self._read = dump.read
        self._addresses, self._offsets, self._base = at("addresses"), at("offsets"), at("relative_base")
        if not self._addresses and not self._offsets:
            raise FormatError("VMCOREINFO names no addresses of kallsyms")

    def __call__(self, name: str) -> int | None:
        """The address of the first symbol of that name; its type, one character, comes first in the text."""
        wanted = name.encode() + b"\0"
        at = self._text.find(wanted)
        while at >= 0 and (at < 2 or self._text[at - 2]):
            at = self._text.find(wanted, at + 1)
        if at < 0:
            return None
        return self._address(int(np.searchsorted(self._start, at - 1)))

    def functions(self, name: str) -> list[tuple[str, int, int]]:
        """Name, address and end of a function and of the clones that compilers make of it (``name.isra.0``).

        A function ends where the next symbol begins; what has no end, or an impossible one, is left out.
        """
        extents = []
        for clone, place in self._clones(name.encode()):
            number = int(np.searchsorted(self._start, place))
            start = self._address(number)
            following = (self._address(later) for later in range(number + 1, min(number + _NEAR, self._start.size)))
            end = None if start is None else next((at for at in following if at is not None and at > start), None)
            if start is not None and end is not None and end - start <= _MAX_FUNCTION:
                extents.append((clone.decode("ascii", "replace"), start, end))
        return extents

    def at(self, va: int) -> tuple[str, int] | None:
        """The symbol that an address belongs to, and the offset from it, as the kernel prints ``name+0x…``.

        Of symbols with one address it is the first.  None below the first symbol, where the tables are not in the dump,
        and behind ``_etext`` where kallsyms has functions only (no CONFIG_KALLSYMS_ALL).
        """
        try:
            behind = bisect_right(range(self._start.size), va, key=self._known_address)
            if not behind:
                return None
            address = self._known_address(behind - 1)
            number = bisect_left(range(behind), address, key=self._known_address)
        except MissingMemoryError:
            return None
        start = int(self._start[number])
        kind, name = self._text[start : start + 1], self._text[start + 1 : self._text.index(b"\0", start)]
        initial = (self("_sinittext") or MASK) <= va < (self("_einittext") or 0)
        if kind in b"tTwW" and va >= (self("_etext") or MASK) and not initial:
            return None
        return name.decode("ascii", "replace"), va - address

    def _clones(self, name: bytes) -> Iterator[tuple[bytes, int]]:
        """Symbols of that name, with suffixes of clones or without, and where the type of each stands in the text."""
        at = self._text.find(name)
        while at >= 0:
            end = self._text.find(b"\0", at)
            if at >= 2 and self._text[at - 2] == 0 and _CLONE.fullmatch(self._text, at + len(name), end):
                yield self._text[at:end], at - 1
            at = self._text.find(name, end)

    def _known_address(self, number: int) -> int:
        address = self._address(number)
        if address is None:
            raise MissingMemoryError(f"the address of symbol {number} is not in the dump")
        return address

    def _address(self, number: int) -> int | None:
        """Address of a symbol by its number; None where the table is not in the dump there."""
        try:
            if self._addresses:
                return int.from_bytes(self._read(self._addresses + 8 * number, 8), "little")
            place = self._offsets + 4 * number
            offset = self._read(place, 4)
            if not self._base:  # offsets count from themselves
                return place + int.from_bytes(offset, "little", signed=True) & MASK
            base = int.from_bytes(self._read(self._base, 8), "little")
            return base + int.from_bytes(offset, "little") & MASK
        except MissingMemoryError:
            return None


def _names(dump: _Reader, at: int, count: int) -> tuple[U8, I64, I64]:
    """The compressed names: their bytes, and where the tokens of each start and end."""
    size = min(count * _USUAL_NAME, _MAX_NAMES)
    while True:
        data: U8 = np.frombuffer(dump.peek(at, size), dtype=np.uint8)
        start, end = _records(data, count)
        if start.size == count and int(end[-1]) <= data.size:
            return np.frombuffer(dump.read(at, int(end[-1])), dtype=np.uint8), start, end
        if data.size < size or size >= _MAX_NAMES:
            raise FormatError("kallsyms cannot be read: the names end early")
        size = min(2 * size, _MAX_NAMES)


def _records(data: U8, count: int) -> tuple[I64, I64]:
    """Where up to ``count`` names start and end, each after its length; the last may end beyond the data.

    In pieces, because the numbers of one take some forty times as much memory.
    """
    starts, ends, at, found = [], [], 0, 0
    while at < data.size and found < count:
        wide = data[at : at + _PIECE].astype(np.int64)
        follows = np.zeros(wide.size, dtype=np.int64)
        follows[: data.size - at - 1] = data[at + 1 : at + wide.size + 1]
        is_long = wide >= _LONG
        header = np.where(is_long, 2, 1)
        length = np.where(is_long, (wide & (_LONG - 1)) | follows << 7, wide)
        begin = chain(np.arange(wide.size) + header + length)[: count - found]
        starts.append(at + begin + header[begin])
        ends.append(starts[-1] + length[begin])
        at, found = int(ends[-1][-1]), found + begin.size
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate((empty, *starts)), np.concatenate((empty, *ends))


def _expanded(names: tuple[U8, I64, I64], texts: bytes, index: I64, length: I64) -> tuple[bytes, I64]:
    """All names one after another, each between zeros, and where each starts."""
    data, start, end = names
    parts, firsts, size = [b"\0"], [], 1
    for at in range(0, start.size, _PIECE // _USUAL_NAME):
        some = slice(at, at + _PIECE // _USUAL_NAME)
        text, first = _expanded_part((data, start[some], end[some]), texts, index, length)
        firsts.append(first + size)
        parts.append(text)
        size += len(text)
        if size > _MAX_NAMES:
            raise FormatError("the names of kallsyms are longer than names can be")
    return b"".join(parts), np.concatenate(firsts)


def _expanded_part(names: tuple[U8, I64, I64], texts: bytes, index: I64, length: I64) -> tuple[bytes, I64]:
    """Some names, each with a zero after it, and where each starts."""
    data, start, end = names
    size = end - start
    # One entry for each token and one, number 256, for the zero after each name.
    first = np.cumsum(size + 1) - (size + 1)
    token = np.full(int((size + 1).sum()), _NR_TOKENS, dtype=np.int64)
    inside = np.ones(token.size, dtype=np.bool_)
    inside[first + size] = False
    which = np.repeat(start - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
    token[inside] = data[which]
    where, many = np.append(index, index[-1] + length[-1]), np.append(length, 1)
    repeat = many[token]
    ends = np.cumsum(repeat)
    if int(ends[-1]) > _MAX_NAMES:
        raise FormatError("the names of kallsyms are longer than names can be")
    letters = np.repeat(where[token] - (ends - repeat), repeat) + np.arange(int(ends[-1]))
    return np.frombuffer(texts, dtype=np.uint8)[letters].tobytes(), (ends - repeat)[first]


def system_map(data: bytes, info: VmcoreInfo, path: str) -> SymbolAddress:
    """Symbols from the text of a System.map, moved by the KASLR offset of the dump.

    Raises FormatError for other text, InputError when its symbols contradict VMCOREINFO: it is of another kernel.
    """
    if _ROW.search(data) is None:
        raise FormatError("no System.map", path=path)

    def linked(name: str) -> int | None:
        found = re.search(rb"^([0-9a-fA-F]{16}) [A-Za-z] " + re.escape(name.encode()) + rb"$", data, re.MULTILINE)
        return int(found[1], 16) if found else None

    offsets = {
        name: (info.symbol(name) or 0) - value & MASK
        for name in _REFERENCES
        if info.symbol(name) is not None and (value := linked(name)) is not None
    }
    if not offsets:
        raise FormatError("no symbol in common with the dump's VMCOREINFO", path=path)
    offset = info.kernel_offset
    if len(set(offsets.values())) > 1 or (offset is not None and offset & MASK not in offsets.values()):
        detail = ", ".join(f"{name} {value:#x}" for name, value in offsets.items())
        raise InputError(f"System.map is of another kernel: offsets to the dump's symbols differ ({detail})", path=path)
    slide = next(iter(offsets.values()))

    def address(name: str) -> int | None:
        value = linked(name)
        return None if value is None else (value + slide) & MASK

    return address
