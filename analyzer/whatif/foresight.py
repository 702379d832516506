"""What operations would do: every machine that the evidence allows is asked, and an answer counts if all agree."""

from __future__ import annotations

from dataclasses import field, replace
from functools import cached_property
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from analyzer.whatif.adding import Adding, described_by_a_leaf
from analyzer.whatif.answer import Answer, Kind
from analyzer.whatif.case import PAGE_4K, Case, Outcome
from analyzer.whatif.operation import Operation, Verb, parse_operation
from parsers.errors import LayoutError, UsageError
from parsers.layout import KernelLayout
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from parsers.vmcore.moment import Flux
from rules.facts import AUDIT_AGAIN, Facts
from rules.finding import Claim
from rules.model.memory.resources import Resources
from rules.model.memory.units import Unit, UnitKind
from rules.model.replay.machine import Known, known_machines
from rules.rule import UndecidedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analyzer.audit import Report

__all__ = ["Foresight", "every_operation", "what_if"]

MAX_TOGETHER = 4
"""Units whose removal in any order is tried."""


def what_if(
    report: Report | Facts, operations: Iterable[str | Operation], *, in_sequence: bool = False
) -> list[Answer]:
    """What each operation would do to the host that was read, in the order asked; ``in_sequence``, one after the other.

    Raises UsageError for text that is not an operation, and for a unit that does not exist.
    """
    facts = report if isinstance(report, Facts) else report.facts
    foresight = Foresight(facts)
    answers: list[Answer] = []
    for one in operations:
        operation = parse_operation(one) if isinstance(one, str) else one
        answer = foresight.answer(operation)
        answers.append(answer)
        if in_sequence:
            foresight = foresight.after(answer)
    return answers


def every_operation(host: Report | Facts | Foresight) -> list[Operation]:
    """Removal of every unit that can leave, and offlining of every block that was not there at boot."""
    foresight = host if isinstance(host, Foresight) else Foresight(host if isinstance(host, Facts) else host.facts)
    if foresight.known is None:
        return [Operation(Verb.REMOVE, "any unit")]
    inventory, page = foresight.known.inventory, foresight.known.layout.page_size
    unknown = [] if inventory.complete else [(lo * page, hi * page) for lo, hi in inventory.unowned.tuples()]
    removals = [Operation(Verb.REMOVE, unit.name, foresight.span(unit)) for unit in inventory.removable]
    removals += [Operation(Verb.REMOVE, f"{lo:#x}-{hi:#x}", (lo, hi)) for lo, hi in unknown]
    return [*removals, *(Operation(Verb.OFFLINE, unit.name) for unit in inventory.blocks if not unit.boot)]


