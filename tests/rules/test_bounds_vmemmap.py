"""Rules about struct pages at the bounds of what they look at, on machines drawn for the purpose."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Claim, Severity
from rules.model.memory.sections import SectionTable
from tests.cases import case, case_file
from tests.rules.drawn import BLOCK, MIB, NORMAL, RAM, Drawn, memory_blocks

FIXTURES = Path(__file__).parents[2] / "fixtures"

NVDIMM = 0x80000000
"""Right behind the RAM, on a section edge."""


def namespaces(*ranges, base=None):
    """A machine with device memory in these ranges (MiB from the edge), their struct pages in blocks."""
    machine = base or Drawn()
    rows = tuple((NVDIMM + lo * MIB, NVDIMM + hi * MIB) for lo, hi in ranges)
    sections = sorted({number for lo, hi in rows for number in range(lo >> 27, (hi - 1 >> 27) + 1)})
    return replace(
        machine,
        linear=(*machine.linear, *((lo, hi, "PMD", BLOCK) for lo, hi in rows)),
        pages=(*machine.pages, *((one << 27, one + 1 << 27, "PMD", BLOCK) for one in sections)),
        iomem=(*machine.iomem, *((lo, hi, f"dax0.{at}") for at, (lo, hi) in enumerate(rows))),
    )


def pfns(verdict):
    return [one.hit.pfns.tuples() for one in verdict.findings]


def vas(verdict):
    return [[(va.start, va.end) for va in one.hit.vas] for one in verdict.findings]


def struct_pages(*ranges):
    """Virtual addresses of the struct pages of physical ranges (MiB from the edge)."""
    machine = Drawn()
    return [tuple(machine.struct_page_of(NVDIMM + at * MIB) for at in pair) for pair in ranges]


# VMM-01, VMM-03: blocks under parts of sections -----------------------------------------------------------------------


def test_blocks_of_devices_in_several_places(tmp_path):
    machine = namespaces((0, 64), (512, 544), (640, 704))
    verdict = machine.verdict(tmp_path, "VMM-01")
    assert pfns(verdict) == [[(0x80000, 0x84000)], [(0xA0000, 0xA2000)], [(0xA8000, 0xAC000)]]
    assert vas(verdict) == [struct_pages((0, 128)), struct_pages((512, 640)), struct_pages((640, 768))]
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
    """No-map memory came with a section; the log does not tell of it here."""
    machine = namespaces((0, 64))
    machine = replace(machine, iomem=(*machine.iomem, (NVDIMM + 64 * MIB, NVDIMM + 128 * MIB, "reserved")))
    for code in ("VMM-01", "VMM-03"):
        assert machine.verdict(tmp_path, code).outcome is Outcome.PASSED


# VMM-02: lost struct pages --------------------------------------------------------------------------------------------


def verdict_of(code, *paths):
    return next(one for one in audit(Request(paths)).verdicts if one.rule.code == code)


def test_a_trace_without_harm_proves_nothing():
    trace = FIXTURES / "captures" / "pmem-6.12-fixed" / "02-one-removed" / "trace"
    assert verdict_of("VMM-02", trace).outcome is Outcome.UNDECIDED


def test_sections_that_lost_their_struct_pages_are_told_one_by_one(tmp_path):
    machine = namespaces((0, 128), (512, 640))
    machine = replace(machine, pages=machine.pages[:1])
    assert pfns(machine.verdict(tmp_path, "VMM-02")) == [[(0x80000, 0x88000)], [(0xA0000, 0xA8000)]]


def test_without_sections_the_linear_map_stands_for_them(tmp_path):
    machine = replace(namespaces((0, 128)), files={"iomem": ""})
    assert machine.verdict(tmp_path, "VMM-02").outcome is Outcome.UNDECIDED
    (finding,) = replace(machine, pages=machine.pages[:1]).verdict(tmp_path, "VMM-02").findings
    assert finding.severity is Severity.HIGH


def test_struct_pages_alone_prove_nothing(tmp_path):
    dump = Drawn().dump()
    files = {"iomem": "", "kernel_page_tables": dump[dump.index("---[ vmemmap start") :]}
    verdict = replace(Drawn(), files=files).verdict(tmp_path, "VMM-02")
    assert verdict.outcome is Outcome.UNDECIDED
    assert "section table" in verdict.reason


def test_an_oops_on_boot_memory_is_no_loss_to_hotplug(tmp_path):
    """The same oops, on a machine that had the memory at boot."""
    boot = case_file("OOP-01/quiet-boot", "dmesg").read_text()
    oops = (FIXTURES / "oops/pmem-6.12-vuln.txt").read_text()
    early = "[    0.000000]   node   0: [mem 0x0000000080000000-0x000000009fffffff]\n"
    for more, outcome in (("", Outcome.FIRED), (early, Outcome.UNDECIDED)):
        lines = boot.splitlines(keepends=True)
        last = max(at for at, line in enumerate(lines) if "node   0: [mem" in line)
        (tmp_path / "dmesg").write_text("".join([*lines[: last + 1], more, *lines[last + 1 :]]) + oops)
        assert verdict_of("VMM-02", tmp_path / "dmesg").outcome is outcome


def test_devices_that_nothing_lists_are_seen_in_the_linear_map(tmp_path):
    """Without iomem; the struct pages of the last block of RAM are gone too, which is told once."""
    machine = namespaces((0, 128))
    files = {"iomem": "", "memory_blocks": memory_blocks(tuple(range(8, 16)))}
    rows = ((RAM, NVDIMM - 128 * MIB, "PMD", BLOCK),)
    machine = replace(machine, pages=rows, files=files, boot=((RAM, NVDIMM - 128 * MIB),))
    verdict = machine.verdict(tmp_path, "VMM-02")
    assert pfns(verdict) == [[(0x78000, 0x80000)], [(0x80000, 0x88000)]]


def test_devices_that_nothing_lists_need_a_whole_linear_map(tmp_path):
    files = {"iomem": "", "memory_blocks": memory_blocks(tuple(range(8, 16)))}
    machine = replace(Drawn(), files=files)
    assert machine.verdict(tmp_path, "VMM-02").outcome is Outcome.PASSED
    dump = machine.dump()
    lines = dump.splitlines(keepends=True)
    for part in (dump[dump.index("---[ vmemmap start") :], "".join(lines[:2] + lines[3:])):
        verdict = replace(machine, files=files | {"kernel_page_tables": part}).verdict(tmp_path, "VMM-02")
        assert verdict.outcome is Outcome.UNDECIDED
        assert verdict.reason.startswith("which device memory has struct pages is not known")


def test_what_a_trace_and_the_blocks_tell_is_no_unlisted_device(tmp_path):
    """Of boot section 8, too, the struct pages are gone; that is VMM-13's."""
    for file in case("VMM-02/fires").iterdir():
        if file.name not in {"iomem", "expected.json"}:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "vmcoreinfo").write_text(replace(Drawn(), release="6.12.117").vmcoreinfo(0))
    (tmp_path / "trace").write_bytes(case_file("WIT-01/quiet-damage", "trace").read_bytes())
    dump = (tmp_path / "kernel_page_tables").read_text()
    first = next(line for line in dump.splitlines() if line.startswith("0xfffffdffc1000000"))
    there = first.replace("c1000000-", "c1200000-").replace(" 4M", " 2M")
    gone = f"0xfffffdffc1000000-0xfffffdffc1200000 {'2M':>13} PMD"
    for changed in (dump, dump.replace(first, f"{gone}\n{there}")):
        (tmp_path / "kernel_page_tables").write_text(changed)
        (finding,) = verdict_of("VMM-02", tmp_path).findings
        assert finding.hit.title == "A removal took the struct pages of valid memory away"


