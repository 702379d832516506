"""The events of a trace, in arrays: one table whatever the source.

A row is one event of memory hotplug (`parsers.ftrace.functions.Kind`), in the order in which the source merges its
CPUs.  That order is the truth: several events share one microsecond, so never sort by time.  Arguments
live in a separate compressed table (`Arguments`) because no event has more than a few of the forty columns.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic
from parsers.ftrace.functions import Kind
from parsers.mapping import I64, U8, U16, U64, Bool
from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.ftrace.scan import KeptLines

__all__ = [
    "I32",
    "NO_TIME",
    "Arguments",
    "Buffer",
    "Events",
    "Gap",
    "Issue",
    "Origin",
    "Phase",
    "Stacks",
    "Strings",
    "Trace",
]

I32 = NDArray[np.int32]

NO_TIME = int(np.iinfo(np.int64).min)
"""``time_ns`` of an event whose source prints no time (a function_graph log without the absolute time)."""


class Phase(IntEnum):
    """Which part of a call a row saw."""

    POINT = 0
    """Not a call: a marker, a page freed, a line of the log."""
    ENTRY = 1
    RETURN = 2


class Origin(IntEnum):
    """What recorded a row."""

    PROBE = 0
    """A kprobe, kretprobe or fprobe event, with the arguments that its definition fetched."""
    FUNCTION = 1
    """The function tracer: no arguments unless func-args was set, no return."""
    GRAPH = 2
    """The function_graph tracer: entry and return."""
    TRACEPOINT = 3
    MARKER = 4
    LOG = 5


class Strings:
    """Interned text: ``text[id]`` and ``id(text)``; id -1 means no text."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self.text: list[str] = []

    def id(self, text: str) -> int:
        """The id of ``text``, new if need be."""
        known = self._ids.get(text)
        if known is None:
            known = self._ids[text] = len(self.text)
            self.text.append(text)
        return known

    def find(self, text: str) -> int:
        """The id of ``text``, -1 if it never occurred."""
        return self._ids.get(text, -1)

    def __getitem__(self, index: int) -> str:
        return self.text[index] if index >= 0 else ""

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True, eq=False, kw_only=True)
class Arguments:
    """One row an argument of an event, ascending by ``row``."""

    row: I64
    """Row of `Events`."""
    column: U16
    """Index into ``columns``."""
    value: U64
    """The number, negative ones in two's complement; 0 for text."""
    text: I32
    """Id of the text of a string argument in ``Trace.strings``, -1 for numbers."""
    columns: tuple[str, ...]
    """Names: `parsers.ftrace.naming.column_of`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Stacks:
    """Call stacks, each distinct one once; frames innermost first."""

    frames: tuple[tuple[str, ...], ...]
    """Symbols without offsets; user frames as printed."""

    def __getitem__(self, index: int) -> tuple[str, ...]:
        return self.frames[index] if index >= 0 else ()

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, eq=False, kw_only=True)
class Events:
    """One row an event; every array has the same length."""

    time_ns: I64
    """Nanoseconds of `Buffer.clock` (plain counts for the clocks ``counter`` and ``uptime``), or `NO_TIME`."""
    cpu: I32
    """-1 where the source does not say."""
    pid: I32
    """Thread id, the key of a task; -1 where the source does not say."""
    comm: I32
    """Id in ``Trace.strings``: the name when the buffer was read, not when the event happened."""
    kind: U8
    """`Kind`."""
    phase: U8
    """`Phase`."""
    origin: U8
    """`Origin`."""
    name: I32
    """Id of the event's name as printed (``mhp_online_ret``, ``function``)."""
    symbol: I32
    """Id of the probed symbol as printed, -1 where only an address was; may be an alias of the function."""
    caller: I32
    """Return rows and the function tracer: id of ``function+0xoffset/0xsize`` it returns to, -1 if unknown."""
    stack: I32
    """Kernel stack, row of ``Trace.stacks``, -1 for none."""
    user_stack: I32
    """User stack, row of ``Trace.stacks``, -1 for none."""
    buffer: U8
    """Row of ``Trace.buffers``."""
    line: I64
    """1-based line in a text source, 0 in a binary one."""
    offset: I64
    """Byte offset of the line or of the record in the source (in a compressed trace.dat: in the decompressed data)."""
    arguments: Arguments
    _dense: dict[str, tuple[U64, Bool]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return int(self.time_ns.size)

    def column(self, name: str) -> tuple[U64, Bool]:
        """(values, present) of argument ``name``, one a row of the table; absent values are 0."""
        if name not in self._dense:
            args = self.arguments
            values = np.zeros(len(self), dtype=np.uint64)
            present = np.zeros(len(self), dtype=np.bool_)
            if name in args.columns:
                mine = (args.column == args.columns.index(name)) & (args.text < 0)
                values[args.row[mine]] = args.value[mine]
                present[args.row[mine]] = True
            self._dense[name] = (values, present)
        return self._dense[name]

    def signed(self, name: str) -> tuple[I64, Bool]:
        """As `column`, for columns of `parsers.ftrace.naming.SIGNED`."""
        values, present = self.column(name)
        return values.view(np.int64), present

    def text(self, name: str) -> I32:
        """Ids of the text of argument ``name`` (``zone_name``), -1 where a row has none."""
        ids = np.full(len(self), -1, dtype=np.int32)
        args = self.arguments
        if name in args.columns:
            mine = (args.column == args.columns.index(name)) & (args.text >= 0)
            ids[args.row[mine]] = args.text[mine]
        return ids

    def where(self, kind: Kind, phase: Phase | None = None) -> NDArray[np.intp]:
        """Rows of ``kind`` (and ``phase``), ascending."""
        mine = self.kind == kind
        if phase is not None:
            mine &= self.phase == phase
        return np.flatnonzero(mine)


@dataclass(frozen=True, slots=True)
class Buffer:
    """One ring buffer (the top one or an instance) and what its head says."""

    name: str = ""
    clock: str = ""
    """``local``, ``mono``, ``counter`` …; empty where the source does not say."""
    tracer: str = ""
    nr_cpus: int | None = None
    entries: int | None = None
    """Entries that the buffer held when it was read."""
    written: int | None = None
    """Entries that were ever written; more than ``entries``: the oldest are gone."""
    read: int | None = None
    """Entries that the file holds, None where they were not counted."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of one CPU that were lost: between two times, either of which may be unknown."""

    cpu: int
    count: int | None
    start_ns: int | None
    """Time of the last event of that CPU before the gap; None: the gap reaches to the beginning."""
    end_ns: int | None
    """Time of the first event after the gap; None: it reaches to the end."""
    reason: str
    line: int | None = None
    offset: int | None = None
    buffer: int = 0


@dataclass(frozen=True, slots=True)
class Issue:
    """Something that limits what the trace can prove.

    With ``undecided`` set, verdicts about order within ``[start_ns, end_ns]`` (None: without bound) are
    undecided; without it the issue only explains.
    """

    code: str
    message: str
    undecided: bool
    start_ns: int | None = None
    end_ns: int | None = None
    kinds: tuple[Kind, ...] = ()
    """The kinds of events that it concerns; empty for all."""
    rows: tuple[int, ...] = ()
    """Rows of the events table as evidence (at most a few)."""
    line: int | None = None
    offset: int | None = None
    count: int | None = None
    cpu: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """A trace that was read: events, stacks, where they come from and what is wrong with them."""

    events: Events
    stacks: Stacks
    strings: Strings
    buffers: tuple[Buffer, ...]
    gaps: tuple[Gap, ...]
    health: tuple[Issue, ...]
    diagnostics: tuple[Diagnostic, ...]
    source: str
    """Path of the source, for evidence."""
    format: str
    """``text``, ``trace-cmd report``, ``perf script``, ``function_graph``, ``dmesg``, ``trace.dat`` …"""
    release: str = ""
    """Kernel release, where the source names it."""
    nr_scanned: int = 0
    """Bytes of text that were scanned, or records that were decoded."""
    defined: frozenset[str] = frozenset()
    """Names of the events that the source defines (trace.dat); empty for text, which shows only those that fired."""
    is_torn: bool = False
    """Whether the last line of a text has no end."""
    _lines: KeptLines | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.events)

    @property
    def is_counted(self) -> bool:
        """Whether the source says how many entries it has, so that lines which were lost are noticed.

        A trace.dat marks what it lost.  Of texts only what is read from ``trace`` has a head that counts:
        ``trace_pipe``, ``trace-cmd report``, ``perf script`` and the function_graph tracer print none.  Where all
        stacks were left out the number proves nothing.
        """
        return self.format == "trace.dat" or any(buffer.read is not None for buffer in self.buffers)

    def quote(self, row: int) -> str:
        """The event of ``row`` as the source has it (text), or written out the way the kernel prints it.

        It is written out for trace.dat, and where the file was written to since it was read.
        """
        line = self._lines.line_at(int(self.events.offset[row])) if self._lines and self.events.line[row] else None
        return self.describe(row) if line is None else line

    def describe(self, row: int) -> str:
        """``comm-pid [cpu] time: event: (symbol) argument=value …`` in the columns of the table."""
        events, strings = self.events, self.strings
        args = events.arguments
        first, last = np.searchsorted(args.row, [row, row + 1])
        words = [
            f"{args.columns[args.column[i]]}="
            + (f'"{strings[int(args.text[i])]}"' if args.text[i] >= 0 else f"{int(args.value[i]):#x}")
            for i in range(first, last)
        ]
        symbol, caller = strings[int(events.symbol[row])], strings[int(events.caller[row])]
        context = [
            f"{strings[int(events.comm[row])]}-{events.pid[row]}" if events.pid[row] >= 0 else "",
            f"[{events.cpu[row]:03d}]" if events.cpu[row] >= 0 else "",
            "" if events.time_ns[row] == NO_TIME else f"{events.time_ns[row] / 1e9:.6f}",
        ]
        where = f"({caller} <- {symbol})" if caller else f"({symbol})" if symbol else ""
        message = " ".join(filter(None, (f"{strings[int(events.name[row])]}:", where, *words)))
        return ": ".join(filter(None, (" ".join(filter(None, context)), message)))
