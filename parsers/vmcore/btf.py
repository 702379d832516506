"""BTF, the kernel's own type information, as a provider of types.

The kernel image carries it between ``__start_BTF`` and ``__stop_BTF`` (CONFIG_DEBUG_INFO_BTF), so it is in every dump
that has the kernel's read-only data.  Format: include/uapi/linux/btf.h and Documentation/bpf/btf.rst (5.2 to 6.18).
All type headers and enumerators are found by array operations; members are looked up as they are asked for.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import construct
import numpy as np

from parsers.errors import FormatError
from parsers.vmcore.chains import chain
from parsers.vmcore.types import Member

if TYPE_CHECKING:
    from parsers.mapping import I64, U32, Bool

__all__ = ["BTF_HEADER_SIZE", "Btf", "BtfKind", "btf_size"]

c: Any = construct  # its declarations are not typed

_MAGIC = 0xEB9F
_MAX_BYTES = 256 << 20
_HEADER = c.Struct(
    "magic" / c.Int16ul,
    "version" / c.Int8ul,
    "flags" / c.Int8ul,
    "hdr_len" / c.Int32ul,
    "type_off" / c.Int32ul,
    "type_len" / c.Int32ul,
    "str_off" / c.Int32ul,
    "str_len" / c.Int32ul,
)


class BtfKind(IntEnum):
    """BTF_KIND_*."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# 32-bit words that follow the three of a type header: a constant, and a number for each of its elements.
_FIXED_WORDS = {BtfKind.INT: 1, BtfKind.ARRAY: 3, BtfKind.VAR: 1, BtfKind.DECL_TAG: 1}
_ELEMENT_WORDS = {
    BtfKind.STRUCT: 3,
    BtfKind.UNION: 3,
    BtfKind.ENUM: 2,
    BtfKind.FUNC_PROTO: 2,
    BtfKind.DATASEC: 3,
    BtfKind.ENUM64: 3,
}
_FIXED = np.array([_FIXED_WORDS.get(kind, 0) for kind in BtfKind] + [0] * (32 - len(BtfKind)), dtype=np.int64)
_ELEMENT = np.array([_ELEMENT_WORDS.get(kind, 0) for kind in BtfKind] + [0] * (32 - len(BtfKind)), dtype=np.int64)
_MODIFIERS = (BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG)
_SIZED = (BtfKind.INT, BtfKind.FLOAT, BtfKind.STRUCT, BtfKind.UNION, BtfKind.ENUM, BtfKind.ENUM64)
_COMPOUND = (BtfKind.STRUCT, BtfKind.UNION)
_POINTER_BYTES = 8
_MAX_DEPTH = 64
BTF_HEADER_SIZE = _HEADER.sizeof()


def btf_size(header: bytes) -> int | None:
    """Bytes of the BTF whose first `BTF_HEADER_SIZE` bytes these are; None where they are not the start of BTF."""
    try:
        found: Any = _HEADER.parse(header)
    except c.ConstructError:
        return None
    size: int = found.hdr_len + max(found.type_off + found.type_len, found.str_off + found.str_len)
    is_btf = found.magic == _MAGIC and found.version == 1 and found.hdr_len >= BTF_HEADER_SIZE
    return size if is_btf and found.type_len and found.str_len and size <= _MAX_BYTES else None