def test_empty_entries_of_a_table_are_lost_where_sections_are_not_read_from_a_dump(tmp_path):
    files = {"memory_blocks": memory_blocks(tuple(range(8, 17)))}
    section = (NVDIMM, NVDIMM + 128 * MIB)
    rows = ((NVDIMM, NVDIMM + 64 * MIB, "PTE", NORMAL), (NVDIMM + 64 * MIB, NVDIMM + 128 * MIB, "PTE", ""))
    machine = replace(
        Drawn(),
        linear=(*Drawn().linear, (*section, "PMD", BLOCK)),
        pages=(*Drawn().pages, *rows),
        iomem=(*Drawn().iomem, (*section, "System RAM")),
        files=files,
    )
    assert pfns(machine.verdict(tmp_path, "VMM-02")) == [[(0x84000, 0x88000)]]


# VMM-04: struct pages of nothing --------------------------------------------------------------------------------------


def test_pages_and_blocks_of_struct_pages_are_kept_by_what_they_describe(tmp_path):
    """A page describes 256 KiB, a block 128 MiB: a namespace of 2 MiB keeps eight pages, or all of a block."""
    machine = namespaces((0, 2), (128, 130))
    rows = ((NVDIMM, NVDIMM + 64 * MIB, "PTE", NORMAL), (NVDIMM + 128 * MIB, NVDIMM + 384 * MIB, "PMD", BLOCK))
    machine = replace(machine, pages=(*Drawn().pages, *rows))
    assert pfns(machine.verdict(tmp_path, "VMM-04")) == [[(0x80200, 0x84000), (0x90000, 0x98000)]]


