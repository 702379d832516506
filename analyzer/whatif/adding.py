"""What adding a range would do: refused, half-added, oopsing, or fine but bound to break when something leaves.

mm/memory_hotplug.c add_memory_resource() and __add_pages(), mm/memremap.c, arch/arm64/mm/mmu.c arch_add_memory().
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from analyzer.whatif.answer import Break, Kind
from analyzer.whatif.case import PAGE_4K, Case, Outcome
from analyzer.whatif.harm import missing_struct_pages
from parsers.ftrace.functions import Kind as CallKind
from parsers.memmap_on_memory import MemmapOnMemory, MemmapOnMemoryMode
from parsers.ranges import Ranges
from parsers.records import dataclass
from rules.finding import Severity
from rules.model.memory.resources import Resources
from rules.model.memory.units import Unit, UnitKind
from rules.model.replay.extents import PMD_BYTES
from rules.model.replay.forward import Call, Machine, run_forward
from rules.model.replay.guards import linear_range
from rules.model.replay.machine import CODE, SEEN

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Adding", "described_by_a_leaf"]


def described_by_a_leaf(machine: Machine) -> int:
    """Bytes of memory whose struct pages fill one leaf of the vmemmap area: ranges of whole ones share none."""
    page = machine.page_size
    leaf = PMD_BYTES if page == PAGE_4K else page
    size = machine.calibration.struct_page_size
    return math.lcm(leaf, size) // size * page  # 80 bytes do not divide 2 MiB


@dataclass(frozen=True, eq=False)
class Adding:
    """One range, ``[start, end)`` in bytes, added to one machine."""

    case: Case
    start: int
    end: int

    @property
    def machine(self) -> Machine:
        return self.case.machine

    @property
    def pfns(self) -> Ranges:
        page = self.machine.page_size
        return Ranges.one(self.start // page, -(-self.end // page))

    @property
    def device(self) -> bool:
        """Memory inside of what firmware calls persistent or soft-reserved is a device's; other is System RAM."""
        resources = self.case.facts.get(Resources)
        return resources is not None and bool(Ranges.one(self.start, self.end) & resources.containers)

    @property
    def unit(self) -> Unit:
        kind = UnitKind.DEVICE if self.device else UnitKind.RAM
        name = f"{self.start:#x}-{self.end:#x}"
        return Unit(name, kind, int(self.pfns.start[0]), int(self.pfns.end[0]), source="the operation")

    def outcome(self) -> Outcome:
        """The outcome."""
        refused = self._refused()
        if refused is not None:
            return Outcome(kind=Kind.REFUSED, why=refused, after=self.machine, instead=self._aligned())
        there = self.pfns & (self.machine.valid - self.machine.early)
        if there:
            return self._half_added(there)
        unit, ram = self.unit, self.pfns if not self.device else Ranges.one(0, 0)
        effect = run_forward(self.machine, [self._call(unit)], ram=ram)
        after = replace(effect.after, online=self.machine.online)
        unpopulated = missing_struct_pages(after, unit.pfns - after.early)
        if unpopulated:
            return self._oops(after, unpopulated)
        by_release, notes = self._by_release(), (*self._stored_in_itself(), *self._blocks_share_leaves())
        breaks = list(self._later(after, unit))
        if breaks:
            why = f"the add itself works; after it, {breaks[0].why}"
            instead = self._aligned() or "add it where no other range shares its section"
            return Outcome(
                kind=Kind.BREAKS,
                why=why,
                breaks=tuple(breaks),
                after=after,
                instead=instead,
                by_release=by_release,
                notes=notes,
            )
        kind = "device memory" if self.device else "System RAM"
        why = f"as {kind}: every struct page gets mapped, and it can leave again without harm to anything"
        return Outcome(kind=Kind.SAFE, why=why, after=after, by_release=by_release, notes=notes)

    def _by_release(self) -> bool:
        """Whether parts of sections are added, and only the release says what maps their struct pages."""
        behaviour = self.machine.behaviour
        partial = bool(self.pfns - self.pfns.shrink(self.machine.pages_per_section))
        return self.machine.page_size == PAGE_4K and partial and behaviour.source not in {SEEN, CODE}

    def _stored_in_itself(self) -> tuple[str, ...]:
        """What can go wrong where a namespace keeps its struct pages itself, which the operation does not say."""
        parts = self.machine.behaviour.whole_sections_only is False  # blocks for them, too: without d4234d131b0a
        in_blocks = self.pfns if parts else self.pfns.shrink(self.machine.pages_per_section)
        if not self.device or self.machine.page_size != PAGE_4K or not in_blocks:
            return ()
        return (
            "with struct pages in the device itself (ndctl --map=dev) there is no fallback to base pages: if they do "
            "not fit, the add fails with -ENOMEM and its first sections stay valid (VMM-14), which --map=mem avoids",
        )

    def _blocks_share_leaves(self) -> tuple[str, ...]:
        """What holds for the memory blocks of one range where struct pages of a section do not fill whole leaves."""
        block = self.case.known.layout.get("block_size")
        size = self.machine.pages_per_section * self.machine.calibration.struct_page_size
        if self.device or self.machine.page_size != PAGE_4K or not size % PMD_BYTES:
            return ()
        if block is None or self.end - self.start <= block:
            return ()
        return (
            f"its memory blocks share leaves of struct pages (VMM-05, struct page has "
            f"{self.machine.calibration.struct_page_size} bytes): they have to leave together, and kernels since 7.1 "
            "refuse to take a block offline that begins or ends inside a leaf",
        )

    def _call(self, unit: Unit) -> Call:
        return Call(CallKind.ARCH_ADD_MEMORY, unit.start_pfn, unit.end_pfn, altmap=self._hosts_itself())

    def _hosts_itself(self) -> bool:
        parameter, release = self.case.facts.get(MemmapOnMemory), self.case.release
        block = self.case.known.layout.get("block_size")
        if self.device or parameter is None or parameter.mode is MemmapOnMemoryMode.OFF or block is None:
            return False
        if self.machine.page_size != PAGE_4K:
            return False
        every = release is None or release.series >= (6, 8)
        size = block // self.machine.page_size * self.machine.calibration.struct_page_size
        return size % PMD_BYTES == 0 and (every or self.end - self.start == block)

    def _refused(self) -> str | None:
        """Why the kernel would not begin at all."""
        machine, layout = self.machine, self.case.known.layout
        unit = layout.pages_per_subsection * layout.page_size if self.device else layout.get("block_size")
        unit = unit or layout.section_size
        if self.start % unit or self.end % unit:
            what = "subsections of 2 MiB (check_pfn_span())" if self.device else f"memory blocks of {unit >> 20} MiB"
            return f"-EINVAL: the range does not begin and end on {what}"
        low, high = linear_range(machine)
        if self.case.known.read and (self.pfns - Ranges.one(low, high)):
            page = machine.page_size
            return (
                '-E2BIG: "exceeds maximum addressable range" (LIN-06): the linear map holds physical '
                f"{low * page:#x}-{high * page:#x}"
            )
        resources = self.case.facts.get(Resources)
        if resources is not None:
            claims = Ranges.one(self.start, self.end) & (resources.ram | resources.claimed | resources.nomap)
            claims -= self._own_header(resources)
            if claims:
                lo, hi = claims.tuples()[0]
                owners = self.case.known.inventory.owners(resources.pfns(claims, machine.page_size))
                whose = f", {owners[0].name}" if owners else ""
                return f"-EEXIST: {lo:#x}-{hi:#x}{whose} is claimed already. The refusal leaves nothing behind"
        return None

    def _own_header(self, resources: Resources) -> Ranges:
        """The pages before a namespace's data, which its driver claims before it maps the whole namespace.

        drivers/dax/pmem.c __dax_pmem_probe(); the range that device-dax maps begins with them.
        """
        valid, page = self.machine.valid, self.machine.page_size
        own = [
            (one.start, one.end)
            for one in resources.devices
            if one.name.startswith("namespace") and one.start == self.start and one.end < self.end
        ]
        return Ranges.pairs([at for at in own if not Ranges.one(at[0] // page, at[1] // page) & valid])

    def _half_added(self, there: Ranges) -> Outcome:
        """__add_pages() stops at the first section that is valid already; what it added before stays (VMM-14)."""
        machine = self.machine
        size = machine.pages_per_section
        first = int(there.start[0])
        section = max(first // size * size, int(self.pfns.start[0]))
        left = self.pfns & Ranges.one(int(self.pfns.start[0]), section)
        why = (
            f"-EEXIST: PFNs {', '.join(f'{lo:#x}-{hi:#x}' for lo, hi in there.tuples()[:4])} are valid already, left "
            "behind by an add that failed (VMM-14): only a reboot frees them"
        )
        taken = missing_struct_pages(machine, there)
        calls = [Call(CallKind.ARCH_ADD_MEMORY, lo, hi) for lo, hi in left.tuples()]
        after = machine
        if calls:
            after = run_forward(machine, calls).after
        after = self._without_linear(after)
        if not left:
            end = " The refusal leaves nothing else behind" if not taken else ""
            return Outcome(kind=Kind.REFUSED, why=why + "." + end, after=after, instead="another range, or a reboot")
        harm = Break(
            rule="VMM-14", severity=Severity.HIGH, pfns=left, owners=(self.unit.name,),
            why=f"the sections before them are added and not taken back: {left.total} pages are valid and not mapped",
        )  # fmt: skip
        return Outcome(
            kind=Kind.REFUSED,
            why=f"{why}; {harm.why}",
            breaks=(harm,),
            after=after,
            instead="another range, or a reboot",
        )

    def _without_linear(self, after: Machine) -> Machine:
        """The error path of arch_add_memory() unmaps the linear map of the whole range."""
        linear = after.linear.copy()
        for low, high in linear.offsets(self.pfns).tuples():
            linear.clear(low, high)
        return replace(after, linear=linear)

    def _oops(self, after: Machine, unpopulated: Ranges) -> Outcome:
        vmemmap = after.vmemmap
        va = (vmemmap.base + int(vmemmap.offsets(unpopulated).start[0])) & (2**64 - 1)
        why = (
            "vmemmap_populate_basepages() steps by pages from an address inside of one and leaves the last page out: "
            f"{unpopulated.total} pages have no struct page, and the kernel oopses at {va:#x} while it initialises them"
        )
        lost = Break(
            rule="VMM-02", severity=Severity.CRITICAL, pfns=unpopulated, owners=(self.unit.name,), why=why,
        )  # fmt: skip
        return Outcome(kind=Kind.BREAKS, why=why, breaks=(lost,), after=after, instead=self._aligned(), oops=True)

    def _later(self, after: Machine, unit: Unit) -> Iterator[Break]:
        """What the removal of the new range, or of one beside it, would destroy: the hazard that the add makes."""
        known = self.case.known
        grown = replace(known.inventory, devices=(*known.inventory.devices, unit))
        later = replace(self.case, known=replace(known, inventory=grown, read=False), machine=after)
        near = self.pfns.widen(max(known.layout.pages_per_section * 8, (1 << 30) // self.machine.page_size))
        for other in (unit, *(one for one in known.inventory.removable if one.pfns & near)):
            effect = run_forward(after, [Call(CallKind.ARCH_REMOVE_MEMORY, other.start_pfn, other.end_pfn)])
            for one in later.harm.of(after, effect):
                if other is not unit and not one.pfns & unit.pfns:
                    continue  # so it was before
                rule = self._hazard(one.rule)
                yield replace(one, rule=rule, severity=Severity.HIGH, why=f"removing {other.name} does harm: {one.why}")

    def _hazard(self, rule: str) -> str:
        """The rule that finds the state before the damage."""
        if rule != "VMM-02":
            return "LIN-02"
        if self.machine.page_size != PAGE_4K:
            return "VMM-06"
        size = self.machine.pages_per_section * self.machine.calibration.struct_page_size
        whole = not self.pfns - self.pfns.shrink(self.machine.pages_per_section)
        return "VMM-05" if size % PMD_BYTES and whole else "VMM-01"

    def _aligned(self) -> str | None:
        """The nearest range of whole leaves, if the one that was asked for is not."""
        machine, layout = self.machine, self.case.known.layout
        unit = described_by_a_leaf(machine)
        if not self.device:
            unit = max(unit, layout.get("block_size") or layout.section_size)
        start = -(-self.start // unit) * unit
        end = max(start + unit, start + (self.end - self.start) // unit * unit)
        if (start, end) == (self.start, self.end):
            return None
        works = replace(self, start=start, end=end).outcome()
        if works.kind is not Kind.SAFE:
            return f"begin and end on multiples of {unit >> 20} MiB"
        return f"begin and end on multiples of {unit >> 20} MiB: add:{start:#x}-{end:#x}"
