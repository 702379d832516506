"""The strips above the cells: physical memory, the struct pages and the linear map, one below the other.

All three share one axis, so what lies below a piece of memory is what maps it.  Up to `MAX_SPANS` stretches of
memory are drawn with the holes between them cut short; more are drawn to scale.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from analyzer.reports.html.memory_map import Alike, MemoryMap, Run
    from analyzer.reports.html.windows import Window
    from parsers.mapping import I64

    F64 = NDArray[np.float64]

__all__ = ["Axis", "Bar", "Strips", "Tick", "strips"]

WIDTH = 1000.0
MAX_SPANS = 12
GAP = 10.0
MIN_SPAN = 24.0
COLUMNS = 1000
"""Pieces in which a strip with very many runs is drawn, each in the look of its worst or largest part."""

# What must not disappear between larger neighbours.
_URGENT = ("missing", "torn", "unknown")
_MEMORY = {"device": "device", "RAM": "ram", "no-map": "nomap"}
_STATES = {"offline": "offline", "going-offline": "offline"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A filled piece of a strip, with the style class of its look."""

    x: float
    width: float
    look: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on the axis."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Where sections lie: pieces (first section, end section, x, x of the end)."""

    pieces: tuple[tuple[int, int, float, float], ...]
    to_scale: bool

    def place(self, sections: ArrayLike) -> F64:
        """The x of section numbers, which may have fractions."""
        known = [edge for first, end, _, _ in self.pieces for edge in (first, end)]
        x = [edge for _, _, left, right in self.pieces for edge in (left, right)]
        return np.interp(np.asarray(sections, dtype=np.float64), known, x)


@dataclass(frozen=True, slots=True)
class Strips:
    """Everything that the picture is made of."""

    axis: Axis
    memory: tuple[Bar, ...]
    structs: tuple[Bar, ...]
    linear: tuple[Bar, ...]
    findings: tuple[Bar, ...]
    nodes: tuple[tuple[Bar, str], ...]
    ticks: tuple[Tick, ...]


def strips(drawn: MemoryMap) -> Strips:
    """The geometry of a map."""
    axis = _axis(drawn.runs)
    pieces = [(piece, drawn.alike[run.alike], window) for run in drawn.runs for piece, window in _pieces(drawn, run)]
    return Strips(
        axis=axis,
        memory=_bars(axis, [(*piece, _memory(alike, window)) for piece, alike, window in pieces]),
        structs=_bars(axis, [(*piece, str(window.structs)) for piece, _, window in pieces]),
        linear=_bars(axis, [(*piece, str(window.linear)) for piece, _, window in pieces]),
        findings=_finding_bars(axis, drawn),
        nodes=tuple(_nodes(axis, drawn)),
        ticks=tuple(_ticks(axis, drawn.layout.section_size)),
    )


def _axis(runs: Sequence[Run]) -> Axis:
    """Stretches of adjacent sections, each as wide as it is large but no narrower than `MIN_SPAN`."""
    spans: list[list[int]] = []
    for run in runs:
        if spans and spans[-1][1] == run.first:
            spans[-1][1] = run.last + 1
        else:
            spans.append([run.first, run.last + 1])
    if len(spans) > MAX_SPANS:
        return Axis(((spans[0][0], spans[-1][1], 0.0, WIDTH),), to_scale=True)
    room = WIDTH - GAP * (len(spans) - 1) - MIN_SPAN * len(spans)
    total = sum(end - first for first, end in spans)
    pieces, x = [], 0.0
    for first, end in spans:
        width = MIN_SPAN + room * (end - first) / total
        pieces.append((first, end, round(x, 2), round(x + width, 2)))
        x += width + GAP
    return Axis(tuple(pieces), to_scale=False)


def _pieces(drawn: MemoryMap, run: Run) -> Iterator[tuple[tuple[float, float], Window]]:
    """A run as pieces of one look: subsections where it is a single section."""
    pattern = drawn.patterns[drawn.alike[run.alike].pattern]
    if run.first != run.last or len(pattern.runs) < 2:
        yield (run.first, run.last + 1), pattern.whole
        return
    at = 0
    for count, window in pattern.runs:
        end = at + count
        yield (run.first + at / drawn.per_section, run.first + end / drawn.per_section), drawn.windows[window]
        at = end


