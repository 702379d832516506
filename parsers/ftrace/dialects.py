"""What precedes the message of a line: task, CPU and time, as each producer writes them.

The default layout is that of kernel/trace/trace_output.c (5.10 to 7.3: task in 16 columns, ``-``, pid, perhaps the
thread group, ``[cpu]``, perhaps 3 to 8 flag letters, time); ``trace-cmd report`` writes the same with its own flags and
rounding, the latency format and its verbose variant and ``perf script`` have their own layouts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from parsers.expressions import expression
from parsers.ftrace.events import I32, NO_TIME
from parsers.ftrace.numbers import byte_strings, parse_decimal, parse_hex
from parsers.mapping import I64, Bool
from parsers.records import dataclass

__all__ = ["DIALECTS", "Contexts", "Dialect", "parse_contexts"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One layout; groups of ``pattern``: comm, pid, comm, pid (two places), cpu, seconds, fraction, message."""

    name: str
    pattern: re.Pattern[bytes]
    unit: str
    """``s``: seconds with a fraction, or a count without one; ``us``: microseconds; ``hex us``."""


_FLAGS = rb"[.dDbBX][.NnpLlBb][.shHzZ][.0-9a-f]{1,5}"


def _dialect(name: str, pattern: bytes, unit: str) -> Dialect:
    return Dialect(name, expression(rb"^(?:" + pattern + rb"|.*)$", re.MULTILINE), unit)


DIALECTS: tuple[Dialect, ...] = (
    _dialect(
        "text",
        # The task's name may hold blanks, digits and brackets: its 16 columns are exact, else `-pid [cpu]` ends it.
        rb"(?:(.{16})-(\d{1,10})| *(\S.{0,15}?)-(\d{1,10})) +"
        rb"(?:\( *(?:\d+|-+)\) +)?\[(\d{3,5})\] +(?:\( *(?:\d+|-+)\) +)?"
        # Flags never begin with a digit: without them the time follows at once.
        rb"(?:[^\d\s(]\S{2,11} +)?(\d{1,20})(?:\.(\d{1,9}))?:(?: +\(\+\d+\))? +(\S.*)",
        "s",
    ),
    _dialect(
        "latency",
        rb"()() *(\S.{0,15}?)-(\d{1,10}) +(\d{1,5}?)" + _FLAGS + rb" +(\d{1,20})(?:\.(\d{1,9}))?:"
        # `trace-cmd report --ts-diff`
        rb"(?: +\(\+\d+\))? +(\S.*)",
        "s",
    ),
    _dialect(
        "latency",
        rb"()() *(\S.{0,15}?)-(\d{1,10}) +(\d{1,5}?)" + _FLAGS + rb" +(\d{1,20})()us[ $@*#!+]?: +(\S.*)",
        "us",
    ),
    _dialect(
        "verbose latency",
        rb"()() *(\S.{0,15}?) +(\d{1,10}) +(\d{1,5}) +\d+ +[0-9a-f]{8} +[0-9a-f]{8,16} +"
        rb"\[([0-9a-f]{1,16})\]() +-?\d+\.\d+ms \([+-]*\d+\.\d+ms\): +(\S.*)",
        "hex us",
    ),
    _dialect(
        "perf script",
        rb"()() *(\S.{0,15}?) +(?:\d{1,10}/)?(\d{1,10}) +(?:\[(\d{3,5})\] +)?(?:[^\d\s]\S* +)?"
        rb"(\d{1,20})\.(\d{6,9}): +(\S.*)",
        "s",
    ),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Contexts:
    """The context of lines, one row a line."""

    known: Bool
    """False: the line has no context that is understood."""
    dialect: I32
    """Index into `DIALECTS`, -1 where unknown."""
    comm: list[bytes]
    pid: I32
    cpu: I32
    time_ns: I64
    message: list[bytes]
    counted: Bool
    """The time is a count: the clock is not in nanoseconds."""


def parse_contexts(lines: Sequence[bytes]) -> Contexts:
    """Contexts of ``lines`` (without line ends), each by the first dialect that fits."""
    count = len(lines)
    known = np.zeros(count, dtype=np.bool_)
    dialect = np.full(count, -1, dtype=np.int32)
    pid, cpu = np.full(count, -1, dtype=np.int32), np.full(count, -1, dtype=np.int32)
    time_ns = np.full(count, NO_TIME, dtype=np.int64)
    counted = np.zeros(count, dtype=np.bool_)
    comm, message = np.full(count, b"", dtype=object), np.full(count, b"", dtype=object)
    todo = np.arange(count)
    for number, layout in enumerate(DIALECTS):
        if not todo.size:
            break
        text = b"\n".join([lines[i] for i in todo.tolist()] if todo.size < count else lines)
        found = layout.pattern.findall(text)
        comm_a, pid_a, comm_b, pid_b, cpus, whole, fraction, rest = zip(*found, strict=True)
        hit = np.fromiter(map(len, rest), dtype=np.int64, count=len(rest)) > 0
        rows = todo[hit]
        if rows.size:
            take = np.flatnonzero(hit)
            known[rows], dialect[rows] = True, number
            pid[rows] = _first(pid_a, pid_b, take)
            cpu[rows] = _first(cpus, cpus, take)
            time_ns[rows], counted[rows] = _times(_pick(whole, take), _pick(fraction, take), layout.unit)
            comm[rows] = _objects([(comm_a[i] or comm_b[i]).strip() for i in take.tolist()])
            message[rows] = _objects([rest[i] for i in take.tolist()])
        todo = todo[~hit]
    return Contexts(
        known=known,
        dialect=dialect,
        comm=comm.tolist(),
        pid=pid,
        cpu=cpu,
        time_ns=time_ns,
        message=message.tolist(),
        counted=counted,
    )


def _objects(values: list[bytes]) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _pick(
    column: Sequence[bytes], rows: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
    return byte_strings(column)[rows]


def _first(one: Sequence[bytes], other: Sequence[bytes], rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> I64:
    """The number in ``one``, or where there is none in ``other``, or -1."""
    first, has_first = parse_decimal(_pick(one, rows))
    second, has_second = parse_decimal(_pick(other, rows))
    value = np.where(has_first, first, second).astype(np.int64)
    return np.where((has_first | has_second) & (value < 1 << 31), value, -1)


def _times(
    whole: np.ndarray[tuple[int], np.dtype[np.bytes_]],
    fraction: np.ndarray[tuple[int], np.dtype[np.bytes_]],
    unit: str,
) -> tuple[I64, Bool]:
    """(nanoseconds or counts, is a count)."""
    value, good = (parse_hex if unit == "hex us" else parse_decimal)(whole)
    part, has_part = parse_decimal(fraction)
    digits = np.char.str_len(fraction)
    counted = ~has_part if unit == "s" else np.zeros(value.size, dtype=np.bool_)
    scale = np.where(counted, 1, 1_000_000_000 if unit == "s" else 1_000).astype(np.uint64)
    good &= value <= np.uint64(np.iinfo(np.int64).max) // (scale + np.uint64(1))
    nanoseconds = value * scale + part * np.uint64(10) ** (9 - np.clip(digits, 0, 9)).astype(np.uint64)
    return np.where(good, nanoseconds.astype(np.int64), NO_TIME), counted & good
