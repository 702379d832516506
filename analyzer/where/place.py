"""Everything that is known of one address, from every witness that was captured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.where.address import MAX_PHYSICAL_BITS, Address, Space, parse_address
from parsers.address_space import areas_of
from parsers.arm64 import Attr
from parsers.errors import UsageError
from parsers.iomem import Iomem
from parsers.layout import LAYOUT_KEYS, KernelLayout
from parsers.mapping import Mapping
from parsers.memory_blocks import MemoryBlocks
from parsers.uname import KernelRelease
from parsers.zoneinfo import Zoneinfo
from rules.facts import how_to_collect
from rules.model.memory.sections import SectionTable
from rules.model.memory.struct_page import field_at
from rules.model.memory.walk import PageWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report
    from rules.finding import Finding

__all__ = ["SCHEMA", "where"]

_SIZES = "page size and address bits"
"""How the reason begins where page tables were given and their geometry is missing."""
SCHEMA = "ptaudit.where/1"


def where(report: Report, text: str) -> dict[str, Any]:
    """The document `SCHEMA` of an address as a person types it: what is not known is None, and ``missing`` says what
    would show it.

    UsageError for text that is not an address or a known symbol, and for the address of a struct page that lies outside
    of the vmemmap area.
    """
    vmcore = report.sources.captured.vmcore
    symbol = vmcore.symbol if vmcore is not None and vmcore.has_symbols else None
    return _Place(report, parse_address(text, symbol)).document()


class _Place:
    """One address and the page it belongs to: ``index`` counts pages from the start of the linear map."""

    def __init__(self, report: Report, address: Address) -> None:
        self.report, self.address = report, address
        self.layout = report.facts.get(KernelLayout) or KernelLayout({})
        self.missing: dict[str, None] = {}
        self.region = self._region()
        self.page_offset = 0
        self.index = self._index()
        self.pfn = self._pfn()

    def document(self) -> dict[str, Any]:
        layout, pfn = self.layout, self.pfn
        physical = (
            None if pfn is None or not self._knows("page_size") else (pfn << layout.page_shift) + self.page_offset
        )
        if self.address.space is Space.PHYSICAL:
            physical = self.address.value
        touching = [one for one in self.report.findings if self._touches(one)]
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "address": self.address.text,
            "read_as": str(self.address.space),
            "guessed": self.address.guessed,
            "tag": _hex(self.address.tag),
            "value": _hex(self.address.value),
            "symbol": self._symbol(),
            "region": self.region,
            "page_offset": _hex(self.page_offset),
            "pfn": _hex(pfn),
            "physical": _hex(physical),
            "linear": _hex(self._linear_va()),
            "struct_page": _hex(self._struct_page_va()),
            "field": self._field(),
            "section": self._section(),
            "memory_block": self._block(),
            "zones": self._zones(),
            "iomem": [] if physical is None else self._iomem(physical),
            "mapped_by": list(self._mapped_by()),
            "findings": [
                {"rule": one.rule.code, "severity": str(one.severity), "title": one.hit.title, "id": one.fingerprint}
                for one in touching
            ],
            "incidents": [
                {"id": one.id, "severity": str(one.severity), "title": one.title}
                for one in self.report.incidents
                if any(finding in touching for finding in one.findings)
            ],
        }
        document["missing"] = list(self.missing)
        return document

    def _knows(self, *keys: str) -> bool:
        return self.layout.knows(*keys)

    def _lacks(self, kind: type, what: str) -> None:
        why = self.report.facts.missing.get(kind)
        if why and why.startswith(_SIZES):
            self.missing[f"{what}: not known ({why}); say them with --layout page_size=4096 --layout va_bits=48"] = None
            return
        steps = "; ".join(how_to_collect(kind))
        self.missing[f"{what}: not known{f' ({why})' if why else ''}; collect: {steps}"] = None

    # From the address to its page.

    def _is_virtual(self) -> bool:
        return self.address.space in {Space.VIRTUAL, Space.STRUCT_PAGE}

    def _region(self) -> str | None:
        """``linear``, ``vmemmap``, or the marker of the dump that precedes the address; None for no address."""
        if not self._is_virtual():
            return None
        va = self.address.value
        region = self.layout.region_of(va)
        if self.address.space is Space.STRUCT_PAGE and region != "vmemmap":
            bounds = "which is not known"
            if self._knows("vmemmap_start", "vmemmap_end"):
                bounds = f"{self.layout.vmemmap_first:#x}-{self.layout.vmemmap_end:#x}"
            raise UsageError(f"{self.address.text}: not in the vmemmap area, {bounds}")
        if region != "other":
            return region
        if self._symbol() is not None:
            return "kernel image"
        if not self._knows("page_offset", "vmemmap_start"):
            self._lacks(Mapping, "the kernel's memory map")
        return self._marker(va)

    def _symbol(self) -> dict[str, Any] | None:
        """The symbol of the kernel image that a virtual address belongs to."""
        vmcore = self.report.sources.captured.vmcore
        found = None if vmcore is None or not self._is_virtual() else vmcore.symbol_at(self.address.value)
        return None if found is None else {"name": found[0], "offset": _hex(found[1])}

    def _output(self) -> int | None:
        """Where the page tables map the address itself; None where that is not known."""
        mapping = self.report.facts.get(Mapping)
        output = None if mapping is None else self._row(mapping, self.address.value).get("output")
        return None if output is None else int(output, 16)

    def _marker(self, va: int) -> str:
        mapping = self.report.facts.get(Mapping)
        before = None
        if mapping is not None:
            row = int(np.searchsorted(mapping.start, np.uint64(va), side="right"))
            before = next((one for one in reversed(mapping.markers) if one.row < row), None)
        if before is None:
            return self._area(va)
        return f"after '{before.name}'" if before.name.endswith(" end") else before.name.removesuffix(" start")

    def _area(self, va: int) -> str:
        """Modules, vmalloc and the like, by the release; what is not known where the layout is not."""
        release = self.report.facts.get(KernelRelease)
        areas = () if release is None else areas_of(self.layout, release.series, None)
        if not areas:
            return "unknown: page size, address bits or release are not known"
        name = next((one.name for one in areas if one.start <= va < one.end), "a gap: nothing of the kernel is there")
        return {"vmalloc": "vmalloc (the kernel image is there, too)"}.get(name, name)

    def _index(self) -> int | None:
        """Page index of the page that the address, or the struct page there, belongs to."""
        layout, value = self.layout, self.address.value
        if self._is_virtual() and self.region not in {"linear", "vmemmap"}:
            output = self._output()
            if output is None:
                return None
            value = output
        needed = {"vmemmap": "struct_page_size", "linear": "page_offset"}.get(self.region or "", "phys_offset")
        for key in ("page_size", needed):
            if not self._knows(key):
                what = "page size" if key == "page_size" else LAYOUT_KEYS[key].split(":")[0]
                self._lacks(Mapping if key == "page_size" else KernelLayout, what)
                return None
        if self.region == "vmemmap":
            return (value - layout.vmemmap_start) // layout.struct_page_size
        if self.address.space is Space.PFN:
            return value - layout.start_pfn
        self.page_offset = value & (layout.page_size - 1)
        if self.region == "linear":
            return (value - layout.page_offset) >> layout.page_shift
        return (value >> layout.page_shift) - layout.start_pfn

    def _pfn(self) -> int | None:
        if self.address.space is Space.PFN:
            return self.address.value
        if self.address.space is Space.PHYSICAL:
            return self.address.value >> self.layout.page_shift if self._knows("page_size") else None
        if self.index is None:
            return None
        if not self._knows("phys_offset"):
            self._lacks(KernelLayout, "PHYS_OFFSET")
            return None
        pfn = self.index + self.layout.start_pfn
        if 0 <= pfn < 1 << (MAX_PHYSICAL_BITS - self.layout.page_shift):
            return pfn
        self.missing[f"no memory can be there: with PHYS_OFFSET {self.layout.phys_offset:#x} it has no PFN"] = None
        return None

    def _linear_va(self) -> int | None:
        if self.index is None or not self._knows("page_offset", "linear_end"):
            return None
        va = self.layout.page_offset + (self.index << self.layout.page_shift) + self.page_offset
        return va if self.layout.linear_start <= va < self.layout.linear_end else None

    def _struct_page_va(self) -> int | None:
        if self.index is None or not self._knows("vmemmap_start", "vmemmap_end", "struct_page_size"):
            return None
        va = self.layout.vmemmap_start + self.index * self.layout.struct_page_size
        return va if self.layout.vmemmap_first <= va < self.layout.vmemmap_end else None

    def _field(self) -> dict[str, Any] | None:
        """Where in the struct page an address of the vmemmap area points."""
        base = self._struct_page_va()
        if self.region != "vmemmap" or base is None:
            return None
        offset = self.address.value - base
        release = self.report.facts.get(KernelRelease)
        name = field_at(offset, self.layout.struct_page_size, release.series if release else None)
        return {"offset": _hex(offset), "name": name}

    # What the witnesses say of the page.

    def _section(self) -> dict[str, Any] | None:
        sections = self.report.facts.get(SectionTable)
        if self.pfn is None:
            return None
        if sections is None:
            self._lacks(SectionTable, "the section table")
            return None
        unit = self.layout.pages_per_subsection
        number, inside = divmod(self.pfn, sections.pages_per_section)
        validities = {"valid": sections.valid, "not excluded": sections.possible}
        units = sections.units
        owners = np.flatnonzero((units.start_pfn <= self.pfn) & (self.pfn < units.end_pfn)).tolist()
        kinds = {"RAM": sections.ram, "no-map": sections.nomap, "device memory": sections.device}
        origins = {"boot": sections.early, "hot-added": sections.hotadded}
        return {
            "number": number,
            "subsection": inside // unit,
            "subsections": sections.pages_per_section // unit,
            "validity": next((name for name, pfns in validities.items() if pfns.contains(self.pfn)), "not valid"),
            "precision": str(sections.precision),
            "kind": next((name for name, pfns in kinds.items() if pfns.contains(self.pfn)), None),
            "origin": next((name for name, pfns in origins.items() if pfns.contains(self.pfn)), None),
            "removed_with": [units.label[row] for row in owners],
        }

    def _block(self) -> dict[str, Any] | None:
        blocks = self.report.facts.get(MemoryBlocks)
        if self.pfn is None:
            return None
        if blocks is None or not blocks.block_size_bytes:
            self._lacks(MemoryBlocks, "the memory block")
            return None
        number = (self.pfn << self.layout.page_shift) // blocks.block_size_bytes
        found = np.flatnonzero(blocks.block == number)
        if not found.size:
            return {"number": number, "exists": False}
        row = int(found[0])
        return {
            "number": number,
            "exists": True,
            "state": blocks.state_word[row] or None,
            "node": int(blocks.node[row]) if blocks.node[row] >= 0 else None,
            "valid_zones": blocks.valid_zones[row] or None,
            **_place(blocks.path, None if blocks.line is None else int(blocks.line[row])),
        }

    def _zones(self) -> list[dict[str, Any]]:
        """Zones that span the page: more than one where zones interleave."""
        zones = self.report.facts.get(Zoneinfo)
        if zones is None or self.pfn is None:
            return []
        spans = (zones.start_pfn >= 0) & (zones.start_pfn <= self.pfn) & (self.pfn < zones.start_pfn + zones.spanned)
        return [
            {"zone": zones.zone[row], "node": int(zones.node[row]), **_place(zones.path, int(zones.line[row]))}
            for row in np.flatnonzero(spans).tolist()
        ]

    def _iomem(self, physical: int) -> list[dict[str, Any]]:
        """The chain of resources, outermost first."""
        iomem = self.report.facts.get(Iomem)
        if iomem is None or not iomem.privileged:
            self._lacks(Iomem, "the resource")
            return []
        at = np.uint64(physical)
        rows = np.flatnonzero((iomem.start <= at) & (at <= iomem.last)).tolist()
        return [
            {
                "name": iomem.name[row],
                "start": _hex(int(iomem.start[row])),
                "last": _hex(int(iomem.last[row])),
                **_place(iomem.path, int(iomem.line[row])),
            }
            for row in rows
        ]

    def _mapped_by(self) -> Iterator[dict[str, Any]]:
        """What the page tables say of the address itself, of its linear address and of its struct page."""
        places = {"linear map": self._linear_va(), "struct page": self._struct_page_va()}
        if self.region not in {None, "linear", "vmemmap"}:
            places = {"this address": self.address.value}
        mapping = self.report.facts.get(Mapping)
        if mapping is None:
            yield from self._in_fragment()
            return
        for what, va in places.items():
            if va is not None:
                yield {"what": what, "va": _hex(va), **self._row(mapping, va)}

    def _in_fragment(self) -> Iterator[dict[str, Any]]:
        """The row that holds a virtual address, of rows whose kernel's page size and address bits are not known."""
        dump, at = self.report.sources.captured.dump, self.address.value
        row = -1 if dump is None else int(np.searchsorted(dump.start, np.uint64(at), side="right")) - 1
        inside = dump is not None and row >= 0 and at - int(dump.start[row]) < int(dump.size[row])
        if dump is None or not inside or not self._is_virtual():
            self._lacks(Mapping, "the page tables")
            return
        attrs = int(dump.attrs[row])
        state = "mapped" if attrs & Attr.VALID else "entry that does not translate" if attrs else "not mapped"
        yield {
            "what": "this address",
            "va": _hex(at),
            "state": state,
            "level": None,
            "output": None,
            "text": dump.quote(row).strip(),
            **_place(dump.path, int(dump.line[row])),
            "walk": [],
        }

    def _row(self, mapping: Mapping, va: int) -> dict[str, Any]:
        at = np.uint64(va)
        row = int(np.searchsorted(mapping.start, at, side="right")) - 1
        walk = self.report.facts.get(PageWalk)
        steps = [one.text for one in walk.evidence(va)] if walk is not None else []
        if row < 0 or at > mapping.last[row]:
            seen = bool(np.any((mapping.observed_start <= at) & (at <= mapping.observed_last)))
            return {"state": "not mapped" if seen else "not covered by the page-table dump", "walk": steps}
        state = "not mapped"
        if mapping.present[row]:
            state = "mapped" if mapping.valid[row] else "entry that does not translate"
        output = None
        if mapping.pa is not None and state == "mapped":
            output = int(mapping.pa[row]) + va - int(mapping.start[row])
        return {
            "state": state,
            "level": int(mapping.level[row]),
            "output": _hex(output),
            "text": mapping.describe(row),
            **_place(mapping.source, None if mapping.line is None else int(mapping.line[row])),
            "walk": steps,
        }

    def _touches(self, finding: Finding) -> bool:
        if self.pfn is not None and finding.hit.pfns.contains(self.pfn):
            return True
        own = (self._linear_va(), self._struct_page_va(), self.address.value if self._is_virtual() else None)
        return any(va is not None and one.start <= va < one.end for va in own for one in finding.hit.vas)


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _place(source: str, line: int | None) -> dict[str, Any]:
    return {"source": source, "line": line or None}
