"""Kernel logs: messages about memory hotplug, and ring buffers that were dumped into the log.

``ftrace_dump_on_oops`` prints the buffer in the latency format between two rules of dashes (ftrace_dump,
kernel/trace/trace.c); the messages are those of mm/memory_hotplug.c, mm/page_alloc.c, drivers/dax and
drivers/virtio/virtio_mem.c (5.10 to 7.3).
"""

from __future__ import annotations

import re

import numpy as np

from parsers.expressions import expression
from parsers.ftrace.events import Buffer, Origin, Phase, Trace
from parsers.ftrace.functions import Kind
from parsers.ftrace.scan import Block, Progress, Source
from parsers.ftrace.text import Reader

__all__ = ["looks_like_log", "read_log"]

_PREFIX = rb"[^\[\n]{0,80}?\[ {0,8}(\d{1,9})\.(\d{6})\](?:\[ *[TC]\d+ *\])? ?"
_LINE = expression(rb"^" + _PREFIX, re.MULTILINE)
_MESSAGE = expression(
    rb"^"
    + _PREFIX
    + rb"((?:[^\n]*(?:Offlined Pages|Built \d+ zonelists|memory offlining|offlining of memory|online_pages \[mem|"
    rb"Hotplug memory|hot-?(?:add|remove|unplug)|removing memory|add_memory|memory_hotplug|memmap_on_memory|"
    rb"PNP0C80|virtio_mem|kmem dax|dax\d+\.\d+|Fallback order for Node|dumped because: unmovable))[^\n]*)",
    re.MULTILINE | re.IGNORECASE,
)
_WORDS = (
    *(b"offlined pages", b"zonelists", b"memory offlining", b"offlining of memory", b"online_pages [mem"),
    *(b"hotplug memory", b"hot-add", b"hotadd", b"hot-remove", b"hotremove", b"hot-unplug", b"hotunplug"),
    *(b"removing memory", b"add_memory", b"memory_hotplug", b"memmap_on_memory", b"pnp0c80", b"virtio_mem"),
    *(b"dax", b"fallback order for node", b"dumped because: unmovable"),
)
"""In lower case: every line that `_MESSAGE` matches has one of them.  To find them takes a fraction of its time."""
_RANGE = expression(rb"(0x[0-9a-f]{4,16})\s?-\s?(0x[0-9a-f]{4,16})")
_DUMP = b"Dumping ftrace buffer:"
_RULE = expression(rb"(?<!-)-{20,}[ \r]*\n")
_HEAD_LINES = 200


def looks_like_log(head: bytes) -> bool:
    """Most lines of ``head`` have the kernel log's time stamp."""
    lines = head.split(b"\n")[:_HEAD_LINES]
    stamped = sum(1 for line in lines if _LINE.match(line))
    return stamped > len([line for line in lines if line.strip()]) // 2 > 0


def read_log(source: Source, progress: Progress | None = None) -> Trace:
    """Read a kernel log; raises InputError for a file that cannot be read."""
    reader = Reader(source)
    dump_open = False
    for block in source.blocks(progress):
        _read_messages(reader, block)
        dump_open = _read_dumps(reader, block, dump_open)
    return Trace(
        events=reader.finish(),
        stacks=reader.table.stacks(),
        strings=reader.table.strings,
        buffers=(Buffer(name="log", clock="local"), Buffer(name="dump")),
        gaps=tuple(reader.gaps),
        health=(),
        diagnostics=tuple(reader.diagnostics),
        source=source.path,
        format="dmesg",
        nr_scanned=reader.scanned,
        _lines=source.kept(),
    )


def _candidates(data: bytes) -> list[int]:
    """Where the lines start, in order, that have one of `_WORDS`."""
    folded = data.lower()
    starts: set[int] = set()
    for word in _WORDS:
        at = folded.find(word)
        while at >= 0:
            starts.add(data.rfind(b"\n", 0, at) + 1)
            end = data.find(b"\n", at)
            at = folded.find(word, end) if end >= 0 else -1
    return sorted(starts)


def _read_messages(reader: Reader, block: Block) -> None:
    table = reader.table
    found = [match for start in _candidates(block.data) if (match := _MESSAGE.match(block.data, start))]
    if not found:
        return
    starts = [match.start() for match in found]
    times = [int(match.group(1)) * 10**9 + int(match.group(2)) * 1000 for match in found]
    texts = [match.group(3).strip() for match in found]
    first_row = table.nr_rows
    count = len(found)
    reader.add_rows(
        count,
        {
            "time_ns": np.asarray(times, dtype=np.int64),
            "kind": np.full(count, Kind.LOG),
            "phase": np.full(count, Phase.POINT),
            "origin": np.full(count, Origin.LOG),
            "name": np.full(count, table.strings.id("log")),
            "line": block.line_numbers(starts),
            "offset": np.asarray(starts) + block.offset,
        },
    )
    rows = np.arange(count) + first_row
    words = np.asarray([table.strings.id(text.decode(errors="replace")) for text in texts])
    table.add_arguments(rows, np.full(count, table.columns.id("text")), np.zeros(count, dtype=np.uint64), words)
    ranges = [(row, match) for row, text in zip(rows.tolist(), texts, strict=True) if (match := _RANGE.search(text))]
    for column, group, beyond in (("start", 1, 0), ("end", 2, 1)):
        values = [(int(match.group(group), 16) + beyond) & (2**64 - 1) for _, match in ranges]
        table.add_arguments(
            np.asarray([row for row, _ in ranges], dtype=np.int64),
            np.full(len(ranges), table.columns.id(column)),
            np.asarray(values, dtype=np.uint64),
            np.full(len(ranges), -1),
        )


def _read_dumps(reader: Reader, block: Block, dump_open: bool) -> bool:
    """Read the dumped buffers of ``block``; True if the last one goes on in the next block."""
    data = block.data
    position = 0 if dump_open else data.find(_DUMP)
    while position >= 0:
        rule = _RULE.search(data, position)
        begin = rule.end() if rule and not dump_open else position
        end_rule = _RULE.search(data, begin)
        # The second rule may carry the prefix of the log: it ends with the line before.
        end = data.rfind(b"\n", begin, end_rule.start()) + 1 if end_rule else len(data)
        _read_dump(reader, block, begin, max(begin, end))
        if not end_rule:
            return True
        dump_open = False
        position = data.find(_DUMP, end_rule.end())
    return False


def _read_dump(reader: Reader, block: Block, begin: int, end: int) -> None:
    text = block.data[begin:end]
    lines = np.cumsum([0] + [len(line) + 1 for line in text.split(b"\n")])[:-1] + block.offset + begin
    first_line = block.line + block.data.count(b"\n", 0, begin)
    first_row = reader.table.nr_rows
    reader.read(Block(_LINE.sub(b"", text), block.offset + begin, first_line))
    # The prefixes are gone: offsets are those of the lines that the text came from.
    reader.table.relocate(first_row, first_line, lines, buffer=1)