@dataclass(frozen=True, eq=False)
class Foresight:
    """Answers about one host."""

    facts: Facts
    moved_on: Known | None = None
    """The state after operations that were answered before."""
    blind: str = ""
    """Why the state after those is not known."""
    undecided: list[UndecidedError] = field(default_factory=list)

    @cached_property
    def known(self) -> Known | None:
        """The machines, or None with the reason in ``undecided``."""
        if self.moved_on is not None:
            return self.moved_on
        try:
            return known_machines(self.facts)
        except UndecidedError as error:
            self.undecided.append(error)
        except LayoutError as error:
            self.undecided.append(UndecidedError(error.message, KernelLayout))
        return None

    def after(self, answer: Answer) -> Foresight:
        """The host after an operation, as the answer predicts it."""
        known = self.known
        if known is None:
            return self
        if answer.oops:
            return replace(self, blind=f"the kernel oopses in {answer.operation}, which holds the hotplug lock")
        if answer.after is None:
            return replace(self, blind=f"the state after {answer.operation} is not known")
        inventory, valid, online = known.inventory, answer.after.valid, answer.after.online
        resources, page = self.facts.get(Resources), known.layout.page_size
        if answer.operation.verb is Verb.ADD and answer.kind is not Kind.REFUSED:
            unit = Adding(Case(self.facts, known, answer.after), *(answer.operation.span or (0, 0))).unit
            inventory = inventory.with_added(unit, known.layout)
            if resources is not None and answer.operation.span is not None:
                device = unit.kind is UnitKind.DEVICE
                resources = resources.after_adding(*answer.operation.span, unit.name, device=device)
        elif answer.operation.verb is Verb.REMOVE and answer.kind is not Kind.REFUSED:
            inventory = inventory.without(answer.pfns - valid)
            if resources is not None:
                gone = answer.pfns - valid
                resources = resources.after_removing(gone.scale(page), valid.scale(page))
        inventory = inventory.with_online(online)
        facts = self.facts
        if resources is not None:
            facts = replace(facts, known={**facts.known, Resources: resources})
        return replace(self, facts=facts, moved_on=replace(known, machines=(answer.after,), inventory=inventory))

    def span(self, unit: Unit) -> tuple[int, int]:
        """Bytes of a unit."""
        page = 1 if self.known is None else self.known.layout.page_size
        return unit.start_pfn * page, unit.end_pfn * page

    def answer(self, operation: Operation) -> Answer:
        """The answer to one operation."""
        known = self.known
        if known is None or self.blind:
            reason = self.blind or self.undecided[0].reason
            lacking = self.undecided[0].collect if not self.blind else ()
            steps = [step for kind in lacking for step in self.facts.collect(kind)]
            return Answer(
                operation=operation,
                kind=Kind.UNKNOWN,
                why=reason,
                claim=Claim.SUSPECTED,
                collect="; ".join(steps) or None,
            )
        flux = self.facts.get(Flux)
        try:
            units = self._units(operation, known)
        except UsageError:
            if flux is None or not flux.named:
                raise
            return self._changed(operation, f"no such unit is in what did not change while it was read ({flux.named})")
        pfns = Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in units)
        if operation.verb is Verb.ADD and operation.span is not None:
            page = known.layout.page_size
            pfns = Ranges.one(operation.span[0] // page, -(-operation.span[1] // page))
        if flux is not None and pfns & self._in_flux(flux, known):
            return self._changed(operation, f"{flux.named} changed while they were read", pfns)
        outcomes = [self._outcome(Case(self.facts, known, machine), operation, units) for machine in known.machines]
        first = outcomes[0]
        if len({one.kind for one in outcomes}) > 1:
            why = "; or ".join(dict.fromkeys(f"{one.kind}: {one.why}" for one in outcomes))
            return Answer(
                operation=operation, kind=Kind.UNKNOWN, why=f"it depends on what was not read: {why}",
                claim=Claim.SUSPECTED, collect=known.collect, pfns=pfns,
            )  # fmt: skip
        return Answer(
            operation=operation,
            kind=first.kind,
            why=first.why,
            claim=Claim.SUSPECTED if first.kind is Kind.UNKNOWN or first.by_release else known.claim,
            breaks=first.breaks,
            instead=first.instead or self._instead(operation, units, known, first),
            collect=first.collect,
            pfns=pfns,
            after=first.after if len(outcomes) == 1 else None,
            notes=(*known.assumptions, *first.notes),
            oops=first.oops,
        )

    @staticmethod
    def _changed(operation: Operation, why: str, pfns: Ranges = EMPTY) -> Answer:
        return Answer(
            operation=operation, kind=Kind.UNKNOWN, why=why, claim=Claim.SUSPECTED, collect=AUDIT_AGAIN, pfns=pfns
        )

    @staticmethod
    def _in_flux(flux: Flux, known: Known) -> Ranges:
        """The page frames of sections that changed while they were read, and of their neighbours.

        A leaf of the page tables may hold the struct pages of both.
        """
        sections = Ranges.of(np.maximum(flux.sections - 1, 0), flux.sections + 2)
        return sections.scale(known.layout.pages_per_section)

    def _units(self, operation: Operation, known: Known) -> list[Unit]:
        """The units that an operation names; UsageError if there are none."""
        if operation.verb is Verb.ADD:
            return []
        case = Case(self.facts, known, known.machines[0])
        page = known.layout.page_size
        if operation.span is not None:
            low, high = operation.span[0] // page, -(-operation.span[1] // page)
            return case.units_of(Ranges.one(low, high))
        found = known.inventory.find(operation.what)
        if not found:
            names = [unit.name for unit in (*known.inventory.removable, *known.inventory.blocks)]
            some = ", ".join(dict.fromkeys(names[:12])) or "none"
            raise UsageError(f"{operation}: no such unit; there are: {some}{', …' if len(names) > 12 else ''}")
        if found[0] in known.inventory.named:
            spans = [f"{low:#x}-{high:#x}" for low, high in map(self.span, found)]
            if len(found) > 1:
                raise UsageError(
                    f"{operation}: {len(found)} resources have that name; name a range: {', '.join(spans[:8])}"
                )
            return case.units_of(found[0].pfns)
        if len(found) > 1 and operation.what.startswith("System RAM"):
            spans = [f"{low:#x}-{high:#x}" for low, high in map(self.span, found)]
            raise UsageError(f"{operation}: {len(found)} ranges have that name; name one: {', '.join(spans[:8])}")
        return found

    @staticmethod
    def _outcome(case: Case, operation: Operation, units: list[Unit]) -> Outcome:
        if operation.verb is Verb.ADD and operation.span is not None:
            return Adding(case, *operation.span).outcome()
        if not units:
            return case.remove_unowned(operation.span)
        if operation.verb is Verb.REMOVE:
            return case.remove(units)
        return case.offline(units[0]) if operation.verb is Verb.OFFLINE else case.online(units[0])

    # What to do instead.

    def _instead(self, operation: Operation, units: list[Unit], known: Known, outcome: Outcome) -> str | None:
        """The order, or the larger unit, that does no harm; what makes it safe in future where there is none."""
        if operation.verb is not Verb.REMOVE or outcome.kind is not Kind.BREAKS or not outcome.breaks:
            return None
        case = Case(self.facts, known, known.machines[0])
        hit = Ranges.pairs(pair for one in outcome.breaks for pair in one.pfns.tuples())
        others = [one for one in known.inventory.owners(hit) if one.name not in {unit.name for unit in units}]
        whole = [
            one for one in known.inventory.ram if any(one.pfns & unit.pfns and one.pfns - unit.pfns for unit in units)
        ]
        for larger in whole:
            if case.remove([larger]).kind is Kind.SAFE:
                low, high = self.span(larger)
                return f"remove all of {larger.name} in one operation (remove:{low:#x}-{high:#x})"
        together = [*units, *others]
        if others and len(together) <= MAX_TOGETHER:
            for order in permutations(together):
                if (plan := self._plan(case, order)) is not None:
                    return plan
        return self._in_future(known, outcome)

    @staticmethod
    def _plan(case: Case, order: Sequence[Unit]) -> str | None:
        """The units removed in this order, RAM offline first: in words, if nothing that is in use is ever lost."""
        machine = case.machine
        for unit in order:
            if unit.kind is UnitKind.DEVICE:
                continue
            for block in case.known.inventory.blocks_in(unit.pfns):
                offline = replace(case, machine=machine).offline(block)
                if offline.kind is not Kind.SAFE or offline.after is None:
                    return None
                machine = offline.after
        left = Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in order)
        for unit in order:
            outcome = replace(case, machine=machine).remove([unit])
            left = left - unit.pfns
            idle = left - machine.online
            if outcome.after is None or any(one.pfns - idle or unit.kind is UnitKind.DEVICE for one in outcome.breaks):
                return None
            machine = outcome.after
        ram = [unit.name for unit in order if unit.kind is not UnitKind.DEVICE]
        first = f"take {' and '.join(ram)} offline first, then " if ram else ""
        return f"{first}remove {', then '.join(unit.name for unit in order)}, with nothing in between"

    @staticmethod
    def _in_future(known: Known, outcome: Outcome) -> str:
        rule, unit = outcome.breaks[0].rule, described_by_a_leaf(known.machines[0])
        if rule == "VMM-02" and known.layout.page_size == PAGE_4K:
            fix = f"a kernel with d4234d131b0a, or ranges aligned to {unit >> 20} MiB, make it safe"
        elif rule == "VMM-02":
            fix = f"ranges aligned to {unit >> 20} MiB make it safe"
        elif rule in {"LIN-03", "CNT-01"}:
            fix = "rodata=full, or adding memory in the units in which it leaves, make it safe"
        else:
            fix = "if it has to go, let nothing use its memory again before"
        return f"no order is safe: leave it as it is until the next reboot; {fix}"
