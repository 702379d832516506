"""VMM-01: A PMD block maps struct pages of hot-added ranges that can be removed separately."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.ranges import Ranges
from rules.engine import Outcome
from rules.model.memory.sections import SectionTable
from tests.cases import FIXTURES
from tests.rules.captures import findings
from tests.rules.drawn import BLOCK, MIB, RAM, Drawn
from tests.rules.replays import audited
from tests.rules.traces import BLOCKS, Tracer, played_trace, predicted, trace_verdict
from tests.rules.vmemmap.machines import NVDIMM, addresses, all_pfns, listed, namespaces, vas


def test_blocks_of_devices_in_several_places(tmp_path):
    machine = namespaces((0, 64), (512, 544), (640, 704))
    verdict = machine.verdict(tmp_path, "VMM-01")
    assert all_pfns(verdict) == [[(0x80000, 0x84000)], [(0xA0000, 0xA2000)], [(0xA8000, 0xAC000)]]
    assert vas(verdict) == [addresses((0, 128)), addresses((512, 640)), addresses((640, 768))]
    (wasted,) = machine.verdict(tmp_path, "VMM-03").findings
    assert wasted.hit.pfns.tuples() == [(0x80000, 0x84000), (0xA0000, 0xA2000), (0xA8000, 0xAC000)]
    assert "3584 KiB" in wasted.hit.title  # of three blocks of 2048 KiB, in which 160 of 384 MiB are described


def test_namespaces_in_the_last_boot_section_share_its_struct_pages(tmp_path):
    boot = (RAM, NVDIMM - 64 * MIB)
    base = replace(
        Drawn(),
        linear=((*boot, "PMD", BLOCK),),
        iomem=((*boot, "System RAM"),),
        boot=(boot,),
        pages=((RAM, NVDIMM - 128 * MIB, "PMD", BLOCK),),
    )
    machine = namespaces((-64, -32), (-32, 0), base=base)
    for code in ("VMM-01", "VMM-03"):
        assert machine.verdict(tmp_path, code).outcome is Outcome.PASSED


def test_namespaces_beside_no_map_memory_have_its_section(tmp_path):
    """No-map memory came with a section; the log does not list it here."""
    machine = namespaces((0, 64))
    machine = replace(machine, iomem=(*machine.iomem, (NVDIMM + 64 * MIB, NVDIMM + 128 * MIB, "reserved")))
    for code in ("VMM-01", "VMM-03"):
        assert machine.verdict(tmp_path, code).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (("dax0.0", "dax0.1"), {}, [("high", [0, 64])]),
        (("dax0.0", "dax0.1"), {"mib": (0, 128, 256)}, []),
        (("dax0.0", "dax0.1"), {"mib": (0, 130, 256)}, [("high", [128, 256])]),
        (("namespace0.0", "namespace0.1"), {}, [("medium", [0, 64])]),
        (("dax0.0", "dax0.1"), {"release": "6.14.2"}, []),
        (("dax0.0", "dax0.1"), {"release": "6.12.19"}, [("high", [0, 64])]),
        (("dax0.0", "dax0.1"), {"release": "6.12.20"}, []),
        (("dax0.0", "dax0.1"), {"release": "5.14.0-427.el9.aarch64"}, [("medium", [0, 64])]),
        (("dax0.0", "dax0.1"), {"release": "5.2.1"}, []),
        (("dax0.0", "dax0.1"), {"size": "SIZE(page)=80\n"}, []),
        (("dax0.0", "dax0.1"), {"page_size": 16384}, []),
    ],
)
def test_devices_that_iomem_lists_in_one_section(tmp_path, names, more, expected):
    assert listed(tmp_path, "VMM-01", *names, **more) == expected


def test_memory_that_kmem_took_over_is_not_a_device(tmp_path):
    def sections_listed(*lines):
        (tmp_path / "iomem").write_text(
            "40000000-7fffffff : System RAM\n80000000-bfffffff : Soft Reserved\n" + "".join(lines)
        )
        (tmp_path / "vmcoreinfo").write_text("OSRELEASE=6.12.5\nPAGESIZE=4096\nNUMBER(SECTION_SIZE_BITS)=27\n")
        return audit(Request((tmp_path,))).facts.get(SectionTable).listed_units.label

    dax = "  80200000-afffffff : dax0.0\n"
    assert sections_listed(dax) == ("dax0.0",)
    assert sections_listed(dax, "    88000000-a7ffffff : System RAM (kmem)\n") == ()


def test_devices_in_a_trace_are_left_to_it(tmp_path):
    """The trace of the fixed kernel shows base pages; without it, the release of the fixed one is doubted."""
    capture = FIXTURES / "captures" / "pmem-6.12-fixed" / "01-three-namespaces"
    for name in ("iomem", "config", "trace"):
        (tmp_path / name).write_bytes((capture / name).read_bytes())
    (tmp_path / "uname").write_text("Linux host 6.12.19 #1 SMP aarch64 GNU/Linux\n")
    for trace, outcome in ((True, Outcome.UNDECIDED), (False, Outcome.FIRED)):
        if not trace:
            (tmp_path / "trace").unlink()
        verdicts = audit(Request((tmp_path,))).verdicts
        assert next(one for one in verdicts if one.rule.code == "VMM-01").outcome is outcome


ONE = "VMM-01: one PMD block maps the struct pages of part of a section"
SEVERAL = "VMM-01b: one PMD block maps the struct pages of part of a section"
LESS = "VMM-01c: part of a section is removed that was added whole"


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("+", 0, 64), ("+", 64, 64)], [(SEVERAL, [(0, 128)])]),
        ([("+", 0, 64)], []),  # what the rest of the section is, nobody knows
        ([("+", 0, 32), ("+", 32, 32)], [(SEVERAL, [(0, 64)])]),
        ([("+", 0, 128)], []),
        ([("+", 0, 256)], []),
        ([("+", 0, 128), ("+", 128, 128)], []),
        ([("+", 0, 128), ("-", 0, 128), ("+", 128, 128)], []),
        ([("+", 0, 64), ("-", 0, 64), ("+", 64, 64)], [(ONE, [(64, 128)])]),
        ([("+", 0, 126), ("-", 0, 126), ("+", 126, 2)], [(ONE, [(126, 128)])]),
        ([("+", 0, 64), ("+", 64, 64), ("-", 0, 64)], []),  # the block is gone
        ([("+", 0, 128), ("-", 0, 64)], [(LESS, [(0, 64)])]),
        ([("+", 0, 256), ("-", 0, 128)], []),
    ],
)
def test_blocks_over_parts_of_sections(tmp_path, calls, expected):
    assert predicted(tmp_path, "VMM-01", played_trace(BLOCKS, calls)) == expected


def test_the_last_of_those_who_share_did_it(tmp_path):
    tracer = played_trace(BLOCKS, [("+", 0, 64), ("+", 64, 64)])
    (finding,) = trace_verdict(tmp_path, "VMM-01", tracer.text).findings
    assert "0x84000000" in finding.hit.cause.what
    assert sum("start=0x80000000" in one.text for one in finding.hit.evidence) == 1


def test_block_of_three_namespaces_is_named_as_such() -> None:
    (finding,) = findings("pmem-6.12-vuln/01-three-namespaces", "VMM-01")
    assert finding.sections == (16,)
    assert "VMM-01b" in finding.hit.message
    assert all(name in finding.hit.title for name in ("dax0.0", "dax0.1", "dax0.2"))


def test_removal_of_part_of_a_whole_section_is_predicted_as_vmm_01c(tmp_path):
    tracer = Tracer()
    tracer.add(2 << 30, 128 * MIB)
    tracer.remove((2 << 30) + 64 * MIB, 32 * MIB)
    (tmp_path / "trace").write_text(tracer.text)
    found = [one for one in audited(tmp_path / "trace").findings if one.rule.code == "VMM-01"]
    assert [one.hit.title for one in found if "VMM-01c" in one.hit.title]
    assert tracer.replay().lost == Ranges.pairs([(0x80000, 0x84000), (0x86000, 0x88000)])
