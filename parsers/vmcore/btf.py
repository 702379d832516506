"""BTF, the kernel's own type information, as a source of types for drgn.

The kernel image carries it between ``__start_BTF`` and ``__stop_BTF`` (CONFIG_DEBUG_INFO_BTF), so it is in every dump
that has the kernel's read-only data.  Format: include/uapi/linux/btf.h and Documentation/bpf/btf.rst (5.2 to 6.18).
All type headers and enumerators are found by array operations; drgn types are made one by one as they are asked for.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import construct
import numpy as np

from parsers.errors import FormatError

if TYPE_CHECKING:
    import drgn

    from parsers.mapping import I64, U32, Bool

__all__ = ["Btf", "BtfKind"]

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
_INT_SIGNED, _INT_BOOL = 1, 4
_TAGS = {BtfKind.TYPE_TAG}
_MAX_DEPTH = 64


class Btf:
    """One BTF section, decoded far enough to find types by name.

    Raises FormatError when ``data`` is no little-endian BTF of version 1, or contradicts itself.
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
        self._made: dict[int, drgn.Type] = {}

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

    def enumerator(self, name: str) -> tuple[int, int] | None:
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
                return type_id, self._enumerators(type_id)[int(number[found[0]])][1]
        return None

    def _enumerators(self, type_id: int) -> list[tuple[str, int]]:
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

    # drgn types ----------------------------------------------------------------------------------------------------

    def type_finder(
        self, prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None
    ) -> drgn.Type | None:
        """What :meth:`drgn.Program.register_type_finder` calls."""
        import drgn  # noqa: PLC0415

        if filename is not None:
            return None
        wanted = {
            drgn.TypeKind.INT: (BtfKind.INT,),
            drgn.TypeKind.BOOL: (BtfKind.INT,),
            drgn.TypeKind.STRUCT: (BtfKind.STRUCT,),
            drgn.TypeKind.UNION: (BtfKind.UNION,),
            drgn.TypeKind.ENUM: (BtfKind.ENUM, BtfKind.ENUM64),
            drgn.TypeKind.TYPEDEF: (BtfKind.TYPEDEF,),
            drgn.TypeKind.FLOAT: (BtfKind.FLOAT,),
        }
        for kind, btf_kinds in wanted.items():
            if kind in kinds:
                type_id = self.find(name, *btf_kinds)
                if type_id:
                    found = self.make(prog, type_id)
                    if found.kind == kind:
                        return found
        return None

    def constant(self, prog: drgn.Program, name: str) -> drgn.Object | None:
        """An enumerator as a drgn constant."""
        import drgn  # noqa: PLC0415

        found = self.enumerator(name)
        return None if found is None else drgn.Object(prog, self.make(prog, found[0]), found[1])

    def make(self, prog: drgn.Program, type_id: int) -> drgn.Type:
        """The drgn type of a BTF type id; FormatError for an id or a chain of types that cannot be."""
        return self._make(prog, type_id, 0)

    def _make(self, prog: drgn.Program, type_id: int, depth: int) -> drgn.Type:
        if type_id in self._made:
            return self._made[type_id]
        if not 0 <= type_id < len(self) or depth > _MAX_DEPTH:
            raise FormatError(f"BTF type {type_id} cannot be resolved", path=self._path)
        kind = BtfKind(int(self.kind[type_id]))
        if kind in (BtfKind.STRUCT, BtfKind.UNION, BtfKind.FWD):
            made = self._compound(prog, type_id, kind)
        elif kind in (BtfKind.ENUM, BtfKind.ENUM64):
            made = self._enum(prog, type_id)
        else:
            made = self._other(prog, type_id, kind, depth)
        self._made[type_id] = made
        return made

    def _tag(self, type_id: int) -> str | None:
        return self.string(int(self.name[type_id])) or None

    def _compound(self, prog: drgn.Program, type_id: int, kind: BtfKind) -> drgn.Type:
        is_union = kind is BtfKind.UNION or (kind is BtfKind.FWD and bool(self.kind_flag[type_id]))
        make = prog.union_type if is_union else prog.struct_type
        if kind is BtfKind.FWD:
            return make(self._tag(type_id))
        return make(self._tag(type_id), int(self.size_or_type[type_id]), self._members(prog, type_id))

    def _members(self, prog: drgn.Program, type_id: int) -> list[drgn.TypeMember]:
        import drgn  # noqa: PLC0415

        at, count = int(self._at[type_id]) + 3, int(self.vlen[type_id])
        bitfields = bool(self.kind_flag[type_id])
        members = []
        for name, member_type, offset in self._words[at : at + 3 * count].reshape(-1, 3).tolist():
            bit_offset, bits = (offset & 0xFFFFFF, offset >> 24) if bitfields else (offset, 0)
            members.append(
                drgn.TypeMember(
                    lambda prog=prog, member_type=member_type, bits=bits: self._member_object(prog, member_type, bits),
                    self.string(name) or None,
                    bit_offset,
                )
            )
        return members

    def _member_object(self, prog: drgn.Program, type_id: int, bits: int) -> drgn.Object:
        import drgn  # noqa: PLC0415

        return drgn.Object(prog, self.make(prog, type_id), bit_field_size=bits or None)

    def _enum(self, prog: drgn.Program, type_id: int) -> drgn.Type:
        import drgn  # noqa: PLC0415

        if not self.vlen[type_id]:
            return prog.enum_type(self._tag(type_id))
        size = int(self.size_or_type[type_id])
        signed = bool(self.kind_flag[type_id])
        compatible = prog.int_type(f"{'' if signed else 'unsigned '}{_INT_NAMES.get(size, 'int')}", size, signed)
        return prog.enum_type(
            self._tag(type_id),
            compatible,
            [drgn.TypeEnumerator(name, value) for name, value in self._enumerators(type_id)],
        )

    def _other(self, prog: drgn.Program, type_id: int, kind: BtfKind, depth: int) -> drgn.Type:
        import drgn  # noqa: PLC0415

        name = self.string(int(self.name[type_id]))
        target = int(self.size_or_type[type_id])
        extra = int(self._at[type_id]) + 3
        qualifiers = {
            BtfKind.CONST: drgn.Qualifiers.CONST,
            BtfKind.VOLATILE: drgn.Qualifiers.VOLATILE,
            BtfKind.RESTRICT: drgn.Qualifiers.RESTRICT,
        }
        made: drgn.Type
        if kind is BtfKind.VOID:
            made = prog.void_type()
        elif kind is BtfKind.INT:
            encoding = int(self._words[extra]) >> 24
            make_bool = encoding & _INT_BOOL
            made = (
                prog.bool_type(name, target) if make_bool else prog.int_type(name, target, bool(encoding & _INT_SIGNED))
            )
        elif kind is BtfKind.FLOAT:
            made = prog.float_type(name, target)
        elif kind is BtfKind.PTR:
            made = prog.pointer_type(self._make(prog, target, depth + 1))
        elif kind is BtfKind.TYPEDEF:
            made = prog.typedef_type(name, self._make(prog, target, depth + 1))
        elif kind in qualifiers:
            inner = self._make(prog, target, depth + 1)
            made = inner.qualified(inner.qualifiers | qualifiers[kind])
        elif kind is BtfKind.ARRAY:
            element, _, count = self._words[extra : extra + 3].tolist()
            made = prog.array_type(self._make(prog, element, depth + 1), count or None)
        elif kind is BtfKind.FUNC_PROTO:
            made = prog.function_type(self._make(prog, target, depth + 1), ())
        elif kind in _TAGS:
            made = self._make(prog, target, depth + 1)
        else:
            raise FormatError(f"BTF type {type_id} of kind {kind.name} is no type of an object", path=self._path)
        return made


