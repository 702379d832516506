from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from parsers import ftrace
from parsers.ftrace.events import Trace

FIXTURES = Path(__file__).parents[3] / "fixtures" / "ftrace"


def fixture_bytes(name: str) -> bytes:
    raw = (FIXTURES / name).read_bytes()
    return lzma.decompress(raw) if name.endswith(".xz") else raw


@pytest.fixture(scope="session")
def trace():
    """Reads a fixture by name, once."""
    known: dict[str, Trace] = {}

    def read(name: str) -> Trace:
        if name not in known:
            known[name] = ftrace.read(fixture_bytes(name), path=name)
        return known[name]

    return read


def rows(trace: Trace) -> list[dict[str, object]]:
    """The events as plain values, for comparison between sources."""
    events, strings, args = trace.events, trace.strings, trace.events.arguments
    found: list[dict[str, object]] = [
        {
            "kind": int(events.kind[i]),
            "phase": int(events.phase[i]),
            "name": strings[int(events.name[i])],
            "pid": int(events.pid[i]),
            "cpu": int(events.cpu[i]),
            "args": {},
        }
        for i in range(len(events))
    ]
    for row, column, value, text in zip(args.row, args.column, args.value, args.text, strict=True):
        found[row]["args"][args.columns[column]] = strings[int(text)] if text >= 0 else int(value)  # type: ignore[index]
    return found
