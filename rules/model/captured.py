"""From what was captured to the facts that rules decide on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from typing import TYPE_CHECKING

import numpy as np

from parsers.boot_id import BootId
from parsers.cmdline import CommandLine
from parsers.dmesg import Dmesg
from parsers.errors import LayoutError
from parsers.ftrace.events import Origin
from parsers.hugepages import HugePages
from parsers.image.code import KernelCode
from parsers.iomem import Iomem
from parsers.kconfig import Kconfig
from parsers.kinds import KINDS, is_of_an_earlier_boot
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.meminfo import Meminfo
from parsers.memmap_on_memory import MemmapOnMemory, parse_memmap_on_memory
from parsers.memory_blocks import MemoryBlocks
from parsers.ptdump import PageTableDump
from parsers.ranges import Ranges
from parsers.records import dataclass
from parsers.uname import KernelRelease, parse_uname, with_banner
from parsers.vmcoreinfo import VmcoreInfo
from parsers.zoneinfo import Zoneinfo
from rules.facts import Facts
from rules.model.captured_vmcore import exact_facts, layout_of_dump, unreadable_facts, with_vmcore
from rules.model.layout.builder import LayoutBuilder
from rules.model.layout.from_counters import page_size_of
from rules.model.layout.phys_offset import fit_phys_offset
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import Earlier, ListedSections, Present, PrintedTables
from rules.model.replay.offlining import Offlining
from rules.model.replay.timeline import HotplugLog, Timeline
from rules.model.several_logs import of_all_logs

if TYPE_CHECKING:
    from collections.abc import Mapping as Dict
    from collections.abc import Sequence
    from typing import Any, Self

    from parsers.ftrace.events import Trace
    from parsers.vmcore.extract import VmcoreFacts

__all__ = ["Captured", "build_facts"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Captured:
    """Everything that was captured of one machine at one time; None where it was not."""

    dump: PageTableDump | None = None
    earlier_dump: PageTableDump | None = None
    iomem: Iomem | None = None
    blocks: MemoryBlocks | None = None
    release: KernelRelease | None = None
    config: Kconfig | None = None
    command_line: CommandLine | None = None
    vmcoreinfo: VmcoreInfo | None = None
    zoneinfo: Zoneinfo | None = None
    meminfo: Meminfo | None = None
    hugepages: HugePages | None = None
    dmesg: Dmesg | None = None
    logs: tuple[Dmesg, ...] = ()
    """Other logs beside ``dmesg``, rotated ones and those of crashes: what they report counts too."""
    hotplug_logs: tuple[Trace, ...] = ()
    """What each log says of hotplug in the kernel's own words."""
    memmap_on_memory: MemmapOnMemory | None = None
    boot_id: BootId | None = None
    vmcore: VmcoreFacts | None = None
    earlier_vmcore: VmcoreFacts | None = None
    trace: Trace | None = None
    layout: Dict[str, int] = field(default_factory=dict)
    """Values of `parsers.layout.LAYOUT_KEYS` given by the user."""
    others: Dict[type, Any] = field(default_factory=dict)
    """Every other kind of evidence in `parsers.kinds`, by the type of its fact."""
    past: Dict[str, str] = field(default_factory=dict)
    """By kind of dump, why the last one that was read is not the state, but an earlier one."""

    @classmethod
    def of(cls, parsed: Dict[str, Sequence[Any]], layout: Dict[str, int], past: Dict[str, str] | None = None) -> Self:
        """The evidence of one machine from everything that was read, by kind and in the order of reading.

        The last of several files of a kind is the state, the first page-table or crash dump the state before; so is the
        last dump of a kind in ``past``.
        """
        names = {one.name for one in fields(cls)} - _CHOSEN.keys()
        last: dict[str, Any] = {}
        others: dict[type, Any] = {}
        for kind in KINDS.values():
            if kind.fact is None or kind.name in _CHOSEN or not parsed.get(kind.name):
                continue
            if (name := _FIELD_OF.get(kind.name, kind.name)) in names:
                last[name] = parsed[kind.name][-1]
            else:
                others[kind.fact] = parsed[kind.name][-1]
        chosen = {name: value for choose in _CHOSEN.values() for name, value in choose(parsed).items()}
        for now, earlier in (_STATES[kind] for kind in past or ()):
            chosen |= {now: None, earlier: chosen[now]}
        return cls(**last, **chosen, layout=layout, others=others, past=past or {})