def _memory(alike: Alike, window: Window) -> str:
    if not window.valid:
        return "unmapped"
    look = _MEMORY.get(alike.memory, "other")
    return _STATES.get(alike.state, look) if look in {"ram", "other"} else look


def _bars(axis: Axis, pieces: list[tuple[float, float, str]]) -> tuple[Bar, ...]:
    """Adjacent pieces of one look as one bar; very many pieces by column."""
    joined: list[tuple[float, float, str]] = []
    for first, end, look in pieces:
        if joined and joined[-1][1] == first and joined[-1][2] == look:
            joined[-1] = (joined[-1][0], end, look)
        else:
            joined.append((first, end, look))
    x = axis.place([first for first, _, _ in joined])
    right = axis.place([end for _, end, _ in joined])
    looks = [look for _, _, look in joined]
    if len(joined) > COLUMNS:
        return _columns(x, right, looks)
    return tuple(map(_bar, x.tolist(), right.tolist(), looks))


def _bar(x: float, right: float, look: str) -> Bar:
    return Bar(round(x, 2), round(max(right - x, 0.8), 2), look)


def _columns(x: F64, right: F64, looks: list[str]) -> tuple[Bar, ...]:
    """Each column in the look that takes most of it, or in an urgent one that takes any."""
    names = sorted(set(looks))
    edges = np.linspace(0.0, WIDTH, COLUMNS + 1)
    column = np.array([names.index(look) for look in looks])
    share = np.zeros((len(names), COLUMNS))
    for row, name in enumerate(names):
        low, high = x[column == row], right[column == row]
        total = np.concatenate(([0.0], np.cumsum(high - low)))
        index = np.searchsorted(low, edges, side="right")
        below = total[index] - np.maximum(np.concatenate(([0.0], high))[index] - edges, 0.0)
        share[row] = np.diff(below) * (1e6 if name in _URGENT else 1.0)
    best = np.where(share.max(axis=0) > 0, share.argmax(axis=0), -1)
    return tuple(_column_bars(best, names))


def _column_bars(best: I64, names: list[str]) -> Iterator[Bar]:
    step, at = WIDTH / COLUMNS, 0
    for look, group in groupby(best.tolist()):
        count = len(list(group))
        if look >= 0:
            yield _bar(at * step, (at + count) * step, names[look])
        at += count


def _finding_bars(axis: Axis, drawn: MemoryMap) -> tuple[Bar, ...]:
    """Where findings lie, the worst drawn last."""
    bars: list[Bar] = []
    per = drawn.per_section
    for mark in sorted(drawn.marks, key=lambda mark: mark.severity):
        spans = [(lo / per, hi / per, str(mark.severity)) for lo, hi in mark.ranges.tuples()]
        bars += _bars(axis, spans)
    return tuple(bars)


def _nodes(axis: Axis, drawn: MemoryMap) -> Iterator[tuple[Bar, str]]:
    """A bar a stretch of one node; none where every section is of one."""
    groups = {one.group for one in drawn.alike}
    if len(groups) < 2:
        return
    group_of: Callable[[Run], str] = lambda run: drawn.alike[run.alike].group  # noqa: E731
    for count, (name, runs) in enumerate(groupby(drawn.runs, key=group_of)):
        stretch = list(runs)
        if count > 4 * MAX_SPANS:
            return
        x, right = axis.place([stretch[0].first, stretch[-1].last + 1]).tolist()
        yield _bar(x, right, "node"), name if right - x > 6 * len(name) else ""


def _ticks(axis: Axis, section_size: int) -> Iterator[Tick]:
    """Physical addresses of the stretches' starts, or of round numbers on the axis, as far as they do not collide."""
    starts = [(first, x) for first, _, x, _ in axis.pieces]
    if axis.to_scale:
        first, end = axis.pieces[0][:2]
        step = 1 << ((end - first) // 8).bit_length()
        starts = [(at, float(axis.place(at))) for at in range(-(-first // step) * step, end, step)]
    free = -1.0
    for start, x in starts:
        text = f"{start * section_size:#x}"
        if x >= free:
            yield Tick(round(x, 2), text)
            free = x + 6.2 * len(text) + 8
