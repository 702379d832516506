"""``trace.dat``: the binary form of a trace, read without trace-cmd.

The same events as the kernel's text of the same buffer: records of the events of hotplug are picked out while the
pages are walked (`parsers.ftrace.ringbuffer`), decoded by their own format descriptions and merged by time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from parsers.errors import Diagnostic
from parsers.expressions import expression
from parsers.ftrace.container import Container, CpuData, open_container
from parsers.ftrace.events import Buffer, Gap, Origin, Phase, Trace
from parsers.ftrace.formats import EventFormat, RecordBytes, parse_format
from parsers.ftrace.functions import Kind
from parsers.ftrace.messages import Event, classify
from parsers.ftrace.naming import SYMBOLS, TRACEPOINTS, kind_of, symbol_kind
from parsers.ftrace.ringbuffer import PageLayout, Records, walk_pages
from parsers.ftrace.scan import Progress, Source
from parsers.ftrace.symbols import Symbols
from parsers.ftrace.table import Interned, TableBuilder, argument_columns
from parsers.mapping import I64, U64, Bool
from parsers.ranges import distinct
from parsers.records import dataclass

__all__ = ["read_tracedat"]

_PART = 16 << 20
"""Bytes of ring-buffer pages that are walked at once."""
_MAX_FRAMES = 256
_FTRACE_SITES = (0, 4, 8)
_STACKS = {"kernel_stack": "stack", "user_stack": "user_stack"}
_TRACERS = {"function": "ip", "funcgraph_entry": "func", "funcgraph_exit": "func"}
_PLUMBING = frozenset({"__probe_ip", "__probe_func", "__probe_ret_ip"})
_OVERRUN = expression(r"^(overrun|commit overrun|dropped events): (\d+)", re.MULTILINE)


@dataclass
class _Decoder:
    """State while the buffers of one file are decoded."""

    container: Container
    symbols: Symbols
    formats: dict[int, EventFormat]
    table: TableBuilder = field(default_factory=TableBuilder)
    gaps: list[Gap] = field(default_factory=list)
    nr_records: int = 0
    _wanted: Bool = field(init=False)
    _stack_ids: Bool = field(init=False)
    _addresses: U64 = field(init=False)
    _frames: dict[bytes, int] = field(default_factory=dict)
    _meanings: dict[tuple[int, int, int], tuple[int, int, int, int, int, int]] = field(default_factory=dict)
    _is_stack: list[Bool] = field(default_factory=list)
    _stack_of_row: dict[str, list[I64]] = field(default_factory=lambda: {"stack": [], "user_stack": []})

    def __post_init__(self) -> None:
        self._wanted = np.zeros(1 << 16, dtype=np.bool_)
        self._stack_ids = np.zeros(1 << 16, dtype=np.bool_)
        for number, event in self.formats.items():
            self._wanted[number] = _is_wanted(event)
            self._stack_ids[number] = event.system == "ftrace" and event.name in _STACKS
        sites = [address + site for address in self.symbols.addresses_of(SYMBOLS) for site in _FTRACE_SITES]
        self._addresses = np.asarray(sorted(sites), dtype=np.uint64)

    def read(self, data: CpuData, layout: PageLayout, buffer: int) -> int:
        """Decode the pages of one CPU; the number of its records."""
        previous, last_time, total = -1, None, 0
        for offset, part in _whole_pages(self.container, data, layout):
            records = walk_pages(part, layout, self._wanted, previous)
            previous = records.last_type
            total += records.nr_records
            self._note_losses(records, data.cpu, buffer, offset, last_time)
            if records.page_last.size:
                last_time = int(records.page_last[-1])
            self._decode(records, part, offset, data.cpu, buffer, big_endian=layout.big_endian)
        self.nr_records += total
        return total

    def _note_losses(self, records: Records, cpu: int, buffer: int, offset: int, last_time: int | None) -> None:
        for page, count in records.missed:
            before = int(records.page_last[page - 1]) if page else last_time
            after = int(records.page_first[page])
            shift = self.container.time_offset
            self.gaps.append(
                Gap(
                    cpu=cpu,
                    count=count,
                    start_ns=None if before is None else before + shift,
                    end_ns=after + shift,
                    reason="lost events",
                    offset=offset,
                    buffer=buffer,
                )
            )
        if records.damaged:
            message = f"CPU {cpu}: the records of {len(records.damaged)} pages break off"
            self.container.diagnostics.append(
                Diagnostic(message, path=self.container.path, offset=offset + records.damaged[0])
            )

    def _decode(self, records: Records, part: bytes, offset: int, cpu: int, buffer: int, *, big_endian: bool) -> None:
        # A stack belongs to the record before it: stacks of other events are not looked at.
        use = ~self._stack_ids[records.type] | self._wanted[np.maximum(records.previous, 0)] & (records.previous >= 0)
        use &= self._is_hotplug_call(records, part, big_endian=big_endian)
        data = np.frombuffer(part, dtype=np.uint8)
        rows = np.flatnonzero(use)
        for number in distinct(records.type[rows]).tolist():
            mine = rows[records.type[rows] == number]
            raw = RecordBytes(data, records.offset[mine], records.length[mine], big_endian)
            context = {
                "time_ns": records.time[mine].astype(np.int64) + self.container.time_offset,
                "cpu": np.full(mine.size, cpu),
                "buffer": np.full(mine.size, buffer),
                "offset": records.offset[mine] + offset,
            }
            self._decode_event(self.formats[number], raw, context)

    def _is_hotplug_call(self, records: Records, part: bytes, *, big_endian: bool) -> Bool:
        """False for records of the function tracers whose function is not part of memory hotplug."""
        use = np.ones(records.type.size, dtype=np.bool_)
        data = np.frombuffer(part, dtype=np.uint8)
        for number, event in self.formats.items():
            where = event.field(_TRACERS.get(event.name, "")) if event.system == "ftrace" else None
            if where is not None and where.size in (4, 8):
                mine = np.flatnonzero(records.type == number)
                raw = RecordBytes(data, records.offset[mine], records.length[mine], big_endian)
                use[mine] = np.isin(raw.number(where)[0], self._addresses)
        return use

    def _decode_event(self, event: EventFormat, raw: RecordBytes, context: dict[str, NDArray[np.generic]]) -> None:
        count = raw.offset.size
        first_row = self.table.nr_rows
        pid_field = event.field("common_pid")
        pid = raw.number(pid_field)[0].astype(np.int64) if pid_field else np.full(count, -1)
        stack = np.full(count, -1, dtype=np.int64)
        is_stack = event.system == "ftrace" and event.name in _STACKS
        if is_stack:
            stack = self._read_stacks(event, raw)
            meaning = np.tile(np.asarray((int(Kind.OTHER), 0, 0, -1, -1, -1)), (count, 1))
        else:
            meaning = self._meaning(event, raw)
        columns = ("kind", "phase", "origin", "name", "symbol", "caller")
        self.table.add(count, {**context, "pid": pid, **{name: meaning[:, i] for i, name in enumerate(columns)}})
        self._is_stack.append(np.full(count, is_stack))
        for name, column in _STACKS.items():
            mine = is_stack and name == event.name
            self._stack_of_row[column].append(stack if mine else np.full(count, -1, dtype=np.int64))
        if not is_stack:
            self._add_arguments(event, raw, first_row, meaning)

    def _read_stacks(self, event: EventFormat, raw: RecordBytes) -> I64:
        callers, size = event.field("caller"), event.field("size")
        if callers is None:
            return np.full(raw.offset.size, -1, dtype=np.int64)
        width = self.container.long_size
        depth = (raw.length - callers.offset) // width
        if size is not None:
            depth = np.minimum(depth, raw.number(size)[0].astype(np.int64))
        depth = np.clip(depth, 0, _MAX_FRAMES)
        begin = raw.offset + callers.offset
        data = raw.data.tobytes() if raw.data.size < 1 << 16 else memoryview(raw.data)  # type: ignore[arg-type]
        blocks = [bytes(data[a:b]) for a, b in zip(begin.tolist(), (begin + depth * width).tolist(), strict=True)]
        known = Interned()
        ids = known.ids(blocks)
        order = f"{'>' if raw.big_endian else '<'}u{width}"
        for block in known.values_in_order:
            if block not in self._frames:
                addresses = np.frombuffer(block, dtype=order).tolist()
                self._frames[block] = self.table.stack(
                    self._frame_names(addresses, width, user=event.name == "user_stack")
                )
        return np.asarray([self._frames[block] for block in known.values_in_order], dtype=np.int64)[ids]

    def _frame_names(self, addresses: Iterable[int], width: int, *, user: bool) -> tuple[str, ...]:
        end = (1 << (8 * width)) - 1
        valid = [address for address in addresses if address not in (0, end)]
        return tuple(f"{address:#x}" if user else self.symbols.name(address) for address in valid)

    def _meaning(self, event: EventFormat, raw: RecordBytes) -> I64:
        """Columns kind, phase, origin, name, symbol, caller of each record; worked out once for each place."""
        symbol_field = (
            event.field("__probe_ip") or event.field("__probe_func") or event.field(_TRACERS.get(event.name, "-"))
        )
        caller_field = event.field("__probe_ret_ip") or (event.field("parent_ip") if event.name == "function" else None)
        nothing = np.zeros(raw.offset.size, dtype=np.uint64)
        symbol = raw.number(symbol_field)[0] if symbol_field else nothing
        caller = raw.number(caller_field)[0] if caller_field else nothing
        first, place = _distinct_pairs(symbol, caller)
        is_return = bool(event.field("__probe_ret_ip"))
        pairs = zip(symbol[first].tolist(), caller[first].tolist(), strict=True)
        found = [self._understand(event, *pair, is_return=is_return) for pair in pairs]
        return np.asarray(found, dtype=np.int64).reshape(-1, 6)[place]

    def _understand(
        self, event: EventFormat, symbol: int, caller: int, *, is_return: bool
    ) -> tuple[int, int, int, int, int, int]:
        key = (event.id, symbol, caller)
        if key not in self._meanings:
            meaning = self._classify(event, symbol, caller, is_return=is_return)
            identify = self.table.strings.id
            self._meanings[key] = (
                int(meaning.kind),
                int(meaning.phase),
                int(meaning.origin),
                identify(event.name),
                identify(meaning.symbol) if meaning.symbol else -1,
                identify(meaning.caller) if meaning.caller else -1,
            )
        return self._meanings[key]

    def _classify(self, event: EventFormat, symbol: int, caller: int, *, is_return: bool) -> Event:
        if event.system == "ftrace" and event.name in _TRACERS:
            name = self.symbols.name(symbol)
            phase = Phase.RETURN if event.name == "funcgraph_exit" else Phase.ENTRY
            origin = Origin.FUNCTION if event.name == "function" else Origin.GRAPH
            return Event(symbol_kind(name), phase, origin, name, self.symbols.name(caller) if caller else "")
        if is_return:
            where = f"({self.symbols.place(caller)} <- {self.symbols.name(symbol)})"
        else:
            where = f"({self.symbols.place(symbol)})" if symbol else ""
        return classify(event.name, where)

    def _add_arguments(self, event: EventFormat, raw: RecordBytes, first_row: int, meaning: I64) -> None:
        rows = np.arange(raw.offset.size)
        at_return: Bool = meaning[:, 1] == Phase.RETURN
        if event.name == "print":
            buf = event.field("buf")
            texts = [text.strip() for text in raw.tails(buf.offset)] if buf else []
            if texts:
                column = np.full(rows.size, self.table.columns.id("text"))
                self._add_texts(first_row + rows, column, texts)
            return
        for argument in event.fields:
            name = {"retval": "ret"}.get(argument.name, argument.name)
            if name.startswith("common_") or name in _PLUMBING or (event.system == "ftrace" and name != "ret"):
                continue
            column = argument_columns(meaning[:, 0], at_return, np.zeros_like(rows), [name], columns=self.table.columns)
            if argument.is_array:
                if argument.is_text:
                    self._add_texts(first_row + rows, column, raw.texts(argument))
            elif argument.size in (1, 2, 4, 8):
                value, present = raw.number(argument)
                present &= column != self.table.columns.find("-")
                none = np.full(rows.size, -1)
                self.table.add_arguments((first_row + rows)[present], column[present], value[present], none[present])

    def _add_texts(self, rows: I64, column: I64, texts: list[bytes]) -> None:
        words = Interned()
        numbers = words.ids(texts)
        ids = np.asarray([self.table.strings.id(word.decode(errors="replace")) for word in words.values_in_order])
        self.table.add_arguments(rows, column, np.zeros(rows.size, dtype=np.uint64), ids[numbers])

    def finish(self) -> None:
        """Merge the CPUs by time and give events their stacks and tasks their names."""
        if not self.table.nr_rows:
            return
        order = self.table.merge()
        is_stack = np.concatenate(self._is_stack)[order]
        for column, parts in self._stack_of_row.items():
            stack = np.concatenate(parts)[order]
            self.table.attach_stacks(is_stack & (stack >= 0), is_stack, stack, column)
        names: dict[int, str] = {0: "<idle>"}
        for line in self.container.cmdlines.decode(errors="replace").splitlines():
            pid, _, comm = line.partition(" ")
            if pid.isdigit() and len(pid) < 10:
                names.setdefault(int(pid), comm)
        self.table.name_tasks(names)


def _distinct_pairs(first: U64, second: U64) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(One row of each distinct pair, which of these each row has)."""
    key = np.zeros(first.size, dtype=np.intp)
    for column in (first, second):
        if (column != column[:1]).any():  # a probe has one symbol
            values, place = np.unique(column, return_inverse=True)
            key = key * values.size + place
    _, rows, place = np.unique(key, return_index=True, return_inverse=True)
    return rows, place


