"""Finds the lines of a text trace that matter, at the speed of a memory search.

A trace is mostly lines of events that are not needed.  One compiled expression looks at what follows each
``: `` of a block; only the lines that it finds are ever cut out.  Blocks are read one after another, so
memory does not grow with the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from io import BytesIO
from itertools import groupby, pairwise
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from parsers.errors import FormatError, InputError
from parsers.expressions import expression
from parsers.ftrace.naming import BASE_NAMES, EVENT_NAMES, NAME_ENDS, SYMBOLS
from parsers.kept import Kept
from parsers.mapping import I64
from parsers.records import dataclass

if TYPE_CHECKING:
    import hyperscan

__all__ = [
    "BEFORE_EVENT",
    "LOSS_WORDS",
    "Block",
    "KeptLines",
    "Landmarks",
    "Progress",
    "Source",
    "alternation",
    "graph_calls",
    "landmarks",
    "line_end",
    "line_spans",
    "line_start",
    "page_events",
    "wanted",
    "wanted_in",
]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

BLOCK_SIZE = 8 << 20
"""Larger ones get fresh pages from the kernel each time, which costs more than reading."""
BEFORE_EVENT = r": +(?:\(\+\d{1,20}\) +)?"
"""Between the time of a line and its event; ``trace-cmd report --ts-diff`` prints the time since the last event."""
_PAGE_MIGRATION = (("page_isolation:", "test_pages_isolated: "), ("migrate:", "mm_migrate_pages: "))
_STACK_LINES = expression(rb"\s*=>|\s+[0-9a-f]{8,16} |[^\n]*stack trace ?>|\s*$")
_MAX_HOLD_BACK = 512
_QUOTED = 4096
_TAIL = 1 << 16
_STEP = 1 << 18
"""Bytes whose comparison with a character stays in the cache."""


def alternation(words: list[str]) -> str:
    """An expression that matches any of ``words``, sharing their beginnings: each character is looked at once."""
    ends = "" in words
    rest = sorted({word for word in words if word})
    if not rest:
        return ""
    parts = []
    for _, same in groupby(rest, lambda word: word[0]):
        group = list(same)
        shared = commonprefix(group)  # noqa: RUF071 characters are meant
        parts.append(re.escape(shared) + alternation([word[len(shared) :] for word in group]))
    joined = parts[0] if len(parts) == 1 and not ends else f"(?:{'|'.join(parts)})"
    return joined + ("?" if ends else "")


@cache
def wanted() -> re.Pattern[bytes]:
    """What follows the ``: `` of a line that may matter, to the end of the line; the parser decides."""
    functions = alternation(list(SYMBOLS))
    names = alternation(list(BASE_NAMES))
    others = alternation(
        ["<stack trace", "<user stack trace", "kernel_stack: ", "user_stack: "]
        + [system + name for system, name in _PAGE_MIGRATION for system in ("", system)]
    )
    return re.compile(
        rf"{BEFORE_EVENT}(?:(?:mhp:)?(?:mhp_)?(?:{names}(?:{'|'.join(NAME_ENDS)})?: |tlbi)|{others}"
        # a function, after "p_" and the like, or after the second colon of `NAME: (SYMBOL+0x0/0x150)` or of
        # `NAME: (CALLER <- FUNCTION)`; once, for its thousands of characters are what takes time to compile
        r"|(?:(?:probe:)?p_|kprobes:[pr]_|r_|probe:|\((?:[^()\n]*<- )??"
        rf"|func(?:tion: +|graph_entry: [^\n]{{0,256}}?))?{functions}"
        # Android writes commands of one letter to the marker all the time: `B|pid|name`
        r"|(?:tracing_mark_write|print): (?! *(?:\w*: )?[BECSFGHIN](?:\||\n)))[^\n]*".encode()
    )


@cache
def page_events() -> re.Pattern[bytes]:
    """Events of the page allocator, which are read only between neighbouring events of hotplug."""
    return re.compile(rf"{BEFORE_EVENT}(?:kmem:)?mm_page_(?:alloc|free): ".encode())


@cache
def graph_calls(columns: bytes) -> re.Pattern[bytes]:
    """Lines of a function_graph log that may matter: calls, and events as comments, after the end of the columns.

    ``columns`` is what the call text follows: ``|``, or a line end in a log without columns.
    """
    functions, names = alternation(list(SYMBOLS)), alternation(list(BASE_NAMES))
    comment = rf"/\* (?:(?:mhp_)?(?:{names}(?:{'|'.join(NAME_ENDS)})?: \(|tlbi)|[^\s:]+: \([^()\n]*<- )"
    return re.compile(re.escape(columns) + rf" *(?:{functions}(?:\(| \[)|{comment})".encode())


LOSS_WORDS = (b" EVENTS", b"buffer started ##")
"""What a line that reports lost events holds (kernel/trace/trace.c, print_lat_fmt() and test_cpu_buff_start())."""

_WORTH_A_SCAN = 1 << 18
"""Bytes from which loading the scanner costs less than the expression does."""
_SPARSE = 1 << 11
"""With more than one hit in this many bytes, the expression alone is faster than a call for each hit."""


@cache
def _scanner() -> hyperscan.Database:
    """All words that a line matched by `wanted`, or one that reports lost events, contains at least one of.

    Their ids are 0 for names and 1 for lost events.
    """
    import hyperscan  # noqa: PLC0415  only for traces that are worth it

    names = {
        *SYMBOLS,
        *(f"{name}: " for name in EVENT_NAMES),
        *("tlbi", "stack trace", "kernel_stack: ", "user_stack: ", *(name for _, name in _PAGE_MIGRATION)),
        *("tracing_mark_write: ", "print: "),
    }
    shortest = {name for name in names if not any(other != name and other in name for other in names)}
    words = [*((re.escape(name).encode(), 0) for name in sorted(shortest)), *((word, 1) for word in LOSS_WORDS)]
    database = hyperscan.Database()
    database.compile(expressions=[word for word, _ in words], ids=[number for _, number in words])
    return database


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Ascending positions within the lines of a block that may matter."""

    names: list[int]
    losses: list[int]