def _dumps(parsed: Dict[str, Sequence[Any]]) -> dict[str, Any]:
    dumps = parsed.get("ptdump", ())
    return {"dump": dumps[-1] if dumps else None, "earlier_dump": dumps[0] if len(dumps) > 1 else None}


def _vmcores(parsed: Dict[str, Sequence[Any]]) -> dict[str, Any]:
    dumps = parsed.get("vmcore", ())
    return {"vmcore": dumps[-1] if dumps else None, "earlier_vmcore": dumps[0] if len(dumps) > 1 else None}


def _blocks(parsed: Dict[str, Sequence[Any]]) -> dict[str, Any]:
    """Memory blocks from sysfs or else from lsmem, with their nodes."""
    found = parsed.get("memory_blocks") or parsed.get("lsmem")
    nodes = parsed.get("memory_nodes")
    blocks = found[-1] if found else None
    return {"blocks": blocks.with_nodes(nodes[-1]) if blocks is not None and nodes else blocks}


def _log(parsed: Dict[str, Sequence[Any]]) -> dict[str, Any]:
    """Of several logs the one of this boot, that has oopses, and its beginning; of two such the last.  All count."""
    logs = parsed.get("dmesg", ())
    main = max(reversed(logs), key=_worth, default=None)
    return {"dmesg": main, "logs": tuple(log for log in logs if log is not main)}


def _worth(log: Dmesg) -> tuple[bool, bool, bool]:
    return not is_of_an_earlier_boot(log.path), bool(log.reports.reports), log.boot.release is not None


def _trace(parsed: Dict[str, Sequence[Any]]) -> dict[str, Any]:
    """The trace with the most events: of equal ones text sorts before trace.dat, and has lines to quote.

    A log has its own words for hotplug, and the fewest.
    """
    traces, logs = parsed.get("trace", ()), parsed.get("log", ())
    best = max(traces, key=len, default=None)
    trace = best if best is not None and (len(best) or not logs) else max(logs, key=len, default=None)
    return {"trace": trace, "hotplug_logs": tuple(logs)}


_CHOSEN: dict[str, Callable[[Dict[str, Sequence[Any]]], dict[str, Any]]] = {
    "ptdump": _dumps,
    "vmcore": _vmcores,
    "memory_blocks": _blocks,
    "dmesg": _log,
    "trace": _trace,
}
"""Kinds of which several files count, or that are chosen among several: what they give to `Captured`."""
_STATES = {"ptdump": ("dump", "earlier_dump"), "vmcore": ("vmcore", "earlier_vmcore")}
"""By kind of dump, the attributes of `Captured` for the state and for the state before."""
_FIELD_OF = {"uname": "release", "cmdline": "command_line"}
"""Attributes of `Captured` that are named otherwise than their kind."""


def build_facts(captured: Captured) -> Facts:
    """All facts that can be had, each missing one with its reason."""
    return _Building(captured).facts()