def _is_wanted(event: EventFormat) -> bool:
    """Records of this event may matter."""
    if event.system == "ftrace":
        return event.name in _STACKS or event.name in _TRACERS or event.name == "print"
    if event.name in TRACEPOINTS:
        return True
    probe = any(name.name in _PLUMBING for name in event.fields)
    return probe or (
        kind_of(event.name)[0] is not Kind.OTHER and event.system in ("mhp", "kprobes", "fprobes", "probe")
    )


def _whole_pages(container: Container, data: CpuData, layout: PageLayout) -> Iterable[tuple[int, bytes]]:
    """The data of a CPU in parts of whole pages; a cut page at the end is filled up with nothing."""
    rest, start = b"", 0
    at_most = max(_PART // layout.page_size, 1) * layout.page_size
    for offset, part in container.pages(data, at_most):
        start = offset - len(rest)
        whole = rest + part
        cut = len(whole) // layout.page_size * layout.page_size
        if cut:
            yield start, whole[:cut]
        rest, start = whole[cut:], start + cut
    if len(rest) > layout.data_offset:
        message = f"the last page of CPU {data.cpu} is incomplete"
        container.diagnostics.append(Diagnostic(message, path=container.path, offset=start))
        yield start, rest.ljust(layout.page_size, b"\0")


def _written(container: Container, entries: int) -> int | None:
    """Entries ever written to the top buffer, by the statistics of its CPUs."""
    if not container.cpu_stats:
        return None
    lost = sum(int(number) for text in container.cpu_stats for _, number in _OVERRUN.findall(text))
    return entries + lost


def read_tracedat(source: Source, progress: Progress | None = None) -> Trace:
    """Read a trace.dat; FormatError if it is damaged beyond use, a diagnostic where reading can go on."""
    with source.open() as stream:
        container = open_container(source, stream)
        formats = {event.id: event for system, text in container.formats if (event := parse_format(system, text))}
        decoder = _Decoder(container, Symbols(container.kallsyms), formats)
        buffers, done = [], 0
        for number, instance in enumerate(container.instances[:256]):
            layout = PageLayout.parse(
                container.header_page, instance.page_size, big_endian=container.byteorder == "big"
            )
            entries = 0
            for data in instance.cpus:
                entries += decoder.read(data, layout, number)
                done += data.size
                if progress:
                    progress(min(done, source.size()), source.size())
            written = _written(container, entries) if not instance.name else None
            clock = instance.clock or container.clock
            buffers.append(Buffer(instance.name, clock, "", len(instance.cpus), entries, written))
        decoder.finish()
    events = decoder.table.finish(decoder.table.matters()) if decoder.table.nr_rows else decoder.table.finish()
    if progress:
        progress(source.size(), source.size())
    return Trace(
        events=events,
        stacks=decoder.table.stacks(),
        strings=decoder.table.strings,
        buffers=tuple(buffers),
        gaps=tuple(decoder.gaps),
        health=(),
        diagnostics=tuple(container.diagnostics),
        source=source.path,
        format="trace.dat",
        release=_release(container.uname),
        nr_scanned=decoder.nr_records,
        defined=frozenset(event.name for event in formats.values()),
    )


def _release(uname: str) -> str:
    words = uname.split()
    return words[2] if len(words) > 2 else ""
