"""The name of the host in a crash dump, and that a small core does not take it along."""

import pytest

from parsers.vmcore.extract import extract_facts
from parsers.vmcore.memory import UNIT
from tests.rules.patched import Machine, Patched


@pytest.fixture(scope="module")
def machine():
    return Machine("pmem-6.12-vuln-before.core.zst")


@pytest.fixture(scope="module")
def named(machine):
    info = machine.raw.vmcoreinfo
    at = info.symbol("init_uts_ns") + info.offset("uts_namespace.name") - machine.addresses.kimage_voffset
    at &= (1 << 64) - 1
    page = bytearray(2 * UNIT)
    names = b"".join(text.ljust(65, b"\0") for text in (b"Linux", b"web1.example.com", b"6.12"))
    page[at % UNIT : at % UNIT + len(names)] = names
    first = at - at % UNIT
    return {first: page[:UNIT], first + UNIT: page[UNIT:]}


def test_the_name_is_read_where_the_page_is_in_the_dump(machine, named):
    assert machine.dump().nodename == ""
    assert machine.dump(pages=named).nodename == "web1.example.com"


def test_the_name_is_not_read_where_it_is_not_wanted(machine, named):
    memory = Patched(machine.raw.memory, {}, named, ())
    assert extract_facts(machine.raw, memory=memory, with_nodename=False).nodename == ""
