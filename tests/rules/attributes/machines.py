"""Attributes of rows, and what rules about attributes say of a machine that is drawn."""

from __future__ import annotations

import numpy as np

from parsers.arm64 import Attr
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.uname import KernelRelease, parse_uname
from rules.engine import Outcome, run
from rules.facts import Facts
from rules.model.memory.regions import LinearMap
from rules.model.memory.walk import PageWalk
from tests.rules.drawn import GIB, RAM

READ_ONLY = "ro NX SHD AF        BLK UXN    MEM/NORMAL"


DEVICE = "RW NX SHD AF            UXN    DEVICE/nGnRE"


HALF = RAM + GIB // 2


def invalid(flags):
    """The same, marked as not valid."""
    return f"F {flags}"


def outcome(machine, folder, code):
    return machine.verdict(folder, code).outcome


VALID = Attr.PRESENT | Attr.VALID | Attr.AF


PFN = RAM >> 12


def walked(layout, *rows):
    """Facts of rows: address, pages, page that it leads to, level, attributes, type, all alike."""
    start, pages, pfn, level, attrs, memtype, repeated = (list(column) for column in zip(*rows, strict=True))
    mapping = Mapping(
        start=np.array(start, dtype=np.uint64),
        size=np.array([4096 * one for one in pages], dtype=np.uint64),
        level=np.array(level, dtype=np.int8),
        attrs=np.array(attrs, dtype=np.uint16),
        memtype=np.array(memtype, dtype=np.uint8),
        observed_start=np.array([0], dtype=np.uint64),
        observed_last=np.array([2**64 - 1], dtype=np.uint64),
        source="core",
        pa=np.array([4096 * one for one in pfn], dtype=np.uint64),
    )
    walk = PageWalk("core", None, None, np.array(repeated), None, (), lambda _: [])
    known = {Mapping: mapping, KernelLayout: layout, LinearMap: LinearMap.of(mapping, layout), PageWalk: walk}
    return Facts(known)


EFI, HIBERNATION = "CONFIG_ARM64_4K_PAGES=y\nCONFIG_EFI=y\n", "CONFIG_ARM64_4K_PAGES=y\nCONFIG_HIBERNATION=y\n"


PLAIN = "CONFIG_ARM64_4K_PAGES=y\n"


AFFECTED, NOT = Outcome.FIRED, Outcome.NOT_APPLICABLE


def of_release(machine, folder, rule, release):
    """What a rule says about the machine under another kernel; a drawn dump is of 6.12."""
    facts = machine.audit(folder).facts
    known = {**facts.known, KernelRelease: parse_uname(release.encode(), "uname")}
    return run([rule], Facts(known, facts.missing))[0].outcome
