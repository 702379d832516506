"""Finds the lines of a text trace that matter, at the speed of a memory search.

A trace is mostly lines of events that nobody asked for.  One compiled expression looks at what follows each
``: `` of a block; only the lines that it finds are ever cut out.  Blocks are read one after another, so
memory does not grow with the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import groupby, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from parsers.errors import FormatError, InputError
from parsers.ftrace.naming import EVENT_NAMES, SYMBOLS
from parsers.mapping import I64

__all__ = [
    "Block",
    "Progress",
    "Source",
    "alternation",
    "graph_calls",
    "line_end",
    "line_spans",
    "line_start",
    "page_events",
    "wanted",
]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

BLOCK_SIZE = 4 << 20
_STACK_LINES = re.compile(rb"\s*=>|\s+[0-9a-f]{8,16} |[^\n]*stack trace ?>|\s*$")
_MAX_HOLD_BACK = 512


def alternation(words: list[str]) -> str:
    """An expression that matches any of ``words``, sharing their beginnings: each character is looked at once."""
    ends = "" in words
    rest = sorted({word for word in words if word})
    if not rest:
        return ""
    parts = [
        re.escape(first) + alternation([word[1:] for word in group])
        for first, group in groupby(rest, lambda word: word[0])
    ]
    joined = parts[0] if len(parts) == 1 and not ends else f"(?:{'|'.join(parts)})"
    return joined + ("?" if ends else "")


@cache
def wanted() -> re.Pattern[bytes]:
    """What stands after the ``: `` of a line that may matter, to the end of the line; the parser decides.

    All names go into one alternation without optional parts, so that a line of noise costs a few comparisons.
    """
    functions = alternation(list(SYMBOLS))
    names = alternation(
        [prefix + name + ": " for name in EVENT_NAMES for prefix in ("", "mhp_")]
        + [
            prefix + name
            for name in SYMBOLS
            for prefix in ("", "p_", "r_", "probe:", "probe:p_", "kprobes:p_", "kprobes:r_")
        ]
        + [prefix + name + ": " for name in EVENT_NAMES for prefix in ("mhp:", "mhp:mhp_")]
        + ["tlbi", "mhp_tlbi", "mhp:mhp_tlbi", "<stack trace", "<user stack trace", "kernel_stack: ", "user_stack: "]
        + [
            "test_pages_isolated: ",
            "mm_migrate_pages: ",
            "page_isolation:test_pages_isolated: ",
            "migrate:mm_migrate_pages: ",
        ]
    )
    return re.compile(
        # the second colon of `NAME: (SYMBOL+0x0/0x150)` or of `NAME: (CALLER <- FUNCTION)`
        rf": +(?:{names}|\((?:{functions}|[^()\n]*<- {functions})"
        rf"|func(?:tion: +|graph_entry: [^\n]{{0,256}}?){functions}"
        # Android writes commands of one letter to the marker all the time: `B|pid|name`
        r"|(?:tracing_mark_write|print): (?! *(?:\w*: )?[BECSFGHIN](?:\||\n)))[^\n]*".encode()
    )


@cache
def page_events() -> re.Pattern[bytes]:
    """Events of the page allocator, which are read only between neighbouring events of hotplug."""
    return re.compile(rb": +(?:kmem:)?mm_page_(?:alloc|free): ")


@cache
def graph_calls(columns: bytes) -> re.Pattern[bytes]:
    """Lines of a function_graph log that may matter: calls, and events as comments, after the end of the columns.

    ``columns`` is what the call text follows: ``|``, or a line end in a log without columns.
    """
    names = alternation(
        [name + end for name in SYMBOLS for end in ("(", " [")]
        + ["/* " + prefix + name + ": (" for name in EVENT_NAMES for prefix in ("", "mhp_")]
        + ["/* tlbi", "/* mhp_tlbi"]
    )
    return re.compile(re.escape(columns) + rb" *(?:" + names.encode() + rb"|/\* [^\s:]+: \([^()\n]*<- )")


def line_end(data: bytes, start: int) -> int:
    """Where the line that begins at ``start`` ends."""
    end = data.find(b"\n", start)
    return len(data) if end < 0 else end


def line_start(data: bytes, position: int) -> int:
    """Where the line around ``position`` begins."""
    return data.rfind(b"\n", 0, position) + 1


def line_spans(data: bytes, positions: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Where the lines around ascending ``positions`` begin and end, each line once."""
    end = -1
    for position in positions:
        if position > end:
            end = line_end(data, position)
            yield line_start(data, position), end


@dataclass(slots=True)
class Block:
    """Whole lines of the source: where they begin."""

    data: bytes
    offset: int
    line: int
    """1-based number of the first line."""
    _counted: tuple[int, int] = (0, 0)
    """A position and the number of lines before it."""

    def line_numbers(self, starts: Sequence[int]) -> I64:
        """Line numbers of the ascending positions ``starts`` in ``data``."""
        bounds = [0, *starts]
        counts = [self.data.count(b"\n", first, last) for first, last in pairwise(bounds)]
        if starts:
            self._counted = (starts[-1], sum(counts))
        return np.cumsum([self.line, *counts], dtype=np.int64)[1:]

    def next_line(self) -> int:
        """Number of the first line after the block."""
        position, lines = self._counted
        return self.line + lines + self.data.count(b"\n", position)


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes in a file or in memory."""

    path: str
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """A stream of the bytes; InputError if the file cannot be opened."""
        if self.data is not None:
            return BytesIO(self.data)
        try:
            return Path(self.path).open("rb")
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path=self.path) from error

    def size(self) -> int:
        """Number of bytes."""
        return len(self.data) if self.data is not None else Path(self.path).stat().st_size

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes."""
        with self.open() as stream:
            return stream.read(size)

    def blocks(self, progress: Progress | None = None) -> Iterator[Block]:
        """The source in blocks of whole lines; a stack trace is not cut in two."""
        total = self.size()
        offset, line, rest = 0, 1, b""
        with self.open() as stream:
            while more := stream.read(BLOCK_SIZE):
                data = rest + more
                # Less than was asked for: the end of the source, of which nothing needs to be held back.
                cut = len(data) if len(more) < BLOCK_SIZE else _cut(data)
                if not cut or (len(data) > BLOCK_SIZE and b"\n" not in data):
                    raise FormatError(f"a line is longer than {len(data) >> 20} MiB", path=self.path, line=line)
                block = Block(data[:cut], offset, line)
                yield block
                line = block.next_line()
                offset, rest = offset + cut, data[cut:]
                if progress:
                    progress(offset, total)
            if rest:
                yield Block(rest, offset, line)
        if progress:
            progress(total, total)


def _cut(data: bytes) -> int:
    """Where to end a block: after a line, and not within the frames of a stack."""
    cut = data.rfind(b"\n") + 1
    back = cut
    for _ in range(_MAX_HOLD_BACK):
        start = data.rfind(b"\n", 0, max(back - 1, 0)) + 1
        if not _STACK_LINES.match(data, start, back):
            # the event itself stays with its stack
            return start or cut
        back = start
        if not back:
            break
    return cut
