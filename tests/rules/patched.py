"""Damaged crash dumps: a small core, some of its memory changed, audited like any other dump."""

from __future__ import annotations

import struct
from functools import cached_property
from pathlib import Path

import numpy as np

from parsers.uname import KernelRelease, parse_uname
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.explain import explain
from parsers.vmcore.extract import extract_facts
from parsers.vmcore.memory import UNIT, PhysicalMemory
from parsers.vmcore.opening import open_dump
from rules.engine import Outcome, builtin_rules, run
from rules.model.captured import Captured, build_facts

FIXTURES = Path(__file__).parents[2] / "fixtures" / "vmcore"


class Patched(PhysicalMemory):
    """Another memory with words changed (by physical address), pages added and pages gone."""

    def __init__(self, memory, words, pages, missing, *, zeros_are_read=False):
        self.memory, self.words, self.missing, self.zeros_are_read = memory, words, missing, zeros_are_read
        self.pages = {pa // UNIT: bytes(page) for pa, page in pages.items()}

    @property
    def extents(self):
        return self.memory.extents

    def read_units(self, units):
        data, present = self.memory.read_units(units)
        for unit, page in self.pages.items():
            for row in np.flatnonzero(units == unit):
                data[row], present[row] = np.frombuffer(page, np.uint8), True
        for pa, value in self.words.items():
            for row in np.flatnonzero(units == pa // UNIT):
                data[row, pa % UNIT : pa % UNIT + 8] = np.frombuffer(struct.pack("<Q", value), np.uint8)
        gone = np.isin(units, [pa // UNIT for pa in self.missing])
        data[gone], present[gone] = 0, False
        return data, present


class Machine:
    """A small core that can be damaged: nothing is changed in it, every audit has its own copy."""

    def __init__(self, name):
        self.raw = open_dump(FIXTURES / name)
        self.addresses = AddressMap.from_vmcoreinfo(self.raw.vmcoreinfo)

    def entry(self, va, level):
        """Physical address of the entry of ``level`` that the walk of ``va`` passes."""
        return next(step.entry_pa for step in explain(self.raw.memory, self.addresses, va) if step.level == level)

    def table(self, va, level):
        """Physical address of the table of ``level`` that the walk of ``va`` passes."""
        return next(step.table_pa for step in explain(self.raw.memory, self.addresses, va) if step.level == level)

    def word(self, pa):
        """The word at a physical address."""
        return struct.unpack("<Q", self.raw.memory.read(pa, 8))[0]

    def dump(self, words=(), pages=(), missing=(), *, zeros_are_read=False):
        """Facts of the dump when its memory is changed."""
        changed = Patched(self.raw.memory, dict(words), dict(pages), missing, zeros_are_read=zeros_are_read)
        return extract_facts(self.raw, memory=changed)

    def audit(self, words=(), pages=(), missing=(), release=None, *, zeros_are_read=False, **captured):
        """Verdicts by code; ``release`` stands in for the dump's own."""
        dump = self.dump(words, pages, missing, zeros_are_read=zeros_are_read)
        facts = build_facts(Captured(vmcore=dump, **captured))
        if release is not None:
            facts.known[KernelRelease] = parse_uname(release.encode(), "uname")
        return {verdict.rule.code: verdict for verdict in run(builtin_rules(), facts)}

    @cached_property
    def known(self):
        """Codes that fire before any damage, with the number of their findings."""
        return fired(self.audit())

    def caused(self, words=(), pages=(), missing=(), **captured):
        """Codes that fire by the damage, or fire more often, and the verdicts."""
        verdicts = self.audit(words, pages, missing, **captured)
        assert not [one.reason for one in verdicts.values() if one.outcome is Outcome.ERROR]
        return {code for code, count in fired(verdicts).items() if count != self.known.get(code)}, verdicts


def fired(verdicts):
    return {code: len(one.findings) for code, one in verdicts.items() if one.outcome is Outcome.FIRED}


def table_page(entries, size=UNIT):
    """A page of entries, given by index, the rest empty."""
    words = np.zeros(size // 8, dtype="<u8")
    for index, value in entries.items():
        words[index] = value
    return words.tobytes()