def landmarks(data: bytes) -> Landmarks | None:
    """Where `wanted` and lines of lost events can be, in one pass; None where a search for each is faster."""
    if len(data) < _WORTH_A_SCAN:
        return None
    found: tuple[list[int], list[int]] = ([], [])
    at_most = len(data) // _SPARSE

    def note(number: int, _start: int, end: int, _flags: int, _context: object) -> bool:
        found[number].append(end - 1)
        return len(found[0]) + len(found[1]) > at_most

    try:
        _scanner().scan(data, match_event_handler=note)
    except _scan_terminated():
        return None
    return Landmarks(*found)


@cache
def _scan_terminated() -> type[Exception]:
    import hyperscan  # noqa: PLC0415

    return hyperscan.ScanTerminated


def wanted_in(data: bytes, marks: Landmarks | None) -> Iterator[re.Match[bytes]]:
    """The matches of `wanted` in ``data``, whose landmarks are ``marks``."""
    if marks is None:
        yield from wanted().finditer(data)
        return
    for start, end in line_spans(data, marks.names):
        if match := wanted().search(data, start, end + 1):  # an expression may ask for the end of the line
            yield match


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


def _newlines(data: bytes, start: int, end: int) -> int:
    """Number of line ends in ``data[start:end]``; in long spans numpy counts several times faster than bytes do."""
    if end - start < _STEP:
        return data.count(b"\n", start, end)
    array = np.frombuffer(data, dtype=np.uint8)
    steps = range(start, end, _STEP)
    return sum(int(np.count_nonzero(array[at : min(at + _STEP, end)] == ord("\n"))) for at in steps)


@dataclass(slots=True)
class Block:
    """Whole lines of the source: where they begin."""

    data: bytes
    """Until the next block is read."""
    offset: int
    line: int
    """1-based number of the first line."""
    _counted: tuple[int, int] = (0, 0)
    """A position and the number of lines before it."""

    def line_numbers(self, starts: Sequence[int]) -> I64:
        """Line numbers of the ascending positions ``starts`` in ``data``."""
        bounds = [0, *starts]
        counts = [_newlines(self.data, first, last) for first, last in pairwise(bounds)]
        if starts:
            self._counted = (starts[-1], sum(counts))
        return np.cumsum([self.line, *counts], dtype=np.int64)[1:]

    def next_line(self) -> int:
        """Number of the first line after the block."""
        position, lines = self._counted
        return self.line + lines + _newlines(self.data, position, len(self.data))


class KeptLines:
    """The lines of a source, to be quoted after it was read (`parsers.kept.Kept`)."""

    def __init__(self, source: Source) -> None:
        self._kept = Kept(source.data, source.path)

    def line_at(self, offset: int) -> str | None:
        """The line that begins at a byte offset, its first 4 KiB; None if the file is not what was read."""
        raw = self._kept.read(offset, _QUOTED)
        return raw.split(b"\n", 1)[0].decode(errors="replace").strip() if raw else None


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

    def kept(self) -> KeptLines:
        """The lines, for quotes."""
        return KeptLines(self)

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
        offset, line = 0, 1
        with self.open() as stream:
            while data := stream.read(_to_cut(stream, offset, total)):
                if len(data) == BLOCK_SIZE and (cut := _cut(data)) < len(data):
                    if not cut:
                        raise FormatError(f"a line is longer than {len(data) >> 20} MiB", path=self.path, line=line)
                    data = data[:cut]
                    stream.seek(offset + cut)
                block = Block(data, offset, line)
                yield block
                line = block.next_line()
                offset += len(data)
                # Two blocks at a time do not fit where one was: each would get fresh pages, which cost as much as it.
                data = block.data = b""
                if progress:
                    progress(offset, total)
        if progress:
            progress(total, total)


def _to_cut(stream: BinaryIO, offset: int, total: int) -> int:
    """Bytes from ``offset``, where the stream is, to the last place for a cut: no whole block is copied for it."""
    if total - offset <= BLOCK_SIZE or BLOCK_SIZE < 2 * _TAIL:
        return BLOCK_SIZE
    stream.seek(offset + BLOCK_SIZE - _TAIL)
    cut = _cut(stream.read(_TAIL))
    stream.seek(offset)
    return BLOCK_SIZE - _TAIL + cut if cut else BLOCK_SIZE


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
