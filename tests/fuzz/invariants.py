"""What must hold for every input of every target."""

from __future__ import annotations

import dataclasses
import hashlib
import resource
import time
import zlib
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING

import numpy as np

from parsers.errors import Diagnostic, PtauditError

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

__all__ = ["MAX_SECONDS", "Broken", "digest", "hold"]

MAX_SECONDS = 10.0
"""Of this process, for an input of up to 1 MB: a busy machine is not a finding."""
MAX_RATIO = 20
GZIP = b"\x1f\x8b"
"""A configuration that begins so has lines of its own."""
MAX_EXTRA = 200 << 20
APART = {
    **{("Mapping", name): "observed" for name in ("observed_start", "observed_last")},
    **{("ZoneRows", f"node_{name}"): "node" for name in ("id", "start_pfn", "spanned", "present")},
    **{("SectionRows", f"{name}_{edge}"): name for name in ("unknown", "blank") for edge in ("start", "end")},
}
"""Columns that are not as long as the others of their class, by the group that they belong to."""
WITHOUT_ROWS = {"SectionRows": {"subsections"}, "Walk": {"repeated"}}


class Broken(AssertionError):  # noqa: N818  it is what a finding is called here
    """An invariant does not hold."""


def hold(target: Target, data: bytes, *, twice: bool = True) -> str:
    """Run one input; returns what became of it (``read`` or the error's class).  Raises what no input may raise."""
    most = _peak() + MAX_RATIO * len(data) + MAX_EXTRA
    begin = time.process_time()
    outcome, result = _outcome(target, data)
    seconds = time.process_time() - begin
    if seconds > MAX_SECONDS:
        raise Broken(f"{seconds:.1f} s for {len(data)} bytes")
    if _peak() > most:
        raise Broken(f"more than {most >> 20} MiB for {len(data)} bytes")
    lines = data.count(b"\n") + 1
    for value in _parts(result):
        _check(value, lines, len(data), binary=target.binary or GZIP in data[:16])
    if twice and digest(_outcome(target, data)) != digest((outcome, result)):
        raise Broken("another result of the same input")
    return outcome


def _outcome(target: Target, data: bytes) -> tuple[str, object]:
    try:
        return "read", target.run(data)
    except PtauditError as error:
        where = Diagnostic(error.message, error.path, error.line, error.column, error.offset)
        return type(error).__name__, where


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _parts(value: object, depth: int = 0) -> Iterator[object]:
    """Every dataclass inside of a result."""
    if dataclasses.is_dataclass(value) and depth < 8:
        yield value
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name), depth + 1)
    elif isinstance(value, tuple | list) and value and not isinstance(value[0], str | int | bytes):
        for item in value:
            yield from _parts(item, depth + 1)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _parts(item, depth + 1)


def _check(part: object, lines: int, size: int, *, binary: bool) -> None:
    if isinstance(part, Diagnostic):
        _check_place(part, lines, size, binary=binary)
        return
    _check_lengths(part)
    name, start, last = type(part).__name__, getattr(part, "start", None), getattr(part, "last", None)
    if isinstance(start, np.ndarray) and isinstance(last, np.ndarray) and (start > last).any():
        raise Broken(f"a range of {name} ends before it starts")
    line = getattr(part, "line", None)
    if not binary and isinstance(line, np.ndarray) and line.size and int(line.max()) > lines:
        raise Broken(f"a line of {name} that is not in the input: {int(line.max())} of {lines}")


def _check_place(said: Diagnostic, lines: int, size: int, *, binary: bool) -> None:
    if not said.message or (said.column is not None and said.column < 1):
        raise Broken(f"a diagnostic that says nothing or nowhere: {said}")
    if not binary and said.line is not None and not 1 <= said.line <= lines:
        raise Broken(f"a line that is not in the input: {said}")
    if not binary and said.offset is not None and not 0 <= said.offset <= size:
        raise Broken(f"an offset outside of the input: {said}")


def _check_lengths(part: object) -> None:
    name = type(part).__name__
    lengths: dict[str, dict[str, int]] = {}
    for field in dataclasses.fields(part):  # type: ignore[arg-type]
        column = getattr(part, field.name)
        if isinstance(column, np.ndarray) and field.name not in WITHOUT_ROWS.get(name, ()):
            lengths.setdefault(APART.get((name, field.name), ""), {})[field.name] = len(column) if column.ndim else -1
    for group in lengths.values():
        if len(set(group.values())) > 1:
            raise Broken(f"columns of {name} differ in length: {group}")


def digest(value: object) -> str:
    """The same for equal results, whatever they are made of; functions do not count."""
    hashed = hashlib.sha256()
    _feed(hashed.update, value)
    return hashed.hexdigest()


def _feed(update, value: object) -> None:  # noqa: C901  one case a type
    if isinstance(value, np.ndarray) and value.dtype != object:
        update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif dataclasses.is_dataclass(value):
        update(type(value).__name__.encode())
        for field in dataclasses.fields(value):
            if field.init:
                _feed(update, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _feed(update, key)
            _feed(update, item)
    elif isinstance(value, np.ndarray | tuple | list):
        update(b"[%d" % len(value))
        for item in value:
            _feed(update, item)
    elif isinstance(value, bytes | bytearray):
        update(b"b%d:" % len(value) + value)
    elif isinstance(value, str | int | float | Enum | Path | np.generic) or value is None:
        update(repr(value).encode("utf-8", "backslashreplace"))
    elif not isinstance(value, FunctionType | MethodType | type) and hasattr(value, "text"):
        _feed(update, value.text)


def sampled(data: bytes) -> bool:
    """One input in eight, always the same ones: enough for what costs as much as the run itself."""
    return zlib.crc32(data) % 8 == 0
