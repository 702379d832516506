"""Arguments with the names that the kernel gives where a probe has none: ``arg1`` is the first that it fetches.

traceprobe_parse_probe_arg() (kernel/trace/trace_probe.c, 5.10 to 7.3) numbers them by their place in the probe, which
for ``$arg1 $arg2 …`` and ``%x0 %x1 …`` is their place in the function's signature.  A probe that fetches others, in
another order, shows values that no such call has, and is then left as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parsers.ftrace.events import Phase
from parsers.ftrace.functions import FUNCTION_OF_KIND, Kind, Unit
from parsers.ftrace.health import UNNAMED, impossible_rows, unnamed_calls
from parsers.ftrace.naming import SIGNED, UNNAMED_ARGUMENT, column_of
from parsers.mapping import I64, U64
from parsers.ranges import distinct
from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ftrace.events import Events, Trace
    from parsers.ftrace.functions import Function, Release

__all__ = ["name_arguments"]

_MAX_ERRNO = 4095
_KERNEL_VA = np.uint64(0xFFF0_0000_0000_0000)
_POINTERS = frozenset({"altmap", "zone", "group", "params", "res", "pgmap", "ms", "pmdp", "ptep", "pgdir", "walk", "h"})
_MOST_RESULT = {Kind.MEMORY_NOTIFY: 0xFFFF, Kind.VMEMMAP_CHECK_PMD: 1}
"""The largest result that is not an error, where it is not 0."""
_SIZES = frozenset({"nr_pages", "size"})
_RANGES = (({"start_pfn"}, {"nr_pages", "end_pfn"}), ({"start", "virt"}, {"end", "size"}))


@dataclass(frozen=True, slots=True)
class _Group:
    """Calls that one probe recorded."""

    rows: I64
    """Rows of the events table."""
    function: Function
    at_return: bool


def name_arguments(trace: Trace, release: Release | None) -> Trace:
    """The trace with its unnamed arguments in the columns that the signatures of ``release`` give.

    What cannot be named stays as it is: the issue `UNNAMED` of the health then says of which functions, and why.
    """
    left = [issue for issue in trace.health if issue.code != UNNAMED]
    if len(left) == len(trace.health) or release is None:
        return trace
    events = trace.events
    for group in _groups(events):
        events = _named(events, group, release) or events
    left += unnamed_calls(events, f"they do not fit the signature in {'.'.join(map(str, release))}")
    return replace(trace, events=events, health=tuple(left))


def _groups(events: Events) -> Iterator[_Group]:
    """The calls with unnamed arguments, by what recorded them."""
    columns = [i for i, name in enumerate(events.arguments.columns) if UNNAMED_ARGUMENT.fullmatch(name)]
    rows = distinct(events.arguments.row[np.isin(events.arguments.column, columns)])
    keys = np.stack((events.kind[rows], events.phase[rows], events.name[rows])).astype(np.int64)
    for kind, phase, name in np.unique(keys, axis=1).T.tolist():
        function = FUNCTION_OF_KIND.get(Kind(kind))
        if function is not None and phase != Phase.POINT:
            mine = rows[(keys == np.array([[kind], [phase], [name]])).all(axis=0)]
            yield _Group(mine, function, phase == Phase.RETURN)


def _named(events: Events, group: _Group, release: Release) -> Events | None:
    """The events with the arguments of a group named, None where they cannot be those of the signature."""
    arguments = events.arguments
    words = ("ret",) if group.at_return else group.function.signature(release)
    mine = np.isin(arguments.row, group.rows) & (arguments.text < 0)
    numbers = {
        i: int(found[1]) - 1
        for i, name in enumerate(arguments.columns)
        if (found := UNNAMED_ARGUMENT.fullmatch(name)) and (mine & (arguments.column == i)).any()
    }
    if not words or not numbers or max(numbers.values()) >= len(words):
        return None
    columns = list(arguments.columns)
    value, column = arguments.value.copy(), arguments.column.copy()
    for i, place in numbers.items():
        name = column_of(words[place], group.function.kind, at_return=group.at_return)
        these = mine & (arguments.column == i)
        if name in SIGNED and not (name == "ret" and group.function.returns != "s32"):
            # A register holds an int in its lower half.
            value[these] = value[these].astype(np.uint32).view(np.int32).astype(np.int64).view(np.uint64)
        if not _is_possible(name, value[these], group.function):
            return None
        if name not in columns:
            columns.append(name)
        column[these] = columns.index(name)
    named = replace(events, arguments=replace(arguments, value=value, column=column, columns=tuple(columns)))
    names = {columns[i] for i in distinct(column[mine]).tolist()}
    if not group.at_return and not _has_range(names, group.function, words):
        return None
    return None if impossible_rows(named)[group.rows].any() else named


def _is_possible(name: str, value: U64, function: Function) -> bool:
    """Whether a call can have these values; what depends on several of them is not asked here."""
    if name in _POINTERS:
        return bool(((value == 0) | (value >= _KERNEL_VA)).all())
    if name in _SIZES:
        return bool(((value > 0) & (value < _KERNEL_VA)).all())
    if name == "ret":
        most = _MOST_RESULT.get(function.kind, 0)
        results = value.view(np.int64)
        return function.returns == "x64" or (
            function.returns == "s32" and bool(((results >= -_MAX_ERRNO) & (results <= most)).all())
        )
    return True


def _has_range(names: set[str], function: Function, words: tuple[str, ...]) -> bool:
    """Whether the arguments give the range of the calls, where the signature does."""
    spelled = {column_of(word, function.kind) for word in words}
    return function.unit is Unit.NONE or not _is_range(spelled) or _is_range(names)


def _is_range(names: set[str]) -> bool:
    return any(first & names and other & names for first, other in _RANGES)
