"""function_graph logs: calls and returns by indentation, events of probes as comments between them.

Format: kernel/trace/trace_functions_graph.c (5.10 to 7.3).  Every column is optional; what is left always ends in the
call text, indented by two blanks a level.  Only calls of hotplug functions are looked at: the end of a
call is the next closing brace of the same task at the same indentation.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import field
from typing import NamedTuple

import numpy as np

from parsers.errors import Diagnostic
from parsers.expressions import expression
from parsers.ftrace.events import NO_TIME, Buffer, Gap, Origin, Trace
from parsers.ftrace.functions import Kind
from parsers.ftrace.losses import find_losses
from parsers.ftrace.messages import MessageParser
from parsers.ftrace.naming import symbol_kind
from parsers.ftrace.scan import Block, Progress, Source, graph_calls, line_end, line_spans
from parsers.ftrace.table import TableBuilder
from parsers.records import dataclass

__all__ = ["looks_like_graph", "read_graph"]

_MAX_LINE = 4096
"""A line is looked at so far; the columns have bounds too, so that none is searched again and again."""
_COLUMNS = rb"(?:[^|\n]{0,256}\|){0,8}?"
_LINE = expression(
    rb"(?P<columns>" + _COLUMNS + rb")(?P<indent> *)(?P<text>(?:/\*|\}|[A-Za-z_][\w.]*(?:\(| \[))[^\n]*)"
)
_TRACER = expression(rb"(?:#[^\n]*\n)*?# tracer: function_graph")
_TIME = expression(rb"^\s*(\d+)\.(\d{6,9}) +\|")
_CPU = expression(rb"(?:^|\|)\s*(\d+)\)")
_TASK = expression(rb"\)\s*(\S[^|]{0,31}?)-(\d+)\s*\|")
_SWITCH = expression(rb"[^\n]{0,256}?(\d+)\) +(\S[^\n|]{0,31}?)-(\d+) +=> +([^\n|]{0,31}?)-(\d+) *$")
_ARROW = expression(rb"=> +")
_CALL = expression(rb"([A-Za-z_][\w.]*)\((.*?)\)(?: \[\w+\])?(;| \{)(?: /\*(.*)\*/)?")
_RESULT = expression(rb"(?:^| )(?:ret)?= ?(-?\w+)")
_SEARCHES = 16
"""How often a log may be searched for the ends of calls; most are a few lines on."""
_CALLER = expression(rb"<-([^\s*]+)")
_GRAPH_LINE = expression(
    rb"^(?:[^|\n]*\|)? *(?:[A-Za-z_][\w.]*\([^\n]*\)(?:;| \{)|\}(?: /\*.*\*/)?|/\* .* \*/)\s*(?:/\*.*\*/)?$",
    re.MULTILINE,
)
_MAX_OPEN = 1024


def looks_like_graph(head: bytes) -> bool:
    """The lines of ``head`` are mostly calls and braces."""
    if _TRACER.match(head):
        return True
    lines = [line for line in head.split(b"\n")[:-1] if line.strip() and not line.startswith(b"#")][:200]
    graph = sum(1 for line in lines if len(line) <= _MAX_LINE and _GRAPH_LINE.match(line))
    return graph > len(lines) // 2


class _Context(NamedTuple):
    time_ns: int
    cpu: int
    pid: int
    comm: str


@dataclass(frozen=True, slots=True)
class _Row:
    position: int
    """Byte offset in the source."""
    context: _Context
    message: bytes
    name: str


@dataclass(slots=True)
class _Open:
    """A call that has not returned yet."""

    function: str
    context: _Context
    indent: int
    position: int


@dataclass
class _GraphReader:
    path: str
    table: TableBuilder = field(default_factory=TableBuilder)
    rows: list[_Row] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """Line numbers of the rows of the blocks that are done."""
    open_calls: list[_Open] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    scanned: int = 0
    _task_of_cpu: dict[int, tuple[str, int]] = field(default_factory=dict)
    _switches: dict[int, tuple[list[int], list[tuple[str, int]]]] = field(default_factory=dict)
    _last_cpu: list[tuple[int, int]] = field(default_factory=list)
    _budget: int = 64 << 20
    """Bytes that may still be searched for the ends of calls: a log of calls that never end must not take forever."""

    def read(self, block: Block) -> None:
        """Take the calls and events of a block."""
        data = block.data
        self.scanned += len(data)
        self._budget += _SEARCHES * len(data)
        self.gaps += find_losses(block, _MAX_OPEN - len(self.gaps))
        self._switches = {cpu: ([-1], [task]) for cpu, task in self._task_of_cpu.items()}
        self._last_cpu = self._last_cpu[-1:] and [(-1, self._last_cpu[-1][1])]
        for start, end in line_spans(data, (arrow.start() for arrow in _ARROW.finditer(data))):
            match = _SWITCH.match(data, start, end) if end - start <= _MAX_LINE else None
            if not match:
                continue
            cpu = int(match.group(1)[:9])
            task = (match.group(4).strip().decode(errors="replace"), int(match.group(5)[:9]))
            before = (match.group(2).strip().decode(errors="replace"), int(match.group(3)[:9]))
            starts, tasks = self._switches.setdefault(cpu, ([-1], [before]))
            starts.append(match.start())
            tasks.append(task)
            self._last_cpu.append((match.start(), cpu))
            self._task_of_cpu[cpu] = task
        self._close(block)
        for start, end in _call_lines(data):
            line = _LINE.match(data, start, min(end, start + _MAX_LINE))
            if line and not data.startswith(b"#", start):
                self._take(block, line)
        del self.open_calls[_MAX_OPEN:]
        found = sorted(self.rows[len(self.lines) :], key=lambda row: row.position)
        self.rows[len(self.lines) :] = found
        self.lines += block.line_numbers([row.position - block.offset for row in found]).tolist()

    def _context(self, columns: bytes, position: int) -> _Context:
        """(time, cpu, pid, comm) of a line from its columns and the task switches before it."""
        time, cpu, task = _TIME.match(columns), _CPU.search(columns), _TASK.search(columns)
        time_ns = int(time.group(1)[:9]) * 10**9 + int(time.group(2).ljust(9, b"0")) if time else NO_TIME
        number = int(cpu.group(1)[:9]) if cpu else self._cpu_at(position)
        if task:
            comm = task.group(1).strip().decode(errors="replace")
            return _Context(time_ns, number, int(task.group(2)[:9]), comm)
        starts, tasks = self._switches.get(number, ([], []))
        comm, pid = tasks[bisect_right(starts, position) - 1] if starts else ("", -1)
        return _Context(time_ns, number, pid, comm)

    def _cpu_at(self, position: int) -> int:
        """CPU of a line that does not say: that of the switch before it."""
        before = bisect_right(self._last_cpu, (position, 1 << 31)) - 1
        return self._last_cpu[before][1] if before >= 0 else -1

    def _take(self, block: Block, line: re.Match[bytes]) -> None:
        text = line.group("text")
        if text.startswith(b"}"):
            return
        context = self._context(line.group("columns"), line.start())
        if text.startswith(b"/*"):
            if text.endswith(b"*/"):
                self._append(block, line.start(), context, text[2:-2].strip(), "")
            return
        call = _CALL.match(text)
        if not call or symbol_kind(call.group(1).decode()) is Kind.OTHER:
            return
        function, notes = call.group(1), call.group(4) or b""
        caller = _CALLER.search(notes)
        message = function + b"(" + call.group(2) + b") <-" + (caller.group(1) if caller else b"?")
        self._append(block, line.start(), context, message, "funcgraph_entry")
        if call.group(3) == b";":
            returned = _return_message(function, notes)
            self._append(block, line.start(), context, returned, "funcgraph_exit")
        else:
            indent = len(line.group("indent"))
            opened = _Open(function.decode(), context, indent, line.end())
            if not self._close_one(block, opened):
                self.open_calls.append(opened)

    def _close(self, block: Block) -> None:
        """Look for the ends of the calls that earlier blocks left open."""
        for call in self.open_calls:
            call.position = 0
        self.open_calls = [call for call in self.open_calls if not self._close_one(block, call)]

    def _close_one(self, block: Block, call: _Open) -> bool:
        if self._budget < 0:
            return False
        brace = re.compile(rb"^(%b) {%d}\}(?: /\*([^\n]*)\*/)?[^\n]*" % (_COLUMNS, call.indent), re.MULTILINE)
        for match in brace.finditer(block.data, call.position):
            context = self._context(match.group(1), match.start())
            if context.pid == call.context.pid and (context.pid >= 0 or context.cpu == call.context.cpu):
                message = _return_message(call.function.encode(), match.group(2) or b"")
                self._append(block, match.start(), context, message, "funcgraph_exit")
                self._budget -= match.end() - call.position
                return True
        self._budget -= len(block.data) - call.position
        return False

    def _append(self, block: Block, start: int, context: _Context, message: bytes, name: str) -> None:
        self.rows.append(_Row(block.offset + start, context, message, name))

    def fill(self) -> None:
        """Put the rows into the table, in file order."""
        rows, table = self.rows, self.table
        parser = MessageParser(table)
        parsed = parser.parse([row.message for row in rows])
        graph = np.asarray([bool(row.name) for row in rows], dtype=np.bool_)
        names = np.asarray([table.strings.id(row.name) for row in rows], dtype=np.int32)
        unknown = table.strings.find("?")
        table.add(
            len(rows),
            {
                "time_ns": np.asarray([row.context.time_ns for row in rows], dtype=np.int64),
                "cpu": np.asarray([row.context.cpu for row in rows], dtype=np.int64),
                "pid": np.asarray([row.context.pid for row in rows], dtype=np.int64),
                "comm": np.asarray(
                    [table.strings.id(row.context.comm) if row.context.comm else -1 for row in rows], dtype=np.int64
                ),
                "kind": parsed.kind,
                "phase": parsed.phase,
                "origin": np.where(graph, np.uint8(Origin.GRAPH), parsed.origin),
                "name": np.where(graph, names, parsed.name),
                "symbol": parsed.symbol,
                "caller": np.where(parsed.caller == unknown, -1, parsed.caller),
                "line": np.asarray(self.lines, dtype=np.int64),
                "offset": np.asarray([row.position for row in rows], dtype=np.int64),
            },
        )
        parser.add_arguments(0, parsed)


def _call_lines(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the lines begin and end that may matter."""
    sample = data[:16384]
    if sample.count(b"|") * 2 > sample.count(b"\n"):
        yield from line_spans(data, (match.start() for match in graph_calls(b"|").finditer(data)))
        return
    # Without columns a call follows the end of the line before; the first line has none.
    if graph_calls(b"\n").match(b"\n" + data[: line_end(data, 0)]):
        yield 0, line_end(data, 0)
    yield from line_spans(data, (match.start() + 1 for match in graph_calls(b"\n").finditer(data)))


def _return_message(function: bytes, notes: bytes) -> bytes:
    """The end of a call as a return probe would print it."""
    result, caller = _RESULT.search(notes), _CALLER.search(notes)
    where = (caller.group(1) if caller else b"?") + b" <- " + function
    return function + b"__return: (" + where + b")" + (b" ret=" + result.group(1) if result else b"")


def read_graph(source: Source, progress: Progress | None = None) -> Trace:
    """Read a function_graph log; calls that never return within it stay without a return row."""
    reader = _GraphReader(source.path)
    for block in source.blocks(progress):
        reader.read(block)
    reader.fill()
    diagnostics = [
        Diagnostic(f"the end of {call.function}() is not in the trace", path=source.path)
        for call in reader.open_calls[:5]
    ]
    return Trace(
        events=reader.table.finish(reader.table.matters()) if reader.table.nr_rows else reader.table.finish(),
        stacks=reader.table.stacks(),
        strings=reader.table.strings,
        buffers=(Buffer(tracer="function_graph"),),
        gaps=tuple(reader.gaps),
        health=(),
        diagnostics=tuple(diagnostics),
        source=source.path,
        format="function_graph",
        nr_scanned=reader.scanned,
        _lines=source.kept(),
    )