# VMM-06: one page of struct pages, two owners -------------------------------------------------------------------------


PAGED = case("VMM-06/quiet-tail-of-boot-section")
"""64K pages: sections of 512 MiB, and a page of struct pages for 64 MiB. RAM ends at 0x5e000000."""
LARGE = 16
"""64K pages in a MiB."""


def with_large_pages(folder, *ranges, end=0x5E000000):
    """That machine with these namespaces (MiB from 0x40000000) and the linear map up to the last."""
    shutil.copytree(PAGED, folder)
    base, virtual = 0x40000000, 0xFFFF000000000000
    iomem = [
        line for line in (folder / "iomem").read_text().splitlines(keepends=True) if int(line[:8].strip(), 16) < end
    ]
    iomem += [f"{base + lo * MIB:08x}-{base + hi * MIB - 1:08x} : dax0.{at}\n" for at, (lo, hi) in enumerate(ranges)]
    (folder / "iomem").write_text("".join(iomem))
    lines = []
    for line in (folder / "kernel_page_tables").read_text().splitlines(keepends=True):
        if line.startswith(f"{virtual + end:#x}"):
            at = end
            for lo, hi in ranges:
                lines.append(row(virtual + at, virtual + base + lo * MIB, ""))
                lines.append(row(virtual + base + lo * MIB, virtual + base + hi * MIB, NORMAL))
                at = base + hi * MIB
            lines.append(row(virtual + at, virtual + 0xC0000000, ""))
            lines.append(f"{virtual + 0xC0000000:#x}-0xffff040000000000 {4193280 - 2048:12d}M PMD\n")
        elif not line.startswith(f"{virtual + 0x60000000:#x}"):
            lines.append(line)
    (folder / "kernel_page_tables").write_text("".join(lines))
    return verdict_of("VMM-06", folder)


def row(start, end, what):
    return f"{start:#x}-{end:#x} {end - start >> 10:12d}K PTE       {what}\n" if start < end else ""


def large(*ranges):
    return [(0x4000 + lo * LARGE, 0x4000 + hi * LARGE) for lo, hi in ranges]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (((1024, 1040), (1056, 1072)), [large((1024, 1040), (1056, 1072))]),
        (((1024, 1088), (1088, 1104)), []),
        (((1024, 1072), (1088, 1104)), []),  # what is left of the page has no owner
        (((480, 496), (496, 512)), []),  # in the last boot section, whose struct pages stay
        (((480, 544), (544, 576)), [large((512, 576))]),  # the first begins there, the shared page does not
        (((480, 496), (1024, 1040), (1040, 1104)), [large((1024, 1088))]),
    ],
)
def test_who_shares_a_page_of_struct_pages(tmp_path, ranges, expected):
    assert pfns(with_large_pages(tmp_path / "case", *ranges)) == expected


# VMM-10: page frames that cannot be -----------------------------------------------------------------------------------

TOP = 1 << 52