class _Building:
    """The steps from evidence to facts, in order: layout, mapping, regions, PHYS_OFFSET, sections."""

    def __init__(self, captured: Captured) -> None:
        self.given = captured
        self.captured = captured if captured.vmcore is None else with_vmcore(captured, captured.vmcore)
        self.known: dict[type, Any] = {}
        self.missing: dict[type, str] = {}
        for reason in captured.past.values():
            self.missing |= dict.fromkeys((Mapping, LinearMap, Vmemmap), reason)

    def facts(self) -> Facts:
        captured = self.captured
        self._take(
            captured.boot_id,
            captured.iomem,
            captured.blocks,
            self._release(),
            self._command_line(),
            captured.zoneinfo,
            captured.meminfo,
            captured.hugepages,
            captured.dmesg,
            *captured.others.values(),
        )
        self._code()
        self._config()
        self._memmap_on_memory()
        self._resources()
        builder = self._layout()
        layout = builder.build()
        mapping = captured.vmcore.mapping if captured.vmcore else self._own_mapping(builder, layout)
        if mapping is not None and not layout.knows("phys_offset"):
            layout = self._with_phys_offset(builder, mapping, layout)
        elif mapping is not None and captured.vmcore is None and self._lies_elsewhere(mapping, layout):
            mapping = None
        if captured.dmesg is not None:
            oopses, events = of_all_logs(captured.dmesg, captured.logs, builder, self.known.get(KernelRelease))
            self._take(oopses, oopses.dmesg, oopses.release, events)
            layout = oopses.layout if mapping is None else layout
        self.known[KernelLayout] = layout
        if mapping is not None:
            self.known[Mapping] = mapping
            self._regions(mapping, layout)
        self._sections(layout)
        self._earlier(layout)
        self._timeline(layout)
        if captured.vmcore is not None:
            self._second_witnesses(layout)
            self.missing = unreadable_facts(captured.vmcore) | self.missing
        facts = Facts(self.known, self.missing)
        self.known[Offlining] = Offlining(facts)
        return facts

    def _take(self, *facts: object) -> None:
        self.known.update({type(fact): fact for fact in facts if fact is not None})

    def _config(self) -> None:
        """Rules take a symbol that is not named for one that is not offered, which holds in a whole file only."""
        if self.captured.config is not None and not self.captured.config.complete:
            self.missing[Kconfig] = "the kernel configuration is cut short"
        else:
            self._take(self.captured.config)

    def _command_line(self) -> CommandLine | None:
        """The command line of the file, or of the log where the file is missing or cut short."""
        given, logged = (
            self.captured.command_line,
            self.captured.dmesg.boot.command_line if self.captured.dmesg else None,
        )
        return logged if given is None or (logged is not None and not given.complete) else given

    def _release(self) -> KernelRelease | None:
        given, banner = self.captured.release, self.captured.dmesg.boot.release if self.captured.dmesg else None
        release = banner if given is None else with_banner(given, banner)
        code: KernelCode | None = self.captured.others.get(KernelCode)
        if release is None and code is not None and code.banner is not None:
            return parse_uname(f"{code.banner}\n".encode(), code.path)
        return release

    def _code(self) -> None:
        """The kernel's code, from the dump or else from an image, if it is of the kernel that runs."""
        release: KernelRelease | None = self.known.get(KernelRelease)
        code: KernelCode | None = self.known.get(KernelCode)
        if self.captured.vmcore is not None and self.captured.vmcore.code is not None:
            self.known[KernelCode] = self.captured.vmcore.code
        elif code is not None and release is not None and code.release not in {None, release.raw}:
            del self.known[KernelCode]
            self.missing[KernelCode] = f"the kernel image is of {code.release}, the host runs {release.raw}"

    def _memmap_on_memory(self) -> None:
        """The parameter, which cannot change at run time, from sysfs or else from the command line."""
        parameter, line = self.captured.memmap_on_memory, self.known.get(CommandLine)
        if parameter is None and line is not None:
            value = line.value("memory_hotplug.memmap_on_memory") or "off"
            parameter = parse_memmap_on_memory(value.encode(), line.path)
        self._take(parameter)

    def _resources(self) -> None:
        if self.captured.iomem is None:
            return
        resources = Resources.of(self.captured.iomem)
        if resources is None:
            self.missing[Resources] = "/proc/iomem was read without privilege: all its addresses are zero"
            self.missing[SectionTable] = self.missing[Resources]
        elif self.captured.iomem.cut_short:
            self.missing[Resources] = "/proc/iomem is cut short: lines of it are missing"
        else:
            self.known[Resources] = resources

    def _layout(self) -> LayoutBuilder:
        captured, builder = self.captured, LayoutBuilder()
        release: KernelRelease | None = self.known.get(KernelRelease)
        if captured.vmcore is not None:
            self.known.update(exact_facts(captured.vmcore))
            layout_of_dump(builder, captured.vmcore)
        elif captured.vmcoreinfo is not None:
            builder.vmcoreinfo(captured.vmcoreinfo)
        builder.explicit(captured.layout)
        if captured.config is not None:
            builder.config(captured.config)
        if captured.blocks is not None:
            builder.add("block_size", captured.blocks.block_size_bytes, captured.blocks.path)
        code: KernelCode | None = self.known.get(KernelCode)
        if code is not None and code.path != getattr(captured.vmcore, "path", None):
            builder.add("page_size", code.page_size, code.path)
        if captured.dump is not None:
            builder.dump(captured.dump, release)
        counted = page_size_of(captured.meminfo, captured.zoneinfo, captured.hugepages, self.known.get(CommandLine))
        if counted is not None and "page_size" not in builder.facts:
            builder.add("page_size", *counted)
        if release is not None:
            builder.release(release)
        return builder

    def _own_mapping(self, builder: LayoutBuilder, layout: KernelLayout) -> Mapping | None:
        """The captured dump, if it can be of this kernel."""
        if not builder.foreign:
            return self._mapping(self.captured.dump, layout)
        self.missing[Mapping] = f"the dump is of another kernel: {builder.foreign}"
        self.missing[LinearMap] = self.missing[Vmemmap] = self.missing[Mapping]
        return None

    def _mapping(self, dump: PageTableDump | None, layout: KernelLayout) -> Mapping | None:
        if dump is None:
            return None
        if not layout.knows("page_size", "va_bits"):
            self.missing[Mapping] = "page size and address bits of the dump are not known"
            self.missing[LinearMap] = self.missing[Vmemmap] = self.missing[Mapping]
            return None
        return dump.to_mapping(layout.va_bits_actual, layout.page_size)

    def _with_phys_offset(self, builder: LayoutBuilder, mapping: Mapping, layout: KernelLayout) -> KernelLayout:
        """The layout with PHYS_OFFSET where the dump and /proc/iomem show it, or with what is in doubt."""
        resources: Resources | None = self.known.get(Resources)
        if resources is None or not layout.knows("page_offset", "linear_end"):
            return layout
        fit = fit_phys_offset(LinearMap.of(mapping, layout), resources)
        if len(fit.candidates) == 1:
            builder.infer_phys_offset(fit.candidates[0], fit.reason)
            return builder.build()
        if not fit.candidates:
            builder.notes.append(f"PHYS_OFFSET: {fit.reason}")
        return builder.build(tuple(candidate & (2**64 - 1) for candidate in fit.candidates))

    def _lies_elsewhere(self, mapping: Mapping, layout: KernelLayout) -> bool:
        """Whether the dump fits /proc/iomem under another PHYS_OFFSET than the given one: it is of another boot."""
        resources: Resources | None = self.known.get(Resources)
        if resources is None or not layout.knows("page_offset", "linear_end", "page_size"):
            return False
        linear = LinearMap.of(mapping, layout)
        memory = resources.pfns(resources.ram, layout.page_size)
        if (linear.pfns(linear.pages_mapped) & memory).total * 4 > memory.total:
            return False
        found = [value % 2**64 for value in fit_phys_offset(linear, resources).candidates]
        if not found or layout.phys_offset in found:
            return False
        source = layout.facts["phys_offset"].source
        self.missing[Mapping] = (
            f"the dump is of another boot: it fits PHYS_OFFSET {found[0]:#x}, {source} says {layout.phys_offset:#x}"
        )
        self.missing[LinearMap] = self.missing[Vmemmap] = self.missing[Mapping]
        return True

    def _regions(self, mapping: Mapping, layout: KernelLayout) -> None:
        for region in (LinearMap, Vmemmap):
            try:
                found = region.of(mapping, layout)
            except LayoutError as error:
                self.missing[region] = error.message
                continue
            if found.observed:
                self.known[region] = found
            else:
                self.missing[region] = f"the dump does not reach the {found.name} area"
        self._doubt_guessed_vmemmap(layout)

    def _doubt_guessed_vmemmap(self, layout: KernelLayout) -> None:
        """A vmemmap area that no marker shows, but release or other markers imply, is believed only if it holds the
        memory's struct pages.
        """
        linear, vmemmap = self.known.get(LinearMap), self.known.get(Vmemmap)
        if linear is None or vmemmap is None:
            return
        shown = any(one.name.startswith("vmemmap") and "end" not in one.name for one in linear.mapping.markers)
        if not layout.facts["vmemmap_start"].source.startswith(("release", "markers")[: 1 if shown else 2]):
            return
        if (linear.pages_mapped - vmemmap.pages_mapped).total * 2 > linear.pages_mapped.total:
            del self.known[Vmemmap]
            self.missing[Vmemmap] = (
                "where the vmemmap area lies is not known: the release's layout does not fit the dump"
            )

    def _sections(self, layout: KernelLayout) -> None:
        vmcore, resources = self.captured.vmcore, self.known.get(Resources)
        table: SectionTable | None
        if vmcore is not None and vmcore.sections is not None:
            table = SectionTable.exact(
                layout,
                vmcore.sections,
                resources=resources,
                blocks=self.captured.blocks,
                linear=self.known.get(LinearMap),
                source=vmcore.path,
            )
        else:
            table = SectionTable.derive(
                layout,
                resources=resources,
                blocks=self.captured.blocks,
                linear=self.known.get(LinearMap),
                boot_memory=self._boot_memory(),
                zoneinfo=self.captured.zoneinfo,
            )
        if table is not None:
            self.known[SectionTable] = table
        elif resources is not None and not layout.knows("page_size"):
            self.missing.setdefault(SectionTable, "the page size is not known (--layout page_size=4096 says it)")

    def _boot_memory(self) -> Ranges | None:
        """Byte ranges of memory that the boot log lists, None where it lists none or not all."""
        dmesg = self.captured.dmesg
        if dmesg is None or not dmesg.boot.memory.start.size or dmesg.boot.lost:
            return None  # the list may have lost lines, too
        return Ranges.of(dmesg.boot.memory.start.astype(np.int64), dmesg.boot.memory.last.astype(np.int64) + 1)

    def _earlier(self, layout: KernelLayout) -> None:
        now, then = self.captured.vmcore, self.captured.earlier_vmcore
        if now is None or then is None:
            mapping = self._mapping(self.captured.earlier_dump, layout)
        elif now.addresses != then.addresses or now.release != then.release:
            self.missing[Earlier] = "the earlier crash dump is of another boot"
            return
        else:
            mapping = then.mapping
        if mapping is None or not {LinearMap, Vmemmap} <= self.known.keys():
            return
        linear, vmemmap = LinearMap.of(mapping, layout), Vmemmap.of(mapping, layout)
        if linear.observed and vmemmap.observed:
            self.known[Earlier] = Earlier(linear, vmemmap)

    def _timeline(self, layout: KernelLayout) -> None:
        trace = self.captured.trace
        if trace is None:
            return
        if not len(trace):
            self.missing[Timeline] = "the trace holds no event of memory hotplug"
            return
        if (trace.events.origin == Origin.LOG).all():
            self.known[HotplugLog] = HotplugLog(self.captured.hotplug_logs or (trace,))
            self.missing[Timeline] = "the kernel log reports hotplug in words only; no trace was collected"
            return
        sections: SectionTable | None = self.known.get(SectionTable)
        present = None if sections is None else Present(sections.valid, self.known.get(Vmemmap))
        timeline = Timeline.replay(trace, layout, self.known.get(KernelRelease), self.known.get(Earlier), present)
        if stranger := timeline.calibration.foreign_to(layout):
            self.missing[Timeline] = f"the trace is of another boot: {stranger}"
        else:
            self.known[Timeline] = timeline

    def _second_witnesses(self, layout: KernelLayout) -> None:
        """The text dump and the lists of sysfs beside a crash dump, which is the only source of everything else."""
        given = self.given
        mapping = self._mapping(given.dump, layout)
        if mapping is not None and {LinearMap, Vmemmap} <= self.known.keys():
            linear, vmemmap = LinearMap.of(mapping, layout), Vmemmap.of(mapping, layout)
            self.known[PrintedTables] = PrintedTables(mapping, linear, vmemmap)
        resources = None if given.iomem is None else Resources.of(given.iomem)
        listed = SectionTable.derive(
            layout,
            resources=resources,
            blocks=given.blocks,
            linear=self.known.get(LinearMap),
            boot_memory=self._boot_memory(),
            zoneinfo=given.zoneinfo,
        )
        if listed is not None and given.iomem is not None:
            self.known[ListedSections] = ListedSections(listed)
