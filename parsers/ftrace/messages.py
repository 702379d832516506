"""What follows the time of a line: the event, where it was, its arguments.

Formats: kernel/trace/trace_kprobe.c and trace_fprobe.c (``NAME: (SYMBOL+0x0/0x150) a=1``, returns
``NAME: (CALLER <- FUNCTION) ret=0``),
kernel/trace/trace_output.c (function tracer, ``fields`` option) and the plugins of libtraceevent
(``NAME:   (ffff800080029800) a=1``; its returns are ``(FUNCTION <- CALLER)``, the other way round than the kernel's).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field

import numpy as np

from parsers.expressions import expression
from parsers.ftrace.events import I32, Origin, Phase
from parsers.ftrace.functions import Kind
from parsers.ftrace.naming import IGNORED, TRACEPOINTS, kind_of, symbol_kind
from parsers.ftrace.numbers import byte_strings, parse_integer
from parsers.ftrace.table import Interned, TableBuilder, argument_columns
from parsers.mapping import I64, U8, Bool
from parsers.records import dataclass

__all__ = ["Event", "MessageParser", "Messages", "classify"]

_MESSAGE = expression(
    rb"^(?:funcgraph_entry: [^\n]*?(?<![\w.])([A-Za-z_][\w.]*)\([^\n]*"  # 0: function
    # 1 function, 2 arguments, 3 parent
    rb"|(?:function: +)?([^\s:()<]+?)(?:\(([^\n]*?)\))? +<--?(?: (?=\S))?(?: *)([^\s(][^\n]*)"
    rb"|function: +(\S+)"  # 4
    rb"|([^\s:()<]+(?::[^\s:()<]+)?): *"  # 5 event
    # 6 where
    rb"(\((?=[^\s)(])(?:[^()\n]|\([^()\n]*\))*\)"
    rb"|__probe_\w+=\S+(?: \([^()\n]*\))?(?: __probe_\w+=\S+(?: \([^()\n]*\))?)*)?"
    rb"([^\n]*)"  # 7 arguments
    rb"|.*)$",
    re.MULTILINE,
)
_ARGUMENT = expression(rb'(\n)|\b([A-Za-z_]\w*)=("(?:[^"\n]|"(?=[^\s,)]))*"?|\{[^}\n]*\}|[^\s,)]*)')
_HEX = expression(r"(?:0x)?[0-9a-f]{4,16}$")
_PROBE_FIELD = expression(r"__probe_(\w+)=(?:0x)?([^\s]+)")
_SIZE = expression(r"\+0x0(?:/0x[0-9a-f]+)?(?= |$)|/0x[0-9a-f]+(?= |$)")
_MAX_FTRACE_SITE = 8
"""The patch site of a function is 4 bytes in, 8 with a BTI landing pad."""


@dataclass(frozen=True, slots=True)
class Event:
    """What an event's name and place mean; the same for all events that share them."""

    kind: Kind = Kind.OTHER
    phase: Phase = Phase.POINT
    origin: Origin = Origin.PROBE
    symbol: str = ""
    caller: str = ""


def _split_where(where: str) -> tuple[str, str, bool]:
    """(probed symbol, caller, is a return) of ``(SYM)``, ``(CALLER <- FUNC)``, hex ``(FUNC <- CALLER)`` or fields."""
    if where.startswith("__probe_"):
        fields = dict(_PROBE_FIELD.findall(where))
        if "func" in fields or "ret_ip" in fields:
            return fields.get("func", ""), fields.get("ret_ip", ""), True
        return fields.get("ip", ""), "", False
    left, arrow, right = where.strip("()").partition(" <- ")
    if not arrow:
        return left, "", False
    reversed_order = bool(_HEX.match(left)) and bool(_HEX.match(right))
    return (left, right, True) if reversed_order else (right, left, True)


def _offset(symbol: str) -> int:
    plus = symbol.split(" ", 1)[0].partition("+")[2].split("/", 1)[0]
    try:
        return int(plus, 16) if plus else 0
    except ValueError:
        return 0


