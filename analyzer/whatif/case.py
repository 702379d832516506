"""One operation on one machine: refused, or carried out by the model, and what it damages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analyzer.whatif.answer import Break, Kind
from analyzer.whatif.harm import Harm, missing_linear, missing_struct_pages
from parsers.dmesg import Dmesg
from parsers.ftrace.functions import Kind as CallKind
from parsers.kconfig import Kconfig
from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import EMPTY, Ranges
from parsers.records import dataclass
from parsers.uname import KernelRelease
from rules.facts import how_to_collect
from rules.finding import Severity
from rules.model.memory.resources import Resources
from rules.model.memory.units import Unit, UnitKind
from rules.model.replay.extents import PMD_BYTES
from rules.model.replay.forward import Call, run_forward
from rules.model.replay.guards import hot_remove_exists, offline_refused, split_guard

if TYPE_CHECKING:
    from rules.facts import Facts
    from rules.model.replay.forward import Machine
    from rules.model.replay.guards import Refusal
    from rules.model.replay.machine import Known

__all__ = ["PAGE_4K", "Case", "Outcome"]

PAGE_4K = 4096
COUNTS_POISON = (6, 2)
"""The first series whose memory blocks count their poisoned pages: 5033091de814."""
_DMESG = "dmesg from the start of the boot (journalctl -k -b): what memory there was at boot"


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """The outcome of one operation on one machine."""

    kind: Kind
    why: str
    breaks: tuple[Break, ...] = ()
    after: Machine | None = None
    instead: str | None = None
    collect: str | None = None
    notes: tuple[str, ...] = ()
    oops: bool = False
    by_release: bool = False
    """The answer rests on what the kernel release says of its code: a fix may have been backported or reverted."""


@dataclass(frozen=True, eq=False)
class Case:
    """Operations on one of the machines that the evidence allows."""

    facts: Facts
    known: Known
    machine: Machine

    @property
    def release(self) -> KernelRelease | None:
        return self.facts.get(KernelRelease)

    @property
    def harm(self) -> Harm:
        return Harm(self.facts, self.known)

    # Removing.

    def remove(self, units: list[Unit]) -> Outcome:
        """Take units away, one after the other."""
        if (refused := self._no_hot_remove()) is not None:
            return refused
        machine, breaks, notes = self.machine, list[Break](), list[str]()
        for unit in units:
            step = replace(self, machine=machine)
            outcome = step._remove_device(unit) if unit.kind is UnitKind.DEVICE else step._remove_ram(unit)
            breaks += outcome.breaks
            notes += outcome.notes
            if outcome.kind not in {Kind.SAFE, Kind.BREAKS} or outcome.after is None or outcome.oops:
                kind = Kind.BREAKS if breaks else outcome.kind
                return replace(outcome, kind=kind, breaks=tuple(breaks), notes=tuple(dict.fromkeys(notes)))
            machine = outcome.after
        if breaks:
            why = breaks[0].why
            return Outcome(kind=Kind.BREAKS, why=why, breaks=tuple(breaks), after=machine, notes=tuple(notes))
        why = "no leaf of the page tables that goes maps anything that stays"
        return Outcome(kind=Kind.SAFE, why=why, after=machine, notes=tuple(dict.fromkeys(notes)))

    def remove_unowned(self, span: tuple[int, int] | None) -> Outcome:
        """A range of bytes in which no unit is known."""
        page = self.machine.page_size
        pfns = EMPTY if span is None else Ranges.one(span[0] // page, -(-span[1] // page))
        inventory = self.known.inventory
        if pfns & inventory.boot:
            why = "it is memory of the boot, which arm64 never lets go"
            return Outcome(kind=Kind.REFUSED, why=why, after=self.machine)
        if not pfns & self.machine.valid:
            return Outcome(kind=Kind.SAFE, why="nothing of that range has struct pages", after=self.machine)
        if inventory.complete:
            why = "it has no owner that could remove it: a failed add left it behind (VMM-14); only a reboot frees it"
            return Outcome(kind=Kind.REFUSED, why=why, after=self.machine)
        why = "whose memory it is, and what leaves together with it, is not known"
        steps = [how_to_collect(kind)[0] for kind in (Resources, MemoryBlocks) if self.facts.get(kind) is None]
        return Outcome(kind=Kind.UNKNOWN, why=why, collect="; ".join(steps))

    def _no_hot_remove(self) -> Outcome | None:
        release, config = self.release, self.facts.get(Kconfig)
        if not hot_remove_exists(release):
            raw = "" if release is None else release.raw
            why = f"arm64 kernels remove memory since 5.7 (bbd6ec605c0f); this is {raw}"
            return Outcome(kind=Kind.REFUSED, why=why, after=self.machine)
        if config is not None and config.is_enabled("MEMORY_HOTREMOVE") is False:
            return Outcome(kind=Kind.REFUSED, why="CONFIG_MEMORY_HOTREMOVE is not set", after=self.machine)
        return None

    def _remove_device(self, unit: Unit) -> Outcome:
        machine = self.machine
        own = unit.pfns & machine.valid
        if not own:
            why = f"no page of {unit.name} has a struct page: there is nothing to remove"
            return Outcome(kind=Kind.SAFE, why=why, after=machine)
        gone = missing_struct_pages(machine, own)
        if gone:
            return self._own_struct_pages(unit, own, gone)
        described, _ = self.harm.held_in(unit.pfns)
        breaks: list[Break] = []
        after = machine
        if missing_linear(machine, own) != own:
            effect = run_forward(machine, [Call(CallKind.ARCH_REMOVE_MEMORY, unit.start_pfn, unit.end_pfn)])
            breaks, after = self.harm.of(machine, effect), effect.after
        # Without a linear mapping memremap_pages() did not succeed, and nothing will be unmapped: VMM-14.
        if described & after.valid:
            breaks.append(self._stored_there(unit, described & after.valid, "VMM-09"))
        if not breaks and (shared := self._past_neighbours(own)):
            why = (
                f"PFNs {shared.start[0]:#x}-{shared.end[0]:#x} have their struct pages in the same leaf: whether "
                f"something there was removed before, and took those of {unit.name} along, is not known"
            )
            return Outcome(kind=Kind.UNKNOWN, why=why, collect=self.known.collect)
        kind = Kind.BREAKS if breaks else Kind.SAFE
        return Outcome(kind=kind, why="", breaks=tuple(breaks), after=after)

    def _past_neighbours(self, own: Ranges) -> Ranges:
        """Absent memory whose struct pages share a leaf with ``own``, where no page tables were read."""
        machine = self.machine
        if self.known.read or not own - self.known.seen_added:
            return EMPTY
        blocks = machine.page_size == PAGE_4K and not machine.behaviour.whole_sections_only
        leaf = PMD_BYTES if blocks else machine.page_size
        vmemmap = machine.vmemmap
        return vmemmap.pfns(vmemmap.offsets(own).widen(leaf)) - machine.valid - machine.early

    def _own_struct_pages(self, unit: Unit, own: Ranges, gone: Ranges) -> Outcome:
        """memunmap_pages() looks at the struct pages of what it removes, the first one before all."""
        machine = self.machine
        first = bool(gone.start[0] == own.start[0])
        why = (
            f"{gone.total} struct pages of {unit.name} itself are not mapped: memunmap_pages() faults at "
            f"{self._struct_page_va(gone):#x}, and the driver dies while it holds the device's locks"
        )
        return _dies_on(unit, gone, why, after=machine if first else None)

    def _stored_there(self, unit: Unit, pfns: Ranges, rule: str) -> Break:
        return Break(
            rule=rule,
            severity=Severity.CRITICAL,
            pfns=pfns,
            owners=self.harm.owners(pfns),
            why=f"struct pages of {pfns.total} other pages are stored in {unit.name} and stay in use when it is gone",
            evidence=(unit.evidence,),
        )

    def _remove_ram(self, unit: Unit) -> Outcome:
        """Offline every block, then remove_memory(): of all at once, or block by block where they host themselves."""
        machine = self.machine
        own = unit.pfns & machine.valid
        if not own:
            return Outcome(kind=Kind.SAFE, why=f"{unit.name} does not exist", after=machine)
        block = self._block_pages
        if block and (unit.start_pfn % block or unit.end_pfn % block):
            why = f"{unit.name} is not a whole number of memory blocks: check_hotplug_memory_range() returns -EINVAL"
            return Outcome(kind=Kind.REFUSED, why=why, after=machine)
        blocks = self._blocks_of(unit)
        for one in blocks:
            ended = self._of_boot(one) or self._offline_by_tables(one)
            if ended is not None and ended.kind is not Kind.SAFE:
                refused = ended.kind is Kind.REFUSED
                why = f"{one.name} cannot go offline: {ended.why}" if refused else ended.why
                return replace(ended, why=why, after=machine if refused else None)
        notes = tuple(note for one in blocks if one.pfns & machine.online for note in self._movable(one))
        hosted = bool(machine.hosted & unit.pfns)
        pieces = [one.pfns for one in blocks] if hosted else [unit.pfns]
        calls = [Call(CallKind.OFFLINE_PAGES, unit.start_pfn, unit.end_pfn)]
        calls += [
            Call(CallKind.ARCH_REMOVE_MEMORY, int(one.start[0]), int(one.end[0]), altmap=hosted) for one in pieces
        ]
        described, tables = self.harm.held_in(unit.pfns)
        effect = run_forward(machine, calls)
        breaks = self.harm.of(machine, effect)
        if described & effect.after.valid:
            breaks.append(self._stored_there(unit, described & effect.after.valid, "MOM-03"))
        if tables:
            breaks.append(self._stored_there(unit, tables, "TBL-02"))
        kind = Kind.BREAKS if breaks else Kind.SAFE
        return Outcome(kind=kind, why="", breaks=tuple(breaks), after=effect.after, notes=notes)

    @property
    def _block_pages(self) -> int:
        block = self.known.layout.get("block_size")
        return 0 if block is None else block // self.machine.page_size

    def _blocks_of(self, unit: Unit) -> list[Unit]:
        """The memory blocks of a unit; without sysfs, one for each stretch that may be online."""
        return self.known.inventory.blocks_in(unit.pfns) or [replace(unit, kind=UnitKind.BLOCK)]

    # Offline and online.

    def offline(self, unit: Unit) -> Outcome:
        """Take a memory block offline: offline_pages() and the notifiers of arm64."""
        ended = self._no_hot_remove() or self._of_boot(unit) or self._offline_by_tables(unit)
        if ended is not None:
            return ended
        after = run_forward(self.machine, [Call(CallKind.OFFLINE_PAGES, unit.start_pfn, unit.end_pfn)]).after
        why = "page tables do not change when memory goes offline; its pages move elsewhere"
        return Outcome(kind=Kind.SAFE, why=why, after=after, notes=self._movable(unit))

    def _of_boot(self, unit: Unit) -> Outcome | None:
        """Memory of the boot never leaves, and what was there at boot is not always known."""
        if unit.boot:
            why = "it is memory of the boot, which arm64 never lets go (-EPERM, prevent_bootmem_remove_notifier())"
            return Outcome(kind=Kind.REFUSED, why=why, after=self.machine)
        if unit.boot is None:
            why = f"whether {unit.name} was there at boot is not known: boot memory is refused"
            return Outcome(kind=Kind.UNKNOWN, why=why, collect=_DMESG)
        return None

    def _offline_by_tables(self, unit: Unit) -> Outcome | None:
        """What the page tables and what is stored in the block say of taking it offline, None if nothing."""
        machine = self.machine
        online = unit.pfns & machine.online
        if not online:
            return Outcome(kind=Kind.SAFE, why=f"{unit.name} is offline already", after=machine)
        gone = missing_struct_pages(machine, online)
        if gone:
            return self._walks_into(unit, gone, "offline_pages()")
        if (refusal := self._pinned(unit)) is not None:
            return Outcome(kind=Kind.REFUSED, why=refusal, after=machine)
        would = offline_refused(machine, unit.start_pfn, unit.end_pfn, self.release)
        if would is not None and split_guard(self.release) is None:
            why = f"{would.reason}; kernels since 7.1 refuse that, and the release is not known"
            return Outcome(kind=Kind.UNKNOWN, why=why, collect="uname -a")
        return None if would is None else self._split(would)

    def _split(self, refusal: Refusal) -> Outcome:
        said = f'-{refusal.errno}, "{refusal.message}" ({refusal.rule})'
        why = f"{said}: {refusal.reason}. The refusal leaves nothing behind"
        return Outcome(kind=Kind.REFUSED, why=why, after=self.machine, instead=refusal.advice or None)

    def _movable(self, unit: Unit) -> tuple[str, ...]:
        if unit.zones and "Movable" in unit.zones.split()[:1]:
            return ()
        zone = f"zone {unit.zones}" if unit.zones else "its zone is not known"
        return (f"{unit.name} ({zone}) may hold unmovable pages: -EBUSY then, and nothing changes",)

    def _pinned(self, unit: Unit) -> str | None:
        """What a dump shows of pages in a block that cannot move."""
        described, tables = self.harm.held_in(unit.pfns)
        foreign = described - unit.pfns
        what = [
            text for pfns, text in ((foreign, "struct pages of other memory"), (tables, "page-table pages")) if pfns
        ]
        if not what:
            return None
        return f"{' and '.join(what)} are stored in it and cannot move (-EBUSY). The refusal leaves nothing behind"

    def _walks_into(self, unit: Unit, gone: Ranges, who: str) -> Outcome:
        va = self._struct_page_va(gone)
        return _dies_on(unit, gone, f"{gone.total} struct pages of {unit.name} are not mapped: {who} faults at {va:#x}")

    def _struct_page_va(self, pfns: Ranges) -> int:
        """Address of the struct page of the first of ``pfns``."""
        vmemmap = self.machine.vmemmap
        return (vmemmap.base + int(vmemmap.offsets(pfns).start[0])) & (2**64 - 1)

    def online(self, unit: Unit) -> Outcome:
        """Bring a memory block online: online_pages() initialises its struct pages and gives its pages out."""
        machine = self.machine
        if not unit.pfns - machine.online or unit.online:
            return Outcome(kind=Kind.SAFE, why=f"{unit.name} is online already", after=machine)
        gone = missing_struct_pages(machine, unit.pfns)
        if gone:
            return self._walks_into(unit, gone, "online_pages()")
        unmapped = missing_linear(machine, unit.pfns)
        if unmapped:
            why = f"{unmapped.total} pages of {unit.name} have no linear mapping: the first that uses one faults"
            lost = Break(
                rule="LIN-03", severity=Severity.CRITICAL, pfns=unmapped, owners=(unit.name,), why=why,
                evidence=(unit.evidence,),
            )  # fmt: skip
            return Outcome(
                kind=Kind.BREAKS, why=why, breaks=(lost,), instead="leave it offline; remove it, add it again"
            )
        poisoned = self._poisoned(unit)
        if poisoned and (self.release is None or self.release.series >= COUNTS_POISON):
            why = (
                f"PFN {int(poisoned.start[0]):#x} in it was poisoned: the kernel refuses to bring such a block online "
                "(-EHWPOISON, memory_block_online() since 6.2), unless it was removed and added again since"
            )
            return Outcome(kind=Kind.UNKNOWN, why=why, collect="a log and a trace from when the block was added")
        after = run_forward(machine, [Call(CallKind.ONLINE_PAGES, unit.start_pfn, unit.end_pfn)]).after
        why = "its struct pages and its linear mapping are there; page tables do not change"
        return Outcome(kind=Kind.SAFE, why=why, after=after)

    def _poisoned(self, unit: Unit) -> Ranges:
        """The page frames of a block that the log names as poisoned."""
        dmesg = self.facts.get(Dmesg)
        if dmesg is None:
            return EMPTY
        pfn = dmesg.boot.poison.pfn.astype(np.int64)
        return Ranges.of(pfn, pfn + 1) & unit.pfns

    def units_of(self, pfns: Ranges) -> list[Unit]:
        """What a range of PFNs holds: devices, then RAM, each clipped to the range."""
        found: list[Unit] = []
        for unit in self.known.inventory.added_in(pfns):
            found += [replace(unit, start_pfn=lo, end_pfn=hi) for lo, hi in (unit.pfns & pfns).tuples()]
        rest = pfns - Ranges.pairs((unit.start_pfn, unit.end_pfn) for unit in found)
        found += self.known.inventory.blocks_in(rest)
        return sorted(found, key=lambda unit: unit.start_pfn)


def _dies_on(unit: Unit, gone: Ranges, why: str, after: Machine | None = None) -> Outcome:
    """The operation dies on struct pages of the unit itself that are not mapped."""
    lost = Break(
        rule="VMM-02",
        severity=Severity.CRITICAL,
        pfns=gone,
        owners=(unit.name,),
        why=why,
        evidence=(unit.evidence,),
    )
    return Outcome(
        kind=Kind.BREAKS,
        why=why,
        breaks=(lost,),
        after=after,
        oops=True,
        instead=f"leave {unit.name} as it is until the next reboot",
    )