@pytest.mark.parametrize(("end", "outcome"), [(TOP, Outcome.PASSED), (TOP + 256 * MIB, Outcome.FIRED)])
def test_struct_pages_at_the_end_of_physical_memory(tmp_path, end, outcome):
    """PHYS_OFFSET lies 1 GiB before it."""
    first = TOP - (NVDIMM - RAM)
    machine = Drawn(
        pages=((RAM, end - TOP + NVDIMM, "PMD", BLOCK),),
        iomem=((first, TOP, "System RAM"),),
        boot=((first, TOP),),
        files={"vmcoreinfo": Drawn().vmcoreinfo(first)},
    )
    verdict = machine.verdict(tmp_path, "VMM-10")
    assert verdict.outcome is outcome
    assert vas(verdict) == [struct_pages((0, 256)) for _ in range(outcome is Outcome.FIRED)]


# VMM-12: attributes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags", ["RW NX SHD AF        BLK        MEM/NORMAL", "RW x  SHD AF        BLK UXN    MEM/NORMAL"]
)
def test_struct_pages_that_kernel_or_user_space_may_execute(tmp_path, flags):
    machine = replace(Drawn(), pages=((RAM, NVDIMM, "PMD", flags),))
    (finding,) = machine.verdict(tmp_path, "VMM-12").findings
    assert finding.severity is Severity.HIGH


# VMM-01, VMM-06: what /proc/iomem alone says of devices ---------------------------------------------------------------


def listed(folder, code, *names, release="5.10.100", page_size=4096, size="SIZE(page)=64\n", mib=(0, 32, 64)):
    """The outcome, severities and PFNs in MiB for adjacent ranges behind RAM, without page tables."""
    edges = [NVDIMM + one * MIB for one in mib]
    iomem = (
        (RAM, RAM + 1024 * MIB, "System RAM"),
        (edges[0], NVDIMM + 1024 * MIB, "Persistent Memory"),
        *((lo, hi, f"  {name}") for lo, hi, name in zip(edges[:-1], edges[1:], names, strict=True)),
    )
    lines = "".join(
        f"{'  ' if what.startswith('  ') else ''}{lo:08x}-{hi - 1:08x} : {what.strip()}\n" for lo, hi, what in iomem
    )
    machine = replace(Drawn(), release=release)
    info = f"OSRELEASE={release}\nPAGESIZE={page_size}\nNUMBER(VA_BITS)=48\n{size}NUMBER(SECTION_SIZE_BITS)=27\n"
    files = {"kernel_page_tables": "", "iomem": lines, "vmcoreinfo": info}
    verdict = replace(machine, files=files).verdict(folder, code)
    shift = page_size.bit_length() - 1
    found = [
        (str(one.severity), [((lo << shift) - NVDIMM) // MIB for pair in one.hit.pfns.tuples() for lo in pair])
        for one in verdict.findings
    ]
    assert verdict.outcome is (Outcome.FIRED if found else Outcome.UNDECIDED), verdict.reason
    assert {one.hit.claim for one in verdict.findings} <= {Claim.SUSPECTED, Claim.PROBABLE}
    return found


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


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (("dax0.0", "dax0.1"), {"mib": (0, 18, 36)}, [("high", [16, 20])]),
        (("dax0.0", "dax0.1"), {"mib": (0, 20, 40)}, []),
        (("dax0.0", "dax0.1"), {"mib": (0, 18, 36), "size": ""}, [("medium", [16, 20])]),
        (("dax0.0", "namespace0.1"), {"mib": (0, 18, 36)}, [("medium", [16, 20])]),
        (("dax0.0", "dax0.1"), {"mib": (0, 18, 36), "page_size": 4096}, []),
        (("dax0.0", "dax0.1"), {"mib": (0, 32, 64), "page_size": 65536}, [("high", [0, 64])]),
    ],
)
def test_devices_that_iomem_lists_in_one_page_of_struct_pages(tmp_path, names, more, expected):
    assert listed(tmp_path, "VMM-06", *names, **{"release": "7.3.4", "page_size": 16384, **more}) == expected


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


def test_devices_that_a_trace_tells_of_are_left_to_it(tmp_path):
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
