"""What a crash dump should give and cannot be read is said to be damaged, not to be missing from the evidence."""

import struct

import numpy as np
import pytest

from parsers.dmesg import Dmesg, parse_dmesg
from parsers.iomem import Iomem
from parsers.kconfig import Kconfig
from parsers.vmcore.dump import Dump
from rules.engine import Outcome
from rules.model.captured import Captured, build_facts
from rules.model.memory.resources import Resources
from rules.model.oops import Oopses
from tests.rules.patched import Machine


@pytest.fixture(scope="module")
def machine():
    return Machine("pmem-6.12-vuln-after.core.zst")


@pytest.fixture(scope="module")
def dump(machine):
    return Dump(machine.raw)


def place(dump, va):
    pa, _ = dump.physical(np.array([va], np.uint64))
    return int(pa[0])


def log_ring(dump):
    """Where the index of the newest record lies: far from the oldest, the ring cannot be."""
    return place(dump, struct.unpack("<Q", dump.read(dump.vmcoreinfo.symbol("prb"), 8))[0] + 24)


def reason(machine, damaged, code):
    verdict = machine.audit(damaged)[code]
    assert verdict.outcome is Outcome.UNDECIDED
    return verdict.reason


def test_a_damaged_configuration_is_reported_as_damaged(machine, dump):
    damaged = {place(dump, dump.symbol("kernel_config_data") + 64): 0xFFFF_FFFF_FFFF_FFFF}
    facts = build_facts(Captured(vmcore=machine.dump(damaged)))
    assert facts.get(Kconfig) is None
    assert "cannot be read from the crash dump: the kernel's configuration is damaged" in facts.why_missing(Kconfig)
    assert "the kernel's configuration is damaged" in reason(machine, damaged, "ENV-03")


def test_a_damaged_log_is_reported_as_damaged(machine, dump):
    damaged = {log_ring(dump): 1 << 60}
    facts = build_facts(Captured(vmcore=machine.dump(damaged)))
    for kind in (Dmesg, Oopses):
        assert facts.get(kind) is None
        assert "cannot be read from the crash dump: the log's ring is damaged" in facts.why_missing(kind)
    assert "the log's ring is damaged" in reason(machine, damaged, "OOP-01")


def test_a_damaged_resource_tree_is_reported_as_damaged(machine, dump):
    at = dump.symbol("iomem_resource")
    damaged = {place(dump, at) + dump.offset("resource", "child"): at}
    facts = build_facts(Captured(vmcore=machine.dump(damaged)))
    for kind in (Iomem, Resources):
        assert facts.get(kind) is None
        assert "cannot be read from the crash dump: the resource tree is damaged" in facts.why_missing(kind)
    assert "the resource tree is damaged" in reason(machine, damaged, "LIN-07")


def test_a_file_stands_in_for_what_is_damaged(machine, dump):
    log = parse_dmesg(b"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x414fd0c1]\n", "dmesg")
    facts = build_facts(Captured(vmcore=machine.dump({log_ring(dump): 1 << 60}), dmesg=log))
    assert facts.get(Dmesg) is log


def test_what_is_sound_is_not_reported_as_damaged(machine):
    assert machine.dump().unreadable == {}
