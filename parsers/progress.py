"""How far something long has come, for whoever shows it; nobody does unless a listener is set.

A parser says what it works on and counts what is done; it never prints.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Protocol

from parsers.records import dataclass

__all__ = ["Listener", "Step", "listen", "step"]


@dataclass(slots=True, eq=False)
class Step:
    """One thing that may take long."""

    what: str
    total: int | None
    """How much there is; None where that is not known."""
    unit: str
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def advance(self, count: int) -> None:
        """So much more is done."""
        self.done += count

    def reach(self, done: int, total: int | None = None) -> None:
        """So much is done in all, of ``total`` if that is known by now."""
        self.done = done
        self.total = self.total if total is None else total


class Listener(Protocol):
    """What shows steps."""

    def begin(self, step: Step) -> None:
        """A step begins; its numbers change until it ends."""

    def end(self, step: Step) -> None:
        """It has ended, or failed."""


_listeners: list[Listener] = []


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Let ``listener`` show the steps that begin meanwhile."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def step(what: str, total: int | None = None, unit: str = "bytes") -> Iterator[Step]:
    """Something that may take long: ``what`` with its object ("hashing vmcore"), how much in what unit."""
    one, shown = Step(what, total, unit), list(_listeners)
    for listener in shown:
        listener.begin(one)
    try:
        yield one
    finally:
        for listener in shown:
            listener.end(one)
