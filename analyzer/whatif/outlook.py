"""What can leave a host now, for reports: every unit with its answer, bounded in number."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from analyzer.whatif.answer import Kind
from analyzer.whatif.foresight import Foresight, every_operation
from analyzer.whatif.operation import Verb
from parsers.records import dataclass

if TYPE_CHECKING:
    from analyzer.whatif.answer import Answer
    from rules.facts import Facts

__all__ = ["MAX_OPERATIONS", "Outlook", "Prospect", "outlook"]

MAX_OPERATIONS = 256
"""Operations that a report answers, seconds of work on a host of 16 TiB; ``ptaudit whatif --all`` answers all."""


@dataclass(frozen=True, eq=False)
class Prospect:
    """One operation with its answer, and the node that the memory belongs to."""

    answer: Answer
    start: int
    """First byte."""
    end: int
    node: int | None

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that would find the damage."""
        return tuple(dict.fromkeys(one.rule for one in self.answer.breaks))


@dataclass(frozen=True, eq=False)
class Outlook:
    """Everything that can leave, removals first."""

    prospects: tuple[Prospect, ...]
    left_out: int
    """Operations that were not asked, for there are too many."""

    def of(self, verb: Verb) -> tuple[Prospect, ...]:
        """The prospects of one kind of operation."""
        return tuple(one for one in self.prospects if one.answer.operation.verb is verb)

    @property
    def counts(self) -> dict[tuple[Verb, Kind], int]:
        """How many operations come to what."""
        found = Counter((one.answer.operation.verb, one.answer.kind) for one in self.prospects)
        return {(verb, kind): found[verb, kind] for verb in (Verb.REMOVE, Verb.OFFLINE) for kind in Kind}

    @property
    def unsafe(self) -> int:
        """Units whose removal breaks something."""
        return self.counts[Verb.REMOVE, Kind.BREAKS]


def outlook(facts: Facts) -> Outlook:
    """What removing each unit, and taking each hot-added block offline, would do; empty where nothing is known."""
    foresight = Foresight(facts)
    if foresight.known is None:
        return Outlook((), 0)
    operations = every_operation(foresight)
    page, inventory = foresight.known.layout.page_size, foresight.known.inventory
    found: list[Prospect] = []
    for operation in operations[:MAX_OPERATIONS]:
        answer = foresight.answer(operation)
        nodes = {block.node for block in inventory.blocks_in(answer.pfns)}
        start, end = (int(answer.pfns.start[0]), int(answer.pfns.end[-1])) if answer.pfns else (0, 0)
        found.append(Prospect(answer, start * page, end * page, nodes.pop() if len(nodes) == 1 else None))
    return Outlook(tuple(found), len(operations) - len(found))
