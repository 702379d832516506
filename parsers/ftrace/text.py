"""Text traces: ``trace``, ``trace_pipe``, per-CPU files, snapshots, ``trace-cmd report``, ``perf script``.

The lines of events that matter are found by one search over the bytes (`parsers.ftrace.scan`), then cut out and
parsed in bulk; everything else is never looked at.  File order is the true order of the events.
"""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, replace

import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.ftrace.dialects import DIALECTS, parse_contexts
from parsers.ftrace.events import NO_TIME, Buffer, Events, Gap, Trace
from parsers.ftrace.functions import Kind
from parsers.ftrace.losses import STARTED, find_losses, is_loss
from parsers.ftrace.messages import MessageParser
from parsers.ftrace.report_graph import ReportedGraph
from parsers.ftrace.scan import (
    BEFORE_EVENT,
    Block,
    Landmarks,
    Progress,
    Source,
    landmarks,
    line_end,
    line_start,
    page_events,
    wanted_in,
)
from parsers.ftrace.table import Interned, TableBuilder
from parsers.mapping import I64, Bool
from parsers.ranges import distinct
from parsers.records import dataclass

__all__ = ["HEAD_SIZE", "Head", "Reader", "read_head", "read_text"]

HEAD_SIZE = 64 << 10
_NEAR = 64 << 10
"""A stack or an event of the page allocator belongs to an event of hotplug at most this many bytes away."""
_MAX_LINE = 16 << 10
_MAX_GAPS = 4096