_INT_NAMES = {1: "char", 2: "short", 4: "int", 8: "long"}


def _type_starts(words: U32, path: str) -> I64:
    """Word index of every type header: types follow each other, and only a header tells where the next one is.

    Computes for every word where the next type would start if one started there, then finds what is reachable
    from the first word by doubling the length of the jumps.
    """
    size = words.size
    info = np.append(words[1:], np.uint32(0)).astype(np.int64)
    kind = info >> 24 & 0x1F
    jump = np.arange(size) + 3 + _FIXED[kind] + _ELEMENT[kind] * (info & 0xFFFF)
    jump = np.append(np.minimum(jump, size), size)  # the end jumps to itself
    starts = np.zeros(1, dtype=np.int64)
    while True:
        further = jump[starts]
        further = further[further < size]
        if not further.size:
            break
        starts = np.concatenate((starts, further))
        jump = jump[jump]
    last = int(starts.max())
    kinds = words[starts[starts + 1 < size] + 1] >> 24 & 0x1F
    tail = last + 3 + int(_FIXED[kind[last]] + _ELEMENT[kind[last]] * (info[last] & 0xFFFF))
    if tail != size or kinds.size != starts.size or (kinds == 0).any() or (kinds > max(BtfKind)).any():
        raise FormatError("the types of the BTF data do not end where the section does", path=path)
    return np.sort(starts)
