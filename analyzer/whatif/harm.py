"""What an operation damages, read off the page tables before and after it: each damage with the rule that finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analyzer.whatif.answer import Break
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from rules.finding import Evidence, Severity, VaRange
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.walk import PageWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.facts import Facts
    from rules.model.memory.regions import RegionMap
    from rules.model.memory.units import Inventory
    from rules.model.replay.entries import Entries
    from rules.model.replay.forward import Effect, Machine
    from rules.model.replay.machine import Known

__all__ = ["Harm", "missing_linear", "missing_struct_pages"]

MAX_NAMED = 6


def missing_struct_pages(machine: Machine, pfns: Ranges) -> Ranges:
    """PFNs whose struct page is not mapped in full."""
    vmemmap = machine.vmemmap
    return vmemmap.pfns(vmemmap.offsets(pfns) - vmemmap.mapped) & pfns


def missing_linear(machine: Machine, pfns: Ranges) -> Ranges:
    """PFNs that are not in the linear map."""
    linear = machine.linear
    return linear.pfns(linear.offsets(pfns) - linear.mapped) & pfns


@dataclass(frozen=True, eq=False)
class Harm:
    """Looks at effects of operations on one machine."""

    facts: Facts
    known: Known

    @property
    def inventory(self) -> Inventory:
        return self.known.inventory

    def of(self, before: Machine, effect: Effect) -> list[Break]:
        """Everything that the effect damages of what stays."""
        return [
            *self._struct_pages(before, effect),
            *self._linear(before, effect),
            *self._runs(before, effect),
        ]

    def _struct_pages(self, before: Machine, effect: Effect) -> Iterator[Break]:
        after = effect.after
        lost = missing_struct_pages(after, effect.struct_pages_gone & after.valid)
        lost = lost - missing_struct_pages(before, lost)
        for pfns, rule in ((lost - after.early, "VMM-02"), (lost & after.early, "VMM-13")):
            if pfns:
                yield self.lost_struct_pages(before, after, pfns, rule)

    def lost_struct_pages(self, before: Machine, after: Machine, pfns: Ranges, rule: str = "VMM-02") -> Break:
        """Valid memory whose struct pages the operation takes away."""
        owners = self.owners(pfns)
        leaf, evidence = self._leaf(before.vmemmap, after.vmemmap, pfns, Vmemmap)
        oops = "OOP-01" if before.page_size == 4096 else "OOP-02"
        why = (
            f"{leaf} also maps struct pages of {_names(owners)}, and is cleared as a whole: {pfns.total} struct "
            f"pages of memory in use go. {_shows(after.vmemmap, pfns, oops)}"
        )
        return self._critical(rule, after.vmemmap, pfns, why, evidence)

    def _critical(self, rule: str, entries: Entries, pfns: Ranges, why: str, evidence: tuple[Evidence, ...]) -> Break:
        return Break(
            rule=rule,
            severity=Severity.CRITICAL,
            pfns=pfns,
            owners=self.owners(pfns),
            vas=self._vas(entries, pfns),
            why=why,
            evidence=evidence,
        )

    def _linear(self, before: Machine, effect: Effect) -> Iterator[Break]:
        after = effect.after
        lost = missing_linear(after, effect.linear_gone & after.valid)
        lost = lost - missing_linear(before, lost)
        if lost:
            owners = self.owners(lost)
            leaf, evidence = self._leaf(before.linear, after.linear, lost, LinearMap)
            why = (
                f"{leaf} also maps {_names(owners)}, and is cleared as a whole: {lost.total} pages in use have no "
                f"linear mapping. {_shows(after.linear, lost, 'OOP-04')}"
            )
            yield self._critical("LIN-03", after.linear, lost, why, evidence)

    def _runs(self, before: Machine, effect: Effect) -> Iterator[Break]:
        after = effect.after
        torn = after.linear.incomplete_runs() - before.linear.incomplete_runs()
        pfns = after.linear.pfns(torn)
        if pfns:
            _, evidence = self._leaf(before.linear, after.linear, pfns, LinearMap)
            why = (
                f"Single entries of a contiguous run of the linear map are cleared; those of "
                f"{_names(self.owners(pfns))} keep the Contiguous bit. It shows as a TLB conflict abort, or not at "
                "all: the CPU may go on translating through the run."
            )
            yield self._critical("CNT-01", after.linear, pfns, why, evidence)

    def held_in(self, pfns: Ranges) -> tuple[Ranges, Ranges]:
        """(PFNs described by struct pages that are stored in ``pfns``, table pages there); known from a dump only."""
        vmemmap, walk = self.facts.get(Vmemmap), self.facts.get(PageWalk)
        if vmemmap is None or walk is None or self.known.stored is None:
            return EMPTY, EMPTY
        shift = vmemmap.layout.page_shift
        outputs = self.known.stored.cut(np.empty(0, dtype=np.int64), np.concatenate((pfns.start, pfns.end)) << shift)
        inside = pfns.contains(outputs.pa >> shift)
        described = vmemmap.pfns(vmemmap.pages_touched(outputs[inside].offsets))
        tables = (walk.tables.pa >> np.uint64(shift)).astype(np.int64)
        return described, Ranges.of(tables, tables + 1) & pfns

    def owners(self, pfns: Ranges) -> tuple[str, ...]:
        """Whose memory it is, by name."""
        units = self.inventory.owners(pfns)
        named = tuple(unit.name for unit in units)
        rest = pfns - Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in units)
        return (*named, "boot memory") if rest & self.inventory.boot else named or ("memory without an owner",)

    def _leaf(
        self, entries: Entries, after: Entries, pfns: Ranges, kind: type[LinearMap | Vmemmap]
    ) -> tuple[str, tuple[Evidence, ...]]:
        """The leaf that maps the first of ``pfns`` that goes, in words, and where it was read."""
        offsets = entries.offsets(pfns)
        offsets = (offsets - after.mapped) or offsets
        start, end = entries.leaf_at(int(offsets.start[0]))
        va = (entries.base + start) & (2**64 - 1)
        size = end - start
        text = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
        name = "The vmemmap leaf" if kind is Vmemmap else "The linear-map leaf"
        region: RegionMap | None = self.facts.get(kind)
        if not self.known.read or region is None:  # only rows that were read can be quoted
            return f"{name} of {text} that the kernel makes there", ()
        evidence = region.quote_at(offsets)
        walk = self.facts.get(PageWalk)
        if walk is not None:
            evidence = (*evidence, *walk.evidence(va))
        line = next((f" ({one.source.rsplit('/', 1)[-1]}:{one.line})" for one in evidence if one.line), "")
        return f"{name} of {text} at {va:#x}{line}", evidence

    @staticmethod
    def _vas(entries: Entries, pfns: Ranges) -> tuple[VaRange, ...]:
        mask = 2**64 - 1
        return tuple(
            VaRange((entries.base + lo) & mask, (entries.base + hi) & mask, entries.name)
            for lo, hi in entries.offsets(pfns).tuples()[:64]
        )


def _shows(entries: Entries, pfns: Ranges, rule: str) -> str:
    """How the damage will show: the first address that faults, and at which level."""
    offsets = entries.offsets(pfns)
    offset = int(((offsets - entries.mapped) or offsets).start[0])
    row = int(np.searchsorted(entries.end, offset, side="right"))
    level = int(entries.level[row]) if row < entries.start.size and entries.start[row] <= offset else 3
    va = (entries.base + offset) & (2**64 - 1)
    who = "whatever looks at them next (a pfn walker, /proc/kpageflags, the driver that owns them)"
    if rule == "OOP-04":
        who = "the next access to them"
    return f"It shows when {who} faults, from {va:#x} on: level {level} translation fault ({rule})."


def _names(owners: tuple[str, ...]) -> str:
    more = f" and {len(owners) - MAX_NAMED} more" if len(owners) > MAX_NAMED else ""
    return ", ".join(owners[:MAX_NAMED]) + more
