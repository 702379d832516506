"""What reading one evidence set may cost, whatever it holds and however it is packed.

The bounds are generous for what hosts produce, and are there because evidence comes from strangers: an archive of a few
kilobytes can claim any size.  Every reader of `analyzer.sources` draws on the same budget.  What does not fit is left
out and named; the rest is audited.
"""

from __future__ import annotations

import time
from dataclasses import field, fields, is_dataclass, replace
from typing import TypeVar

import numpy as np

from parsers.errors import BudgetError
from parsers.records import dataclass

__all__ = ["Bounds", "Budget", "size_in_memory"]

_Number = TypeVar("_Number", int, float)


def _bound(default: _Number, what: str) -> _Number:
    """A field with a description for the documentation."""
    found: _Number = field(default=default, metadata={"what": what})
    return found


@dataclass(frozen=True)
class Bounds:
    """Of everything that one audit reads together; ``--budget N`` is N times as much of each."""

    kept_bytes: int = _bound(
        2 << 30, "held in memory: texts, members of archives, what is kept of traces, kernels and crash dumps"
    )
    passed_bytes: int = _bound(64 << 30, "decompressed, or read piece by piece, to get at it")
    member_bytes: int = _bound(1 << 30, "one member of an archive")
    looks: int = _bound(20_000, "files with unknown names that are searched for evidence")
    look_bytes: int = _bound(32 << 20, "one such file; a larger one is read when its kind is named")
    looked_bytes: int = _bound(2 << 30, "all such files")
    look_seconds: float = _bound(60.0, "time for all such files")
    seconds: float = _bound(900.0, "time for reading texts, traces and archives; crash dumps take what they take")
    factor: int = 1
    """How many times as much as usual."""

    def times(self, factor: int) -> Bounds:
        """The bounds with all amounts multiplied."""
        amounts = {one.name: getattr(self, one.name) * factor for one in fields(self)}
        return replace(self, **amounts)


@dataclass
class Budget:
    """What is left of the bounds."""

    bounds: Bounds = field(default_factory=Bounds)
    kept: int = 0
    passed: int = 0
    looks: int = 0
    looked: int = 0
    seconds: float = 0.0
    """Spent on files with unknown names."""
    began: float = field(default_factory=time.monotonic)

    @property
    def raise_it(self) -> str:
        """How to have more read."""
        return f"--budget {2 * self.bounds.factor} allows twice as much"

    def in_time(self, path: str) -> None:
        """BudgetError where the time for reading is over: also asked in the middle of a large file."""
        if time.monotonic() - self.began > self.bounds.seconds:
            said = f"not read after {self.bounds.seconds:.0f} s, the time for one audit: {self.raise_it}"
            raise BudgetError(said, path=path)

    def keep(self, size: int, path: str) -> None:
        """Count bytes that are held; BudgetError, and not counted, where that is too much."""
        self.in_time(path)
        if self.kept + size > self.bounds.kept_bytes:
            how = "larger than" if size > self.bounds.kept_bytes else "does not fit into"
            said = f"{how} the {_mib(self.bounds.kept_bytes)} that one audit holds: {self.raise_it}"
            raise BudgetError(said, path=path)
        self.kept += size

    def go_through(self, size: int, path: str) -> None:
        """Count bytes that are decompressed, or read piece by piece; BudgetError, and not counted, where that is too
        much.
        """
        self.in_time(path)
        if self.passed + size > self.bounds.passed_bytes:
            said = f"unpacks to, or is, more than the {_mib(self.bounds.passed_bytes)} that one audit goes through"
            raise BudgetError(f"{said}: {self.raise_it}", path=path)
        self.passed += size

    def may_look(self, size: int) -> str:
        """Why a file of this size and unknown name is not looked into; empty if it is, and then it is counted."""
        bounds = self.bounds
        if size > bounds.look_bytes:
            return self.too_large_to_look
        if self.looks >= bounds.looks or self.looked + size > bounds.looked_bytes or self.seconds > bounds.look_seconds:
            return f"its name is not known, and too many such files were examined: name its kind, or {self.raise_it}"
        self.looks += 1
        self.looked += size
        return ""

    @property
    def too_large_to_look(self) -> str:
        """Why a large file with an unknown name is not looked into."""
        return f"its name is not known, and it is larger than {_mib(self.bounds.look_bytes)}: name its kind"

    def spend(self, since: float) -> None:
        """Count the time since a `time.monotonic` as spent on looking."""
        self.seconds += time.monotonic() - since


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def size_in_memory(found: object) -> int:
    """Bytes of the arrays and texts of what a parser returned; of views of one array that array, once."""
    seen: dict[int, int] = {}
    pending = [found]
    while pending:
        one = pending.pop()
        if isinstance(one, np.ndarray):
            owner = one.base if isinstance(one.base, np.ndarray) else one
            seen[id(owner)] = owner.nbytes
        elif isinstance(one, bytes):
            seen[id(one)] = len(one)
        elif is_dataclass(one) and not isinstance(one, type) and id(one) not in seen:
            seen[id(one)] = 0
            pending += [getattr(one, each.name, None) for each in fields(one)]
    return sum(seen.values())