def classify(event: str, where: str) -> Event:
    """The meaning of a probe's, a tracepoint's or a marker's event name and of its place."""
    kind, named_return = kind_of(event)
    bare = event.rsplit(":", 1)[-1]
    if bare in TRACEPOINTS:
        return Event(kind, origin=Origin.MARKER if kind is Kind.MARKER else Origin.TRACEPOINT)
    if not where:
        return Event()
    symbol, caller, is_return = _split_where(where)
    if bare == "funcgraph_exit":
        return Event(symbol_kind(symbol), Phase.RETURN, Origin.GRAPH, symbol)
    inside = not is_return and _offset(symbol) > _MAX_FTRACE_SITE
    if kind is Kind.OTHER and not inside:
        kind = symbol_kind(symbol)
    if kind is Kind.OTHER:
        return Event()
    phase = Phase.RETURN if is_return or named_return else Phase.ENTRY
    address = bool(_HEX.match(symbol))
    return Event(
        kind,
        Phase.POINT if kind is Kind.TLBI else phase,
        Origin.PROBE,
        "" if address else _SIZE.sub("", symbol),
        f"0x{caller.removeprefix('0x')}" if caller and _HEX.match(caller) else caller,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Messages:
    """One row a message."""

    kind: U8
    phase: U8
    origin: U8
    name: I32
    symbol: I32
    caller: I32
    arguments: list[bytes]


@dataclass
class MessageParser:
    """Parses messages in bulk; what a name and a place mean is worked out once for each pair."""

    table: TableBuilder
    _keys: Interned = field(default_factory=Interned)
    _meaning: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)

    def parse(self, messages: Sequence[bytes]) -> Messages:
        """Events of ``messages``."""
        found = _MESSAGE.findall(b"\n".join(messages).replace(b"\0", b" "))
        keys, arguments = [], []
        if found:
            graph, function, func_args, parent, lone, event, where, args = zip(*found, strict=True)
            calls = list(map(b"".join, zip(function, lone, strict=True)))
            keys = list(map(b"\0".join, zip(event, where, calls, parent, graph, strict=True)))
            arguments = list(map(b" ".join, zip(func_args, args, strict=True)))
        ids = self._keys.ids(keys)
        for key in self._keys.values_in_order[len(self._meaning) :]:
            self._meaning.append(self._understand(key))
        meaning = np.asarray(self._meaning, dtype=np.int64).reshape(-1, 6)[ids]
        return Messages(
            kind=meaning[:, 0].astype(np.uint8),
            phase=meaning[:, 1].astype(np.uint8),
            origin=meaning[:, 2].astype(np.uint8),
            name=meaning[:, 3].astype(np.int32),
            symbol=meaning[:, 4].astype(np.int32),
            caller=meaning[:, 5].astype(np.int32),
            arguments=arguments,
        )

    def _understand(self, key: bytes) -> tuple[int, int, int, int, int, int]:
        event, where, call, parent, graph = (part.decode(errors="replace") for part in key.split(b"\0"))
        name = event.rsplit(":", 1)[-1]
        if graph:
            meaning = Event(symbol_kind(graph), Phase.ENTRY, Origin.GRAPH, graph)
            name = "funcgraph_entry"
        elif call:
            meaning = Event(symbol_kind(call), Phase.ENTRY, Origin.FUNCTION, _SIZE.sub("", call), parent)
            name = "function"
        else:
            meaning = classify(event, where)
        identify = self.table.strings.id
        return (
            int(meaning.kind),
            int(meaning.phase),
            int(meaning.origin),
            identify(name) if name else -1,
            identify(meaning.symbol) if meaning.symbol else -1,
            identify(meaning.caller) if meaning.caller else -1,
        )

    def add_arguments(self, first_row: int, parsed: Messages) -> None:
        """Parse the arguments of rows ``first_row`` onwards of the table; markers keep their text whole."""
        marker = parsed.kind == Kind.MARKER
        texts = [b"" if is_marker else text for is_marker, text in zip(marker.tolist(), parsed.arguments, strict=True)]
        self._add_text(first_row, np.flatnonzero(marker), parsed.arguments)
        found = _ARGUMENT.findall(b"\n".join(texts))
        if not found:
            return
        newline, names, values = zip(*found, strict=True)
        is_newline = np.fromiter(map(len, newline), dtype=np.int64, count=len(newline)) > 0
        row = np.cumsum(is_newline)
        known = Interned()
        name = known.ids(names)
        named = ~is_newline & (np.fromiter(map(len, values), dtype=np.int64, count=len(values)) > 0)
        strings = [value for value, use in zip(values, named.tolist(), strict=True) if use]
        row = row[named]
        names_used = [text.decode(errors="replace") for text in known.values_in_order]
        at_return: Bool = parsed.phase[row] == Phase.RETURN
        column = argument_columns(parsed.kind[row], at_return, name[named], names_used, columns=self.table.columns)
        self._add_values(first_row + row, column, strings)

    def _add_values(self, row: I64, column: I64, strings: list[bytes]) -> None:
        if not strings:
            return
        value, is_number = parse_integer(byte_strings(strings))
        text = np.full(len(strings), -1, dtype=np.int64)
        says_something: Bool = column != self.table.columns.find(IGNORED)
        worded = ~is_number & says_something
        words = Interned()
        numbers = words.ids([strings[i] for i in np.flatnonzero(worded).tolist()])
        ids = [self.table.strings.id(word.strip(b'"').decode(errors="replace")) for word in words.values_in_order]
        text[worded] = np.asarray(ids, dtype=np.int64)[numbers]
        use = (is_number & says_something) | worded
        self.table.add_arguments(row[use], column[use], value[use], text[use])

    def _add_text(self, first_row: int, rows: np.ndarray[tuple[int], np.dtype[np.intp]], texts: list[bytes]) -> None:
        if rows.size:
            # trace-cmd prints the kernel's prefix after its own.
            said = [texts[i].strip().removeprefix(b"tracing_mark_write: ") for i in rows.tolist()]
            ids = [self.table.strings.id(text.decode(errors="replace")) for text in said]
            column = np.full(rows.size, self.table.columns.id("text"))
            self.table.add_arguments(first_row + rows, column, np.zeros(rows.size, dtype=np.uint64), np.asarray(ids))
