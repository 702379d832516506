"""What a rule reports: severity, claim, where, and the evidence a reader can check."""

from __future__ import annotations

import hashlib
from dataclasses import field
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass

if TYPE_CHECKING:
    from rules.rule import Rule

__all__ = [
    "Cause",
    "Claim",
    "Evidence",
    "Finding",
    "Hit",
    "Impact",
    "KnownBugClaim",
    "NotApplicableError",
    "Severity",
    "UndecidedError",
    "VaRange",
]


# Families that report an event; the state that it left is what a reader wants first.
_EVENTS = frozenset({"trace", "oops", "witnesses"})


class Severity(IntEnum):
    """How urgent; ordered."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    def __str__(self) -> str:
        return self.name.lower()


class Impact(StrEnum):
    """What kind of harm."""

    CORRUPTION = "corruption"
    LATENT = "latent"
    SECURITY = "security"
    WASTE = "waste"
    PERFORMANCE = "performance"
    INFORMATIONAL = "informational"


class Claim(StrEnum):
    """How far the evidence carries, weakest first."""

    SUSPECTED = "suspected"
    PROBABLE = "probable"
    PROVEN = "proven"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A place where the reader can check: a line of a source, or an address in memory."""

    source: str
    text: str
    line: int | None = None
    address: int | None = None


@dataclass(frozen=True, slots=True)
class VaRange:
    """Virtual addresses ``[start, end)``; ``end`` may be 2**64."""

    start: int
    end: int
    region: str


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that did it."""

    event: str
    time: float | None
    what: str
    stack: tuple[str, ...] = ()
    """Function names, innermost first."""
    operation: str = ""
    """The outermost call that it was part of."""
    task: str = ""
    """Name and PID of who did it."""

    @property
    def text(self) -> str:
        """All of it in one line."""
        return self.what + (f"; stack: {' < '.join(self.stack)}" if self.stack else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBugClaim:
    """Whether this is a known bug of the kernel: what supports and contradicts it, and which releases have the fix."""

    commit: str
    """The fix in Linus' tree, abbreviated or by its subject; empty where no fix is known."""
    title: str
    supports: tuple[str, ...]
    contradicts: tuple[str, ...]
    excluded: bool
    """The bug cannot be in this kernel."""
    fixed_in: tuple[str, ...]
    """``6.14``, ``6.12.20`` …, newest first."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Hit:
    """What a rule yields: one thing that is wrong.  The engine adds what the rule's declaration says."""

    title: str
    message: str
    claim: Claim
    severity: Severity | None = None
    """Lower than the rule's, where the evidence or the harm is less."""
    pfns: Ranges = EMPTY
    vas: tuple[VaRange, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    cause: Cause | None = None
    known_bug: KnownBugClaim | None = None
    key: str = ""
    """Distinguishes hits of one rule where their ranges do not."""


class NotApplicableError(Exception):
    """Raised by a rule: the hazard cannot exist here (another granule, another kernel), and why."""


class UndecidedError(Exception):
    """Raised by a rule: the evidence does not decide, why not, and what to collect."""

    def __init__(self, reason: str, *collect: type | str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.collect = collect


@dataclass(frozen=True, eq=False)
class Finding:
    """A hit with the rule that made it and the sections that it touches."""

    rule: Rule
    hit: Hit
    sections: tuple[int, ...] = field(default=())

    @property
    def severity(self) -> Severity:
        """The hit's severity, never above the rule's."""
        return self.rule.severity if self.hit.severity is None else min(self.hit.severity, self.rule.severity)

    @cached_property
    def fingerprint(self) -> str:
        """Stable across captures of the same damage: rule and physical place, or virtual place if that is all.

        Line numbers, file names and messages do not enter.
        """
        where = self.hit.pfns.tuples() or [(va.start, va.end) for va in self.hit.vas]
        text = "\n".join((self.rule.code, self.hit.key, *(f"{lo:x}-{hi:x}" for lo, hi in where)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def order(self) -> tuple[int, bool, str, int, str]:
        """Sort key: worst first, what is before what happened, then by code and place."""
        place = int(self.hit.pfns.start[0]) if self.hit.pfns else (self.hit.vas[0].start if self.hit.vas else 0)
        return (-int(self.severity), self.rule.family in _EVENTS, self.rule.code, place, self.hit.title)
