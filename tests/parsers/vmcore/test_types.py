"""Two providers of types, BTF read here and drgn, on every core: whatever a dump is asked, both answer alike."""

from pathlib import Path

import pytest

from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import extract_facts
from parsers.vmcore.opening import open_dump
from parsers.vmcore.types import Member, Structures
from parsers.vmcoreinfo import parse_vmcoreinfo
from tests.parsers.vmcore.conftest import FIXTURES

CORES = sorted(FIXTURES.glob("*.core.zst"))
PARTLY = {
    "dimm-7.3-self-hosted-online.core.zst",
    "dimm-7.3-software-tags.core.zst",
    "hvo-7.3-kasan-allocated.core.zst",
    "pmem-7.3-64k-removed.core.zst",
    "two-dimms-7.3-80.core.zst",
}
"""Cores with those pages of kallsyms only that ptaudit reads; drgn reads all of them."""


@pytest.fixture(params=CORES, ids=lambda core: core.name)
def raw(request):
    return open_dump(request.param)


def test_btf_answers_as_drgn_does(raw, monkeypatch):
    drgn = pytest.importorskip("drgn", reason="drgn has wheels for x86-64 only")
    from parsers.vmcore.program import DrgnTypes  # noqa: PLC0415 only where drgn is

    asked = set()

    def noting(name):
        real = getattr(Structures, name)

        def note(self, *question):
            asked.add((name, *question))
            return real(self, *question)

        return note

    for name in ("size", "member", "enumerator"):
        monkeypatch.setattr(Structures, name, noting(name))
    extract_facts(raw)
    dump = Dump(raw)
    if dump.types != "BTF":
        pytest.skip("this core was distilled without BTF")
    other = DrgnTypes(dump.prog)
    assert isinstance(dump.prog, drgn.Program)
    answers = [(question, getattr(dump._btf, question[0])(*question[1:])) for question in sorted(asked)]
    assert len([answer for _, answer in answers if answer is not None]) > 50
    for (name, *question), answer in answers:
        assert getattr(other, name)(*question) == answer, (name, question)


def test_symbols_are_those_that_drgn_finds(raw):
    drgn = pytest.importorskip("drgn", reason="drgn has wheels for x86-64 only")
    from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms  # noqa: PLC0415 as above

    if Path(raw.path).name in PARTLY:
        pytest.skip("this core has a part of kallsyms")
    dump = Dump(raw)
    if not dump.has_symbols:
        pytest.skip("VMCOREINFO names no kallsyms before 6.0")
    found = [(one.name, one.address) for one in load_vmlinux_kallsyms(dump.prog)(dump.prog, None, None, False)]
    assert isinstance(dump.prog, drgn.Program)
    first = {}
    for name, address in found:
        first.setdefault(name, set()).add(address)
    assert len(first) > 20_000
    for name in [*sorted(first)[::97], "_stext", "_end", "iomem_resource", "init_uts_ns"]:
        assert dump.symbol(name) in first[name], name
    assert dump.symbol("a_symbol_that_there_is_not") is None


class Fixed:
    """A provider that knows one structure."""

    def __init__(self, source, **members):
        self.source, self.members = source, members

    def size(self, type_name):
        return 24 if type_name == "mem_section" else None

    def member(self, type_name, path):
        return self.members.get(path) if type_name == "mem_section" else None

    def enumerator(self, name):
        return {"ONE": 1}.get(name)


def test_the_first_provider_that_knows_answers_and_vmcoreinfo_last():
    info = parse_vmcoreinfo(b"OSRELEASE=6\nSIZE(page)=64\nOFFSET(page.flags)=0\nOFFSET(mem_section.usage)=99\n", "")
    first = Fixed("debuginfo", section_mem_map=Member(0, 8))
    second = Fixed("BTF", section_mem_map=Member(5, 8), usage=Member(8, 8))
    types = Structures([first, second], info)
    assert (types.source, types.known) == ("debuginfo", True)
    assert types.member("mem_section", "section_mem_map") == Member(0, 8)
    assert types.member("mem_section", "usage") == Member(8, 8)
    assert types.member("page", "flags") == Member(0, None)
    assert (types.size("page"), types.size("zone"), types.enumerator("ONE"), types.enumerator("TWO")) == (
        64,
        None,
        1,
        None,
    )
    alone = Structures([], info)
    assert (alone.source, alone.known) == ("VMCOREINFO", False)
    assert alone.member("mem_section", "usage") == Member(99, None)