_STACK_HEADER = expression(rf"{BEFORE_EVENT}(?:<|kernel_stack|user_stack)".encode())
_FRAMES = expression(rb"(?:[ \t]*=>[^\n]*\n?)*")
_CALL_CHAIN = expression(rb"(?:[ \t]+[0-9a-f]{6,16} [^\n]*\n?)+")
_FRAME = expression(rb"^\s*=>\s*(.*?)(?:\s*[<(][0-9a-fA-F]+[>)])?\s*$")
_CHAIN_FRAME = expression(rb"^\s+[0-9a-f]+ (.*?)(?: \([^()]*\))?\s*$")
_OFFSET = expression(rb"(?<!\[)\+0x")
_TRACER = expression(rb"^# tracer: (\S+)", re.MULTILINE)
_ENTRIES = expression(rb"^# entries-in-buffer/entries-written: (\d+)/(\d+)\s+#P:(\d+)", re.MULTILINE)
_LATENCY = expression(rb"^# \S+ latency trace v\S+ on (\S+)", re.MULTILINE)
_LATENCY_ENTRIES = expression(rb"#(\d+)/(\d+), CPU#\d+ \|[^\n]*#P:(\d+)\)")
_CPUS = expression(rb"^cpus=(\d+)$", re.MULTILINE)
_ENTRY = expression(rb"\[\d{3,6}\] (?:\S+ +| +)\d+(?:\.\d+)?: ")
_STACK_ENTRY = b"stack trace>\n"
_MARKER_ENTRY = b": tracing_mark_write: "
_COUNTED = 16 << 20
"""Entries of longer files are counted by their lines, which is faster and takes stray lines for entries."""
_NO_ENTRY = (b"\n =>", b"\n=>", b"\n#", b"\nCPU:", b"\n\n")
_RAW_LINE = expression(rb"^\d+ \d+ \d+ (?:type: \d+|# )", re.MULTILINE)
_HEX_LINE = expression(rb"^(?:[0-9a-f]{2} ?){8,}", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Head:
    """What the first lines say about the trace."""

    tracer: str = ""
    entries: int | None = None
    written: int | None = None
    nr_cpus: int | None = None
    release: str = ""
    trace_cmd: bool = False
    counts_entries: bool = False
    """Whether ``entries`` are lines of the file: of latency tracers they are not."""


def read_head(data: bytes) -> Head:
    """The head of a text trace."""
    tracer, entries, latency, cpus = (pattern.search(data) for pattern in (_TRACER, _ENTRIES, _LATENCY, _CPUS))
    counts = entries or (_LATENCY_ENTRIES.search(data) if latency else None)
    numbers = [int(number) for number in counts.groups()] if counts else None
    return Head(
        tracer=tracer.group(1).decode(errors="replace") if tracer else "",
        entries=numbers[0] if numbers else None,
        written=numbers[1] if numbers else None,
        nr_cpus=numbers[2] if numbers else int(cpus.group(1)) if cpus else None,
        release=latency.group(1).decode(errors="replace") if latency else "",
        trace_cmd=cpus is not None or data.startswith(b"version = "),
        counts_entries=entries is not None,
    )


@dataclass
class _Candidates:
    """Lines of a block that may matter, ascending."""

    start: list[int]
    end: list[int]
    is_stack: Bool
    is_neighbour: Bool
    """Lines that only show whose stack follows."""


def _page_lines(data: bytes, starts: list[int]) -> list[int]:
    """Starts of lines of the page allocator between events that are near each other."""
    found: list[int] = []
    gaps = np.diff(np.asarray(starts, dtype=np.int64))
    runs = np.split(np.asarray(starts, dtype=np.int64), np.flatnonzero(gaps > _NEAR) + 1)
    for run in runs:
        if run.size > 1:
            matches = page_events().finditer(data, int(run[0]), int(run[-1]))
            found += [line_start(data, match.start()) for match in matches]
    return found


def _find(data: bytes, last_event: int, marks: Landmarks | None) -> _Candidates:
    """The lines of ``data`` that may matter; ``last_event`` is where the last one was, before ``data`` if negative."""
    lines: dict[int, bool] = {}
    neighbours: set[int] = set()
    for match in wanted_in(data, marks):
        position = match.start()
        start = line_start(data, position)
        stack = _STACK_HEADER.match(data, position) is not None
        if not stack:
            last_event = start
        elif start - last_event > _NEAR:
            continue
        elif start:
            before = line_start(data, start - 1)
            if is_loss(data, before):
                continue  # the event whose stack this is was lost
            if before not in lines and not data.startswith((b" =>", b"=>"), before):
                neighbours.add(before)
        lines[start] = stack
    for start in _page_lines(data, [start for start, stack in lines.items() if not stack]):
        lines.setdefault(start, False)
    neighbours -= lines.keys()
    starts = sorted(lines.keys() | neighbours)
    return _Candidates(
        start=starts,
        end=[min(line_end(data, start), start + _MAX_LINE) for start in starts],
        is_stack=np.asarray([lines.get(start, False) for start in starts], dtype=np.bool_),
        is_neighbour=np.asarray([start in neighbours for start in starts], dtype=np.bool_),
    )


def _cut_out(data: bytes, lines: _Candidates) -> list[bytes]:
    """The lines without what a terminal or a serial line put into them."""
    text = [data[start:end] for start, end in zip(lines.start, lines.end, strict=True)]
    held = b"".join(text)
    if b"\0" in held:
        text = [line.replace(b"\0", b" ") for line in text]
    return [line.replace(b"\r", b"") for line in text] if b"\r" in held else text


def _with_returns(
    lines: _Candidates, text: list[bytes], returns: list[tuple[int, bytes]]
) -> tuple[_Candidates, list[bytes]]:
    """The lines, with the returns written out at their places: of one line the call comes first."""
    starts = [*lines.start, *(start for start, _ in returns)]
    ends = [*lines.end, *(start + len(line) for start, line in returns)]
    texts = [*text, *(line for _, line in returns)]
    order = np.argsort(np.asarray(starts, dtype=np.int64), kind="stable")
    nothing = np.zeros(len(returns), dtype=np.bool_)
    candidates = _Candidates(
        start=[starts[i] for i in order.tolist()],
        end=[ends[i] for i in order.tolist()],
        is_stack=np.concatenate((lines.is_stack, nothing))[order],
        is_neighbour=np.concatenate((lines.is_neighbour, nothing))[order],
    )
    return candidates, [texts[i] for i in order.tolist()]


@dataclass
class Reader:
    """State over the blocks of one source."""

    source: Source
    counts_entries: bool = False
    """Whether the head counts the entries of the buffer, and those that were read are counted as well."""
    table: TableBuilder = field(default_factory=TableBuilder)
    gaps: list[Gap] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    dialects: Counter[str] = field(default_factory=Counter)
    counted: bool = False
    scanned: int = 0
    is_torn: bool = False
    """Whether the last line has no end."""
    _messages: MessageParser = field(init=False)
    _comms: Interned = field(default_factory=Interned)
    _comm_ids: list[int] = field(default_factory=list)
    _stack_texts: dict[bytes, int] = field(default_factory=dict)
    _is_stack: list[Bool] = field(default_factory=list)
    _is_user: list[Bool] = field(default_factory=list)
    _stack_of_row: list[I64] = field(default_factory=list)
    _graph: ReportedGraph = field(default_factory=ReportedGraph)
    _entries: int = 0
    _stack_entries: int = 0
    _marker_entries: int = 0
    _misread: int = 0
    _last_event: int = -_NEAR
    """Byte offset of the last line of an event that matters."""

    def __post_init__(self) -> None:
        self._messages = MessageParser(self.table)

    def read(self, block: Block) -> None:
        """Take the events of a block."""
        self.scanned += len(block.data)
        self.is_torn = not block.data.endswith(b"\n")
        if self.counts_entries:
            self._count(block.data)
        marks = landmarks(block.data)
        self.gaps += find_losses(block, _MAX_GAPS - len(self.gaps), marks)
        lines = _find(block.data, self._last_event - block.offset, marks)
        text = _cut_out(block.data, lines)
        if returns := self._graph.returns(block.data, zip(lines.start, text, strict=True)):
            lines, text = _with_returns(lines, text, returns)
        if lines.start:
            self._read_events(block, lines, text)
        if not lines.is_stack.all():
            self._last_event = block.offset + lines.start[int(np.flatnonzero(~lines.is_stack)[-1])]

    def _count(self, data: bytes) -> None:
        """Count the entries of a block: the lines that are neither part of a stack nor about the trace itself."""
        if self.source.size() <= _COUNTED:
            self._entries += len(_ENTRY.findall(data))
        else:
            self._entries += data.count(b"\n") - sum(map(data.count, _NO_ENTRY)) - data.startswith(b"#")
        self._stack_entries += data.count(_STACK_ENTRY)
        self._marker_entries += data.count(_MARKER_ENTRY)

    def _read_events(self, block: Block, lines: _Candidates, text: list[bytes]) -> None:
        data = block.data
        context = parse_contexts(text)
        parsed = self._messages.parse(context.message)
        self._note_unknown(block, lines, context.known)
        self.dialects.update(DIALECTS[i].name for i in distinct(context.dialect[context.known]).tolist())
        self.counted |= bool(context.counted.any())
        count = len(text)
        first_row = self.table.nr_rows
        comm = self._comms.ids(context.comm)
        self._comm_ids += [
            self.table.strings.id(raw.decode(errors="replace"))
            for raw in self._comms.values_in_order[len(self._comm_ids) :]
        ]
        self.add_rows(
            count,
            {
                "time_ns": context.time_ns,
                "cpu": context.cpu,
                "pid": context.pid,
                "comm": np.asarray(self._comm_ids)[comm],
                "kind": np.where(context.known & ~lines.is_neighbour, parsed.kind, np.uint8(Kind.OTHER)),
                "phase": parsed.phase,
                "origin": parsed.origin,
                "name": parsed.name,
                "symbol": parsed.symbol,
                "caller": parsed.caller,
                "stack": self._chains(data, lines) if "perf script" in self.dialects else np.full(count, -1),
                "line": block.line_numbers(lines.start),
                "offset": np.asarray(lines.start) + block.offset,
            },
        )
        self._messages.add_arguments(first_row, parsed)
        self._read_stacks(data, lines, text)

    def add_rows(self, count: int, rows: dict[str, NDArray[np.generic]]) -> None:
        """Append rows to the table; until `_read_stacks` says otherwise they are not stacks."""
        self.table.add(count, rows)
        self._is_stack.append(np.zeros(count, dtype=np.bool_))
        self._is_user.append(np.zeros(count, dtype=np.bool_))
        self._stack_of_row.append(np.full(count, -1, dtype=np.int64))

    def _note_unknown(self, block: Block, lines: _Candidates, known: Bool) -> None:
        """Lines that name an event and have no context that is understood."""
        unknown = np.flatnonzero(~known & ~lines.is_neighbour & ~lines.is_stack)
        self._misread += unknown.size
        for i in unknown[: max(0, 5 - len(self.diagnostics))].tolist():
            line = block.line + block.data.count(b"\n", 0, lines.start[i])
            quoted = block.data[lines.start[i] : min(lines.end[i], lines.start[i] + 120)].decode(errors="replace")
            message = f"names an event of hotplug and has no task, CPU and time that are understood: {quoted.strip()}"
            self.diagnostics.append(Diagnostic(message, path=self.source.path, line=line))

    def _read_stacks(self, data: bytes, lines: _Candidates, text: list[bytes]) -> None:
        ids, user = self._stack_of_row[-1], self._is_user[-1]
        self._is_stack[-1] = lines.is_stack
        for i in np.flatnonzero(lines.is_stack).tolist():
            frames = _FRAMES.match(data, line_end(data, lines.start[i]) + 1)
            ids[i] = self._stack(frames.group() if frames else b"", _FRAME)
            user[i] = b"user" in text[i].rsplit(b": ", 1)[-1] or b"user_stack" in text[i]

    def _chains(self, data: bytes, lines: _Candidates) -> I64:
        """Call chains of ``perf script``, which follow their event without a head."""
        ids = np.full(len(lines.start), -1, dtype=np.int64)
        for i, end in enumerate(lines.end):
            chain = _CALL_CHAIN.match(data, end + 1)
            if chain:
                ids[i] = self._stack(chain.group(), _CHAIN_FRAME)
        return ids

    def _stack(self, block: bytes, frame: re.Pattern[bytes]) -> int:
        if block not in self._stack_texts:
            matches = (frame.match(line) for line in block.splitlines())
            # A user frame keeps its offset: `path[+0x10]`.
            frames = tuple(_OFFSET.split(match.group(1))[0].decode(errors="replace") for match in matches if match)
            self._stack_texts[block] = self.table.stack(frames)
        return self._stack_texts[block]

    def entries(self, announced: int | None) -> int | None:
        """Entries of the buffer that the file holds, stacks among them; None if nothing follows from their number.

        That is so if the head does not count them, and where the stacks may have been left out, one for each event
        that is not a marker.
        """
        if not self.counts_entries or announced is None:
            return None
        stacks = self._entries - self._marker_entries
        return None if not self._stack_entries and announced - self._entries == stacks else self._entries

    def finish(self) -> Events:
        """The events, with their stacks."""
        if self._misread > 5:
            self.diagnostics.append(Diagnostic(f"{self._misread} lines like that", path=self.source.path))
        if not self.table.nr_rows:
            return self.table.finish()
        is_stack, is_user = np.concatenate(self._is_stack), np.concatenate(self._is_user)
        stack = np.concatenate(self._stack_of_row)
        self.table.attach_stacks(is_stack & ~is_user, is_stack, stack, "stack")
        self.table.attach_stacks(is_stack & is_user, is_stack, stack, "user_stack")
        events = self.table.finish(self.table.matters())
        self.gaps = [_bounded(gap, events) for gap in self.gaps]
        return events


def _bounded(gap: Gap, events: Events) -> Gap:
    """A gap whose bounds were not near it, with those that the events of its CPU give."""
    mine = (events.cpu == gap.cpu) & (events.time_ns != NO_TIME)
    before = events.time_ns[mine & (events.line < (gap.line or 0))]
    after = events.time_ns[mine & (events.line > (gap.line or 0))]
    start, end = gap.start_ns, gap.end_ns
    if start is None and before.size and gap.reason != STARTED:
        start = int(before[-1])
    if end is None and after.size:
        end = int(after[0])
    return replace(gap, start_ns=start, end_ns=end)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of short-lived tuples start the cyclic collector again and again, none of which is in a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_text(source: Source, progress: Progress | None = None) -> Trace:
    """Read a text trace whose lines have task, CPU and time.

    Raises FormatError for a trace that was written with an option that removes what is needed, InputError
    for a file that cannot be read.
    """
    first = source.head(HEAD_SIZE)
    head = read_head(first)
    _reject_options(source, first)
    reader = Reader(source, counts_entries=head.counts_entries)
    with _collector_paused():
        for block in source.blocks(progress):
            reader.read(block)
    events = reader.finish()
    buffer = Buffer(
        clock="counter" if reader.counted else "",
        tracer=head.tracer,
        nr_cpus=head.nr_cpus,
        entries=head.entries,
        written=head.written,
        read=reader.entries(head.entries),
    )
    kind = "trace-cmd report" if head.trace_cmd else next(iter(reader.dialects.most_common(1)), ("text", 0))[0]
    return Trace(
        events=events,
        stacks=reader.table.stacks(),
        strings=reader.table.strings,
        buffers=(buffer,),
        gaps=tuple(reader.gaps),
        health=(),
        diagnostics=tuple(reader.diagnostics),
        source=source.path,
        format=kind,
        release=head.release,
        nr_scanned=reader.scanned,
        is_torn=reader.is_torn,
        _lines=source.kept(),
    )


def _reject_options(source: Source, head: bytes) -> None:
    body = re.sub(rb"^#.*\n", b"", head, flags=re.MULTILINE)
    for option, pattern in (("raw", _RAW_LINE), ("hex", _HEX_LINE)):
        if pattern.match(body):
            message = f"written with the trace option {option!r}, which leaves out names: `echo 0 > options/{option}`"
            raise FormatError(message, path=source.path, line=head.count(b"\n") - body.count(b"\n") + 1)
