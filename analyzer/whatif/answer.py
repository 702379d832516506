"""An answer: what would happen, to whom, how it would show, and what to do instead."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass

if TYPE_CHECKING:
    from analyzer.whatif.operation import Operation
    from rules.finding import Claim, Evidence, Severity, VaRange
    from rules.model.replay.forward import Machine

__all__ = ["SCHEMA", "Answer", "Break", "Kind", "document", "exit_status"]

SCHEMA = "ptaudit.whatif/1"


class Kind(StrEnum):
    """The outcome of an operation."""

    SAFE = "safe"
    BREAKS = "breaks"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False, kw_only=True)
class Break:
    """Something that the operation would damage, and the rule that would find it afterwards."""

    rule: str
    severity: Severity
    pfns: Ranges
    owners: tuple[str, ...]
    why: str
    vas: tuple[VaRange, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The break as the document `SCHEMA` has it."""
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "pfn_ranges": [{"start": f"{lo:#x}", "end": f"{hi:#x}"} for lo, hi in self.pfns.tuples()],
            "va_ranges": [{"start": f"{va.start:#x}", "end": f"{va.end:#x}", "region": va.region} for va in self.vas],
            "owners": list(self.owners),
            "why": self.why,
            "evidence": [
                {"source": one.source, "line": one.line, "text": one.text}
                | ({} if one.address is None else {"address": f"{one.address:#x}"})
                for one in self.evidence
            ],
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """The answer to one operation."""

    operation: Operation
    kind: Kind
    why: str
    claim: Claim
    breaks: tuple[Break, ...] = ()
    instead: str | None = None
    collect: str | None = None
    """What would answer it, where it is unknown."""
    pfns: Ranges = field(default=EMPTY)
    """What the operation is about."""
    after: Machine | None = field(default=None, repr=False)
    """Page tables and sections as they would be afterwards; None where that is not known."""
    notes: tuple[str, ...] = ()
    oops: bool = False
    """The kernel oopses in the operation itself, which holds the hotplug lock: no other follows."""

    @property
    def harmful(self) -> bool:
        """Something breaks, or a refusal leaves something behind."""
        return bool(self.breaks) or self.kind is Kind.BREAKS

    def as_dict(self) -> dict[str, Any]:
        """The answer as the document `SCHEMA` has it."""
        return {
            "operation": str(self.operation),
            "answer": str(self.kind),
            "claim": str(self.claim),
            "pfn_ranges": [{"start": f"{lo:#x}", "end": f"{hi:#x}"} for lo, hi in self.pfns.tuples()],
            "breaks": [one.as_dict() for one in self.breaks],
            "why": self.why,
            "instead": self.instead,
            "collect": self.collect,
            "notes": list(self.notes),
        }


def document(answers: list[Answer]) -> dict[str, Any]:
    """The document `SCHEMA`."""
    return {"schema": SCHEMA, "answers": [one.as_dict() for one in answers]}


def exit_status(answers: list[Answer]) -> int:
    """0 where everything is safe or refused without harm, 1 where something breaks, 3 where something is unknown."""
    if any(one.harmful for one in answers):
        return 1
    return 3 if any(one.kind is Kind.UNKNOWN for one in answers) else 0
