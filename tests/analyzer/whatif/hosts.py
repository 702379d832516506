"""Hosts as the model predicts them, written down as a capture so that the rules judge them like any other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from analyzer.audit import audit
from analyzer.sources.read import Request
from analyzer.whatif.answer import Answer
from analyzer.whatif.foresight import what_if
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.ptdump import render
from parsers.ranges import EMPTY, Ranges
from parsers.uname import KernelRelease, parse_uname
from rules.facts import Facts
from rules.finding import Severity
from rules.model.memory.regions import LinearMap, RegionMap, Vmemmap
from rules.model.replay.entries import Entries
from rules.model.replay.forward import Machine
from tests.analyzer.whatif.pairs import FIXTURES

KEPT = ("dmesg", "config", "cmdline", "memmap_on_memory", "vmcoreinfo")
JUDGES = ["VMM-02", "VMM-13", "LIN-03", "CNT-01", "VMM-10", "SEC-04", "LIN-05", "VMM-12"]
"""Rules that find damage to struct pages and to the linear map, and others that should stay quiet."""


@dataclass(frozen=True)
class Host:
    """A boot before anything was added."""

    boot: str
    release: str = ""
    """The release that its kernel behaves like, where its own string lies."""

    @property
    def path(self) -> Path:
        return FIXTURES / "captures" / self.boot / "00-boot"

    @property
    def facts(self) -> Facts:
        facts = _facts(self.path)
        if not self.release:
            return facts
        return replace(facts, known={**facts.known, KernelRelease: parse_uname(self.release.encode(), "uname")})


@cache
def _facts(path: Path) -> Facts:
    return audit(Request((path,)), only=["ENV-01"]).facts


@dataclass
class Story:
    """Operations on a host, one after the other: what was predicted to be lost, and what is there at the end."""

    host: Host
    answers: list[Answer]

    @classmethod
    def of(cls, host: Host, operations: list[str]) -> Story:
        """The operations as far as the state after them is known: nothing follows an oops."""
        answers = what_if(host.facts, operations, in_sequence=True)
        known = next((number for number, one in enumerate(answers) if one.after is None), len(answers))
        return cls(host, answers[:known])

    @property
    def machine(self) -> Machine:
        after = self.answers[-1].after
        assert after is not None
        return after

    def lost(self, *rules: str) -> Ranges:
        """PFNs that critical breaks of ``rules`` name and that are still there."""
        found = EMPTY
        for answer in self.answers:
            for one in answer.breaks:
                if one.rule in rules and one.severity is Severity.CRITICAL:
                    found = found | one.pfns
        return found & self.machine.valid

    def capture(self, folder: Path, device: bool) -> Path:
        """The host at the end, written down."""
        folder.mkdir(parents=True, exist_ok=True)
        facts, machine = self.host.facts, self.machine
        layout = facts.get(KernelLayout)
        assert layout is not None
        (folder / "kernel_page_tables").write_bytes(_dump(facts, machine))
        for name in KEPT:
            if (self.host.path / name).exists():
                text = (self.host.path / name).read_text()
                if self.host.release:
                    text = re.sub(r"Linux version \S+", f"Linux version {self.host.release}", text)
                (folder / name).write_text(text)
        release = self.host.release
        uname = (
            f"Linux (none) {release} #1 SMP aarch64 GNU/Linux\n" if release else (self.host.path / "uname").read_text()
        )
        (folder / "uname").write_text(uname)
        page = layout.page_size
        spans = [(lo, hi) for lo, hi in self.there()]
        (folder / "iomem").write_text(_iomem((self.host.path / "iomem").read_text(), spans, device=device))
        blocks = (self.host.path / "memory_blocks").read_text()
        size = layout.get("block_size") or layout.section_size
        for number in range(0 if device else 1 << 20):
            first = number * size // page
            if machine.valid.contains(np.array([first]))[0] and f"memory{number}/" not in blocks:
                online = machine.online.contains(np.array([first]))[0]
                blocks += f"memory{number}/state:{'online' if online else 'offline'}\n"
            if number * size > 1 << 36:
                break
        (folder / "memory_blocks").write_text(blocks)
        return folder

    def there(self) -> list[tuple[int, int]]:
        """Bytes of what was added and is still there, unit by unit; a unit of which part is gone in its pieces."""
        layout = self.host.facts.get(KernelLayout)
        assert layout is not None
        page = layout.page_size
        found: list[tuple[int, int]] = []
        for answer in self.answers:
            if str(answer.operation.verb) == "add" and answer.operation.span and answer.kind != "refused":
                low, high = answer.operation.span
                kept = Ranges.one(low // page, high // page) & self.machine.valid
                found += [(lo * page, hi * page) for lo, hi in kept.tuples()]
        return sorted(found)


def _dump(facts: Facts, machine: Machine) -> bytes:
    """The captured page tables with the two regions as the machine has them."""
    mapping, layout = facts.get(Mapping), facts.get(KernelLayout)
    assert mapping is not None
    assert layout is not None
    columns = {name: getattr(mapping, name) for name in ("start", "size", "level", "attrs", "memtype")}
    marks = [int(columns["start"][one.row]) if one.row < len(mapping) else None for one in mapping.markers]
    for kind, entries in ((LinearMap, machine.linear), (Vmemmap, machine.vmemmap)):
        region = facts.get(kind)
        assert region is not None
        columns = _replaced(columns, region, entries)
    row = [
        len(columns["start"]) if mark is None else int(np.searchsorted(columns["start"], np.uint64(mark)))
        for mark in marks
    ]
    markers = tuple(replace(one, row=at) for one, at in zip(mapping.markers, row, strict=True))
    made = replace(mapping, **columns, markers=markers, line=None, pa=None, quote=None)
    return render(made, layout.va_bits_actual, layout.page_size)


def _replaced(columns, region: RegionMap, entries: Entries):
    base, size = np.uint64(region.base), np.uint64(region.size - 1)
    inside = (columns["start"] >= base) & (columns["start"] - base <= size)
    made = {
        "start": entries.start.astype(np.uint64) + base,
        "size": (entries.end - entries.start).astype(np.uint64),
        "level": entries.level,
        "attrs": entries.attrs,
        "memtype": entries.memtype,
    }
    joined = {name: np.concatenate((columns[name][~inside], made[name])) for name in columns}
    order = np.argsort(joined["start"], kind="stable")
    return {name: column[order] for name, column in joined.items()}


def _iomem(text: str, spans: list[tuple[int, int]], *, device: bool) -> str:
    """The list with what was added: namespaces inside of persistent memory, or System RAM of its own."""
    lines = text.splitlines()
    added = [f"{lo:08x}-{hi - 1:08x} : " for lo, hi in spans]
    if device:
        at = next(number for number, line in enumerate(lines) if "Persistent Memory" in line) + 1
        return "\n".join([*lines[:at], *(f"  {one}namespace0.{n}" for n, one in enumerate(added)), *lines[at:]]) + "\n"
    for (low, _), one in zip(spans, added, strict=True):
        at = next(
            (n for n, line in enumerate(lines) if line[:1] != " " and int(line.split("-")[0], 16) > low), len(lines)
        )
        lines.insert(at, f"{one}System RAM")
    return "\n".join(lines) + "\n"
