"""Which memory blocks the kernel would refuse to take offline because a leaf of its page tables would be split.

The check of arm64 kernels since 7.1 (95a58852b0e5), made on page tables that were read: `rules.model.replay.guards`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.records import dataclass
from parsers.uname import KernelRelease
from rules.finding import Hit, UndecidedError, VaRange
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.guards import offline_refused, split_guard
from rules.model.replay.machine import known_machines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.facts import Facts
    from rules.model.memory.units import Unit
    from rules.model.replay.guards import Refusal
    from rules.model.replay.machine import Known

__all__ = ["Offlining"]

MAX_QUOTED = 6


@dataclass(frozen=True, eq=False)
class Offlining:
    """The refusals, worked out when they are asked for."""

    facts: Facts

    @cached_property
    def refused(self) -> tuple[tuple[Unit, Refusal], ...]:
        """Hot-added blocks that are online and would be refused, with the reason; none before 7.1.

        UndecidedError where the page tables, the blocks or the release are not known.
        """
        release = self.facts.get(KernelRelease)
        if split_guard(release) is False:
            return ()
        for kind in (KernelRelease, LinearMap, Vmemmap, SectionTable):
            if self.facts.get(kind) is None:
                raise UndecidedError(f"which blocks could not go offline is not known: {self._why(kind)}", kind)
        known = known_machines(self.facts)
        if not known.read:
            raise UndecidedError("which blocks could not go offline is not known: PHYS_OFFSET", KernelLayout)
        return tuple(self._found(known))

    def _why(self, kind: type) -> str:
        return self.facts.why_missing(kind)

    def _found(self, known: Known) -> Iterator[tuple[Unit, Refusal]]:
        release, machine = self.facts.get(KernelRelease), known.machines[0]
        for unit in known.inventory.blocks:
            if unit.boot is not False or not unit.pfns & machine.online:
                continue
            would = offline_refused(machine, unit.start_pfn, unit.end_pfn, release)
            if would is not None:
                yield unit, would

    def hits(self, *rules: str, hosted: bool) -> Iterator[Hit]:
        """One hit for all blocks whose refusal these rules find in a log, self-hosted ones or others."""
        found = [(unit, would) for unit, would in self.refused if would.rule in rules and would.hosted is hosted]
        if not found:
            return
        known = known_machines(self.facts)
        units = [unit for unit, _ in found]
        first = found[0][1]
        names = ", ".join(unit.name for unit in units[:MAX_QUOTED]) + (" …" if len(units) > MAX_QUOTED else "")
        yield Hit(
            title=f"{len(units)} memory block(s) cannot go offline",
            message=(
                f"{names}: the kernel would refuse to offline it (-EPERM), the first with "
                f'"{first.message}": {first.reason}. To avoid it, {first.advice}.'
            ),
            claim=known.claim,
            pfns=Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in units),
            vas=tuple(VaRange(*would.leaf, would.region) for _, would in found[:MAX_QUOTED]),
            evidence=tuple(unit.evidence for unit in units[:MAX_QUOTED]),
            key="foreseen",
        )