class Btf:
    """One BTF section, decoded far enough to find types by name.

    Raises FormatError when ``data`` is not little-endian BTF of version 1, or contradicts itself.
    """

    def __init__(self, data: bytes, path: str = "") -> None:
        try:
            header: Any = _HEADER.parse(data)
        except c.ConstructError as error:
            raise FormatError("BTF ends in its header", path=path) from error
        if header.magic != _MAGIC or header.version != 1:
            raise FormatError(f"no BTF: magic {header.magic:#x}, version {header.version}", path=path)
        start = header.hdr_len + header.type_off
        strings = header.hdr_len + header.str_off
        if len(data) > _MAX_BYTES or start + header.type_len > len(data) or strings + header.str_len > len(data):
            raise FormatError("BTF sections lie outside of the BTF data", path=path)
        self._words: U32 = np.frombuffer(data, dtype="<u4", count=header.type_len // 4, offset=start).astype(np.uint32)
        self._strings = data[strings : strings + header.str_len]
        if self._words.size < 3:
            raise FormatError("BTF without a type", path=path)
        # Index 0 is void; type id i is at _at[i].
        self._at: I64 = np.concatenate(([0], _type_starts(self._words, path)))
        info = self._words[self._at + 1]
        self.kind: I64 = (info >> 24 & 0x1F).astype(np.int64)
        self.vlen: I64 = (info & 0xFFFF).astype(np.int64)
        self.kind_flag: Bool = (info >> 31).astype(np.bool_)
        self.name: I64 = self._words[self._at].astype(np.int64)
        self.size_or_type: I64 = self._words[self._at + 2].astype(np.int64)
        self.kind[0] = BtfKind.VOID
        self._path = path

    source = "BTF"

    def __len__(self) -> int:
        return int(self.kind.size)

    def string(self, offset: int) -> str:
        """The string at an offset of the string section."""
        end = self._strings.find(b"\0", offset)
        return self._strings[offset : max(end, offset)].decode("utf-8", "replace")

    def _string_offset(self, name: str) -> int:
        """Where ``name`` is in the string section (BTF holds each string once); -1 if nowhere."""
        at = self._strings.find(b"\0" + name.encode() + b"\0")
        return at + 1 if at >= 0 else -1

    def find(self, name: str, *kinds: BtfKind) -> int:
        """Id of the first type of that name and kind; 0 (void) if there is none."""
        offset = self._string_offset(name)
        if offset <= 0:
            return 0
        found = np.flatnonzero((self.name == offset) & np.isin(self.kind, kinds))
        return int(found[0]) if found.size else 0

    def enumerator(self, name: str) -> int | None:
        """Value of an enumerator; None if there is none of that name."""
        found = self.find_enumerator(name)
        return None if found is None else found[1]

    def find_enumerator(self, name: str) -> tuple[int, int] | None:
        """Enum type id and value of an enumerator."""
        offset = self._string_offset(name)
        if offset <= 0:
            return None
        for kind, stride in ((BtfKind.ENUM, 2), (BtfKind.ENUM64, 3)):
            ids = np.flatnonzero(self.kind == kind)
            owner = np.repeat(ids, self.vlen[ids])
            number = np.arange(owner.size) - np.repeat(np.cumsum(self.vlen[ids]) - self.vlen[ids], self.vlen[ids])
            at = self._at[owner] + 3 + number * stride
            found = np.flatnonzero(self._words[at] == offset)
            if found.size:
                type_id = int(owner[found[0]])
                return type_id, self.enumerators(type_id)[int(number[found[0]])][1]
        return None

    def enumerators(self, type_id: int) -> list[tuple[str, int]]:
        """Names and values of an enum type, in their order."""
        at, count = int(self._at[type_id]) + 3, int(self.vlen[type_id])
        signed = bool(self.kind_flag[type_id])
        if self.kind[type_id] == BtfKind.ENUM64:
            table = self._words[at : at + 3 * count].reshape(-1, 3).astype(np.uint64)
            values = table[:, 1] | table[:, 2] << np.uint64(32)
            numbers = values.astype(np.int64) if signed else values
        else:
            table = self._words[at : at + 2 * count].reshape(-1, 2).astype(np.uint64)
            numbers = table[:, 1].astype(np.uint32).view(np.int32) if signed else table[:, 1]
        return [(self.string(int(name)), int(value)) for name, value in zip(table[:, 0], numbers, strict=True)]

    def fields(self, type_id: int) -> list[tuple[int, int, int, int]]:
        """Members of a structure or union: string offset of the name, type id, bit offset, bits of a bit field or 0."""
        at, count = int(self._at[type_id]) + 3, int(self.vlen[type_id])
        bitfields = bool(self.kind_flag[type_id])
        rows = self._words[at : at + 3 * count].reshape(-1, 3).tolist()
        return [
            (name, target, offset & 0xFFFFFF if bitfields else offset, offset >> 24 if bitfields else 0)
            for name, target, offset in rows
        ]

    def words(self, type_id: int, count: int) -> list[int]:
        """The ``count`` words that follow the header of a type."""
        at = int(self._at[type_id]) + 3
        words: list[int] = self._words[at : at + count].tolist()
        return words

    # The provider of types ------------------------------------------------------------------------------------------

    def size(self, type_name: str) -> int | None:
        """Bytes of a structure or union; None if there is none of that name."""
        type_id = self.find(type_name, *_COMPOUND)
        return int(self.size_or_type[type_id]) if type_id else None

    def member(self, type_name: str, path: str) -> Member | None:
        """A member, members of anonymous structures included; None if there is none, or it is a bit field."""
        type_id, start = self.find(type_name, *_COMPOUND), 0
        if not type_id:
            return None
        for name in path.split("."):
            found = self._field(self._plain(type_id), self._string_offset(name), 0)
            if found is None:
                return None
            type_id, start = found[0], start + found[1]
        if start % 8:
            return None
        plain = self._plain(type_id)
        is_array = 0 < plain < len(self) and self.kind[plain] == BtfKind.ARRAY
        return Member(start // 8, self._size(plain, 0), self.words(plain, 3)[2] if is_array else None)

    def _field(self, type_id: int, name: int, depth: int) -> tuple[int, int] | None:
        """Type id and bit offset of the member of that name (a string offset); bit fields are left out."""
        if name <= 0 or depth > _MAX_DEPTH or not 0 < type_id < len(self) or self.kind[type_id] not in _COMPOUND:
            return None
        fields = self.fields(type_id)
        for own, target, offset, bits in fields:
            if own == name:
                return None if bits else (target, offset)
        for own, target, offset, _ in fields:
            inner = self._field(self._plain(target), name, depth + 1) if own == 0 else None
            if inner is not None:
                return inner[0], offset + inner[1]
        return None

    def _plain(self, type_id: int) -> int:
        """The type below typedefs and qualifiers; 0 for a chain that cannot be."""
        for _ in range(_MAX_DEPTH):
            if not 0 < type_id < len(self):
                return 0
            if self.kind[type_id] not in _MODIFIERS:
                return type_id
            type_id = int(self.size_or_type[type_id])
        return 0

    def _size(self, type_id: int, depth: int) -> int | None:
        """Bytes of an object of a type without typedefs and qualifiers; None where it has no size."""
        if depth > _MAX_DEPTH or not 0 < type_id < len(self):
            return None
        kind = self.kind[type_id]
        if kind == BtfKind.PTR:
            return _POINTER_BYTES
        if kind == BtfKind.ARRAY:
            element, _, count = self.words(type_id, 3)
            size = self._size(self._plain(element), depth + 1)
            return None if size is None else size * count
        return int(self.size_or_type[type_id]) if kind in _SIZED else None


def _type_starts(words: U32, path: str) -> I64:
    """Word index of every type header: types follow each other, and only a header says where the next one is."""
    size = words.size
    info = np.append(words[1:], np.uint32(0)).astype(np.int64)
    kind = info >> 24 & 0x1F
    jump = np.arange(size) + 3 + _FIXED[kind] + _ELEMENT[kind] * (info & 0xFFFF)
    starts = chain(jump)
    last = int(starts[-1])
    kinds = words[starts[starts + 1 < size] + 1] >> 24 & 0x1F
    tail = last + 3 + int(_FIXED[kind[last]] + _ELEMENT[kind[last]] * (info[last] & 0xFFFF))
    if tail != size or kinds.size != starts.size or (kinds == 0).any() or (kinds > max(BtfKind)).any():
        raise FormatError("the types of the BTF data do not end where the section does", path=path)
    return starts
