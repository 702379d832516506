"""Attributes of rows, and what rules about attributes say of synthetic machines."""

from __future__ import annotations

from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.uname import KernelRelease, parse_uname
from rules.engine import Outcome, run
from rules.facts import Facts
from rules.model.memory.regions import LinearMap
from rules.model.memory.walk import PageWalk
from tests.rules.drawn import GIB, RAM
from tests.rules.walked import mapping_and_walk

READ_ONLY = "ro NX SHD AF        BLK UXN    MEM/NORMAL"
DEVICE = "RW NX SHD AF            UXN    DEVICE/nGnRE"
HALF = RAM + GIB // 2


def invalid(flags):
    """The same, marked as not valid."""
    return f"F {flags}"


def outcome(machine, folder, code):
    return machine.verdict(folder, code).outcome


def walked(layout, *rows):
    """Facts of rows: address, pages, page that it maps, level, attributes, type, all alike."""
    mapping, walk = mapping_and_walk(rows)
    known = {Mapping: mapping, KernelLayout: layout, LinearMap: LinearMap.of(mapping, layout), PageWalk: walk}
    return Facts(known)


EFI, HIBERNATION = "CONFIG_ARM64_4K_PAGES=y\nCONFIG_EFI=y\n", "CONFIG_ARM64_4K_PAGES=y\nCONFIG_HIBERNATION=y\n"
PLAIN = "CONFIG_ARM64_4K_PAGES=y\n"
AFFECTED, NOT = Outcome.FIRED, Outcome.NOT_APPLICABLE


def of_release(machine, folder, rule, release):
    """What a rule says about the machine under another kernel; a synthetic dump is of 6.12."""
    facts = machine.audit(folder).facts
    known = {**facts.known, KernelRelease: parse_uname(release.encode(), "uname")}
    return run([rule], Facts(known, facts.missing))[0].outcome
