"""The map as plain data, from which the page's script draws the cells.

Texts, looks and patterns are stored once and named by index; sections are runs of alike ones,
and very many sections are folded into rows that are drawn when they are opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analyzer.output import printable

if TYPE_CHECKING:
    from analyzer.reports.html.memory_map import MemoryMap, Run
    from analyzer.reports.html.strips import Axis
    from analyzer.reports.html.windows import Window
    from parsers.ranges import Ranges

__all__ = ["embedded"]

MAX_OPEN = 512
"""Up to so many sections are drawn at once, without folding."""
ROWS, MAX_ROWS = 64, 256


class _Table:
    """Values by index, each stored once."""

    def __init__(self) -> None:
        self.index: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:  # noqa: ANN401 anything hashable
        return self.index.setdefault(value, len(self.index))

    @property
    def values(self) -> list[Any]:
        return list(self.index)


def embedded(drawn: MemoryMap, axis: Axis) -> dict[str, Any]:
    """The data; everything in it is a number, a text or a list of those."""
    layout, words, windows = drawn.layout, _Table(), _Table()

    def look(window: Window) -> int:
        structs, linear = words(str(window.structs)), words(str(window.linear))
        return windows((window.valid, structs, words(window.structs_text), linear, words(window.linear_text)))

    patterns = [
        [look(one.whole), one.valid, *(n for count, at in one.runs for n in (count, look(drawn.windows[at])))]
        for one in drawn.patterns
    ]
    alike = [
        [*(words(text) for text in (one.group, one.state, one.origin, one.memory, one.zones)), one.pattern]
        for one in drawn.alike
    ]
    owners = [[start, end, printable(label)] for start, end, label in drawn.owners]
    return {
        "page": layout.page_size,
        "section": layout.pages_per_section,
        "subsection": layout.pages_per_subsection,
        "block": layout.get("block_size"),
        "startPfn": layout.start_pfn if layout.knows("phys_offset") else None,
        "linear": _hex(layout.get("page_offset")),
        "vmemmap": _hex(layout.get("vmemmap_start")),
        "structPage": layout.get("struct_page_size"),
        "runs": _steps([(run.first, run.last + 1, run.alike) for run in drawn.runs]),
        "rows": _rows(drawn, words),
        "open": drawn.total <= MAX_OPEN,
        "axis": [list(piece) for piece in axis.pieces],
        "marks": [[str(mark.severity), int(mark.exact), _gaps(mark.ranges)] for mark in drawn.marks],
        "owners": owners,
        "alike": alike,
        "patterns": patterns,
        "windows": [list(one) for one in windows.values],
        "words": words.values,
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _steps(runs: list[tuple[int, int, int]]) -> list[int]:
    """Runs as (numbers left out, how many, what), one after the other."""
    flat, at = [], 0
    for first, end, alike in runs:
        flat += [first - at, end - first, alike]
        at = end
    return flat


def _gaps(ranges: Ranges) -> list[int]:
    flat, at = [], 0
    for first, end in ranges.tuples():
        flat += [first - at, end - first]
        at = end
    return flat


def _rows(drawn: MemoryMap, words: _Table) -> list[list[int]]:
    """Rows of sections by group: (group, first, last, how many, what they all are or -1).

    Rows end at multiples of one number of sections; neighbours that hold nothing but the same are one row.
    """
    groups: dict[str, list[Run]] = {}
    for run in drawn.runs:
        groups.setdefault(drawn.alike[run.alike].group, []).append(run)
    ordered = sorted(groups.items(), key=lambda item: item[1][0].first)
    if drawn.total <= MAX_OPEN:
        return [row for name, runs in ordered for row in _pieces(runs, words(name), 1 << 62)]
    size = max(MAX_OPEN, 1 << (drawn.total // ROWS - 1).bit_length())
    while True:
        rows = [row for name, runs in ordered for row in _joined(_pieces(runs, words(name), size))]
        if len(rows) <= MAX_ROWS + len(ordered):
            return rows
        size *= 2


def _pieces(runs: list[Run], group: int, size: int) -> list[list[int]]:
    """The sections of one group, cut at multiples of ``size``."""
    pieces: list[list[int]] = []
    for run in runs:
        starts = [run.first, *range((run.first // size + 1) * size, run.last + 1, size)]
        lasts = [*(start - 1 for start in starts[1:]), run.last]
        for first, last in zip(starts, lasts, strict=True):
            _append(pieces, [group, first, last, last - first + 1, run.alike], size)
    return pieces


def _append(pieces: list[list[int]], piece: list[int], size: int) -> None:
    """Add a piece to the row that it belongs to."""
    row = pieces[-1] if pieces else None
    if row is None or row[2] // size != piece[1] // size:
        pieces.append(piece)
        return
    row[2], row[3] = piece[2], row[3] + piece[3]
    row[4] = row[4] if row[4] == piece[4] else -1


def _joined(pieces: list[list[int]]) -> list[list[int]]:
    joined: list[list[int]] = []
    for piece in pieces:
        row = joined[-1] if joined else None
        if row and row[4] >= 0 and row[4] == piece[4] and row[2] + 1 == piece[1]:
            row[2], row[3] = piece[2], row[3] + piece[3]
        else:
            joined.append(piece)
    return joined
