"""Event format descriptions (``events/*/format``) and the fields of binary records that they describe."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parsers.expressions import expression
from parsers.mapping import I64, U8, U64
from parsers.records import dataclass

__all__ = ["EventFormat", "Field", "parse_format"]

_NAME = expression(rb"^name:\s*(\S+)", re.MULTILINE)
_ID = expression(rb"^ID:\s*(\d+)", re.MULTILINE)
_FIELD = expression(rb"\bfield:([^;]+);\s*offset:(\d+);\s*size:(\d+);(?:\s*signed:(\d);)?")
_DECLARATION = expression(rb"^(.*?)\b(\w+)(\[[^\[\]]*\])?$", re.DOTALL)
_MAX_STRING = 4096


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record."""

    name: str
    offset: int
    size: int
    signed: bool
    is_array: bool
    is_dynamic: str
    """``data`` for __data_loc, ``rel`` for __rel_loc (kernel/trace/trace_events.c), else empty."""
    is_text: bool


@dataclass(frozen=True, slots=True)
class EventFormat:
    """The layout of one kind of event."""

    system: str
    name: str
    id: int
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field | None:
        """The field called ``name``, None if the event has none."""
        return next((field for field in self.fields if field.name == name), None)


def parse_format(system: str, text: bytes) -> EventFormat | None:
    """The format of an event; None for a text that names no event or no id."""
    name, number = _NAME.search(text), _ID.search(text)
    if not name or not number or int(number[1]) > 0xFFFF:
        return None
    fields = tuple(_field(match) for match in _FIELD.finditer(text))
    return EventFormat(system, name[1].decode(errors="replace"), int(number[1]), fields)


def _field(match: re.Match[bytes]) -> Field:
    declaration = _DECLARATION.match(match[1].strip())
    kind, name, array = declaration.groups() if declaration else (b"", match[1], b"")
    dynamic = "data" if kind.startswith(b"__data_loc") else "rel" if kind.startswith(b"__rel_loc") else ""
    return Field(
        name=name.decode(errors="replace"),
        offset=min(int(match[2]), 1 << 20),
        size=min(int(match[3]), 1 << 20),
        signed=match[4] == b"1",
        is_array=bool(array) or bool(dynamic),
        is_dynamic=dynamic,
        is_text=b"char" in kind,
    )


@dataclass(frozen=True, slots=True)
class RecordBytes:
    """Records of one event: where their payloads are in the bytes of a buffer."""

    data: U8
    offset: I64
    length: I64
    big_endian: bool

    def take(self, offset: int, size: int) -> tuple[U8, NDArray[np.bool_]]:
        """(bytes ``offset`` .. ``offset + size`` of each record, the record is that long)."""
        whole = self.length >= offset + size
        start = np.where(whole, self.offset + offset, 0)
        unit = 4 if size % 4 == 0 and not (start & 3).any() else 1
        units = self.data[: self.data.size // unit * unit].view(f"u{unit}")
        taken = units.take((start // unit)[:, None] + np.arange(size // unit), mode="clip")
        return taken.view(np.uint8), whole

    def number(self, field: Field) -> tuple[U64, NDArray[np.bool_]]:
        """(values in two's complement, present) of an integer field; no field of another size than an integer's is."""
        if field.size not in {1, 2, 4, 8}:
            return np.zeros(self.offset.size, dtype=np.uint64), np.zeros(self.offset.size, dtype=np.bool_)
        raw, whole = self.take(field.offset, field.size)
        kind = f"{'>' if self.big_endian else '<'}{'i' if field.signed else 'u'}{field.size}"
        value = np.ascontiguousarray(raw).view(kind).reshape(-1)
        return np.where(whole, value.astype(np.int64 if field.signed else np.uint64).view(np.uint64), 0), whole

    def texts(self, field: Field) -> list[bytes]:
        """Text fields, without their NUL; empty where the record is damaged."""
        if field.is_dynamic:
            where, whole = self.number(Field(field.name, field.offset, 4, False, False, "", False))
            begin = (where & np.uint64(0xFFFF)).astype(np.int64) + (
                field.offset + 4 if field.is_dynamic == "rel" else 0
            )
            size = np.minimum((where >> np.uint64(16)).astype(np.int64), _MAX_STRING)
            size = np.where(whole & (begin + size <= self.length), size, 0)
        else:
            begin = np.full(self.offset.size, field.offset, dtype=np.int64)
            size = np.minimum(self.length - field.offset, field.size or _MAX_STRING)
        return self._cut(begin, np.maximum(size, 0))

    def tails(self, begin: int) -> list[bytes]:
        """Text from ``begin`` to the end of each record, up to its NUL."""
        return self._cut(np.full(self.offset.size, begin), np.clip(self.length - begin, 0, _MAX_STRING))

    def _cut(self, begin: I64, size: I64) -> list[bytes]:
        width = int(size.max(initial=0))
        if not width:
            return [b""] * self.offset.size
        index = np.minimum((self.offset + begin)[:, None] + np.arange(width), self.data.size - 1)
        raw = np.where(np.arange(width) < size[:, None], self.data[index], 0).astype(np.uint8)
        # What follows the NUL is not text.
        raw[np.cumsum(raw == 0, axis=1) > 0] = 0
        strings: Sequence[bytes] = np.ascontiguousarray(raw).view(f"S{width}").reshape(-1).tolist()
        return list(strings)
