"""Everything known of one address, whichever way it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analyzer.where.address import Space, parse_address
from parsers.errors import UsageError
from tests.analyzer.conftest import CAPTURES

FIXTURES = Path(__file__).parents[2] / "fixtures"

HOLE = "0xfffffdffc2100008"
DUMP = FIXTURES / "vmcore/pmem-6.12-vuln-after.core.zst"


def place(ptaudit, source: Path, address: str) -> dict:
    done = ptaudit("where", source, address, "--format", "json")
    assert done.status == 0
    return json.loads(done.out)


@pytest.mark.parametrize(
    "address",
    [HOLE, f"page:{HOLE}", "FFFFFDFFC2100008".lower(), f"virt:{HOLE}", "0xf3fffdffc2100008", "18446741873647157256"],
)
def test_struct_page_that_was_lost(ptaudit, damaged: Path, address: str) -> None:
    found = place(ptaudit, damaged, address)
    assert found["region"] == "vmemmap"
    assert found["pfn"] == "0x84000"
    assert found["physical"] == "0x84000000"
    assert found["linear"] == "0xffff000084000000"
    assert found["struct_page"] == "0xfffffdffc2100000"
    assert found["field"] == {"offset": "0x8", "name": "lru.next / compound_head / pgmap"}
    assert (found["section"]["number"], found["section"]["subsection"]) == (16, 32)
    assert found["section"]["validity"] == "valid"
    assert found["section"]["removed_with"] == ["namespace0.2+dax0.2"]
    assert [one["name"] for one in found["iomem"]] == ["Persistent Memory", "namespace0.2"]
    by = {one["what"]: one for one in found["mapped_by"]}
    assert by["linear map"]["state"] == "mapped"
    assert by["struct page"]["state"] == "not mapped"
    line = (damaged / "kernel_page_tables").read_text().splitlines()[by["struct page"]["line"] - 1]
    assert line == by["struct page"]["text"]
    assert "VMM-02" in {one["rule"] for one in found["findings"]}
    assert not found["missing"]


@pytest.mark.parametrize("address", ["0x84000123", "phys:0x84000123", "2214592803", "0xffff000084000123"])
def test_page_of_the_hole_by_its_memory(ptaudit, damaged: Path, address: str) -> None:
    found = place(ptaudit, damaged, address)
    assert (found["pfn"], found["page_offset"], found["physical"]) == ("0x84000", "0x123", "0x84000123")
    assert found["linear"] == "0xffff000084000123"


def test_all_ways_to_name_a_page_agree(ptaudit, damaged: Path) -> None:
    same = ("pfn", "physical", "linear", "struct_page", "section", "memory_block", "iomem", "mapped_by", "findings")
    answers = [
        {key: place(ptaudit, damaged, address)[key] for key in same}
        for address in ("pfn:0x84000", "phys:0x84000000", "0xffff000084000000", "page:0xfffffdffc2100000")
    ]
    assert answers[1:] == answers[:-1]


def test_ordinary_memory(ptaudit, sound: Path) -> None:
    found = place(ptaudit, sound, "pfn:0x88000")
    assert found["memory_block"]["number"] == 17
    assert found["memory_block"]["state"] == "online"
    assert [(one["zone"], one["node"]) for one in found["zones"]] == [("Movable", 0)]
    assert found["section"]["kind"] == "RAM"
    assert {one["state"] for one in found["mapped_by"]} == {"mapped"}


def test_other_regions_are_named_after_the_marker(ptaudit, sound: Path) -> None:
    found = place(ptaudit, sound, "0xffff800080000000")
    assert "vmalloc" in found["region"]
    assert found["pfn"] is None
    (only,) = found["mapped_by"]
    assert only["what"] == "this address"


def test_what_is_missing_is_reported(ptaudit, damaged: Path) -> None:
    found = place(ptaudit, damaged / "kernel_page_tables", f"page:{HOLE}")
    assert found["pfn"] is None
    assert found["linear"] == "0xffff000084000000"
    assert any("PHYS_OFFSET" in one and "/proc/iomem" in one for one in found["missing"])


def test_layout_option_fills_the_gap(ptaudit, damaged: Path) -> None:
    done = ptaudit("where", damaged / "kernel_page_tables", HOLE, "--layout", "phys_offset=0", "--format", "json")
    assert json.loads(done.out)["pfn"] == "0x84000"


def test_iomem_alone_still_knows_the_resource(ptaudit, damaged: Path) -> None:
    found = place(ptaudit, damaged / "iomem", "phys:0x84000000")
    assert [one["name"] for one in found["iomem"]] == ["Persistent Memory", "namespace0.2"]
    assert any("page size" in one for one in found["missing"])


def test_address_that_no_memory_can_have_under_kaslr(ptaudit) -> None:
    found = place(ptaudit, CAPTURES / "kaslr-pmem-6.12-4k-a72" / "00-boot", HOLE)
    assert found["physical"] is None
    assert any("no memory can be there" in one for one in found["missing"])


def test_bare_number_says_how_it_was_read(ptaudit, damaged: Path) -> None:
    assert "taken as physical address; force with" in ptaudit("where", damaged, "0x84000000").out
    assert "taken as virtual address; force with" in ptaudit("where", damaged, HOLE).out
    assert "force with" not in ptaudit("where", damaged, "phys:0x84000000").out
    assert "tag 0xf3 stripped" in ptaudit("where", damaged, "0xf3fffdffc2100008").out


@pytest.mark.parametrize("address", [HOLE, "pfn:0x84000", "0xffff800080000000", "0", "phys:0xfffffffffffff"])
def test_answer_fits_a_screen(ptaudit, damaged: Path, address: str) -> None:
    done = ptaudit("where", damaged, address)
    assert done.status == 0
    assert len(done.out.splitlines()) <= 24


@pytest.mark.parametrize(
    "address",
    [
        "", "0x", "zz", "-5", "0x-5", "1.5", "0x1_0", "0x10000000000000000", "9" * 40, "pfn:", "pfn:-1", "page:0",
        "0x1234567890123456", "pfn:0xffffffffffffffff", "phys:0x10000000000000", "virt:0x40000000", "page:pfn:1",
        "page:0xffff000000000000", "0x１",
    ],
)  # fmt: skip
def test_garbage_is_2_and_one_line(ptaudit, damaged: Path, address: str) -> None:
    done = ptaudit("where", damaged, address)
    assert done.status == 2
    assert done.out == ""
    assert "Traceback" not in done.err


def test_every_64_bit_number_is_read_or_refused() -> None:
    for bit in range(64):
        for value in (1 << bit, (1 << bit) - 1, (1 << 64) - (1 << bit)):
            if value >> 64:
                continue
            try:
                read = parse_address(f"{value:#x}")
            except UsageError:
                assert not value >> 55 & 1
                assert value >> 52
            else:
                assert read.space is (Space.VIRTUAL if value >> 55 & 1 else Space.PHYSICAL)


def test_struct_page_needs_a_known_vmemmap(ptaudit, damaged: Path) -> None:
    done = ptaudit("where", damaged / "iomem", f"page:{HOLE}")
    assert done.status == 2
    assert "vmemmap" in done.err


def test_crash_dump_shows_the_walk(ptaudit) -> None:
    found = place(ptaudit, DUMP, HOLE)
    by = {one["what"]: one for one in found["mapped_by"]}
    assert by["linear map"]["output"] == "0x84000000"
    assert any("level 2" in step for step in by["struct page"]["walk"])
    assert found["section"]["precision"] == "exact"


MEMUNMAP_PAGES = "0xffff8000802a4d40"
"""By the kallsyms of the dump."""


def test_symbol_of_a_crash_dump_is_an_address_of_the_kernel_image(ptaudit) -> None:
    found = place(ptaudit, DUMP, "memunmap_pages+0x1a8/0x2a8")
    assert found["value"] == f"{int(MEMUNMAP_PAGES, 16) + 0x1A8:#x}"
    assert found["symbol"] == {"name": "memunmap_pages", "offset": "0x1a8"}
    assert found["region"] == "kernel image"
    assert [one["name"] for one in found["iomem"]] == ["System RAM", "Kernel code"]
    assert found["physical"] == found["mapped_by"][0]["output"]
    by_number = place(ptaudit, DUMP, found["value"])
    differ = {"address", "guessed"}
    assert {key: one for key, one in by_number.items() if key not in differ} == {
        key: one for key, one in found.items() if key not in differ
    }


def test_page_of_the_kernel_image_is_the_page_of_its_linear_address(ptaudit) -> None:
    image = place(ptaudit, DUMP, "mem_section")
    linear = place(ptaudit, DUMP, image["linear"])
    assert [image[key] for key in ("pfn", "physical", "struct_page", "section")] == [
        linear[key] for key in ("pfn", "physical", "struct_page", "section")
    ]


def test_several_places_at_once(ptaudit) -> None:
    done = ptaudit("where", DUMP, "memunmap_pages", HOLE, "pfn:0x84000", "--format", "json")
    assert [one["address"] for one in json.loads(done.out)] == ["memunmap_pages", HOLE, "pfn:0x84000"]
    text = ptaudit("where", DUMP, "memunmap_pages", HOLE).out
    assert [part.split()[0] for part in text.split("\n\n")] == ["memunmap_pages", HOLE]


def test_file_is_a_source_whatever_its_name(ptaudit, damaged: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "capture").symlink_to(damaged)
    (tmp_path / "dmesg").write_bytes((damaged / "dmesg").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert ptaudit("where", "dmesg", "capture", HOLE).status == 0
    assert ptaudit("where", "capture", "dmseg", HOLE).status == 2


@pytest.mark.parametrize(
    ("source", "what", "reason"),
    [
        ("vmcore/pmem-6.12-vuln-after.core.zst", "memunmap_page", "no symbol memunmap_page,"),
        ("vmcore/boot-5.10.core.zst", "memunmap_pages", "--system-map"),
        ("captures/pmem-6.12-vuln/02-one-removed", "memunmap_pages", "a symbol needs a crash dump"),
    ],
)
def test_unknown_symbol_is_2_and_one_line(ptaudit, source: str, what: str, reason: str) -> None:
    done = ptaudit("where", FIXTURES / source, what)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert reason in line


def test_fragment_is_quoted_although_its_kernel_is_not_known(ptaudit, tmp_path: Path) -> None:
    (tmp_path / "kernel_page_tables").write_text(
        "extracted from current output on arm64.\n\n"
        "0xffffffc000000000-0xffffffc000080000  512K PTE  RW NX SHD AF  UXN MEM/NORMAL\n"
    )
    (found,) = place(ptaudit, tmp_path, "0xffffffc000001000")["mapped_by"]
    assert (found["state"], found["line"]) == ("mapped", 3)
    assert "512K PTE" in found["text"]
    assert not place(ptaudit, tmp_path, "0xffffffc000080000")["mapped_by"]
    assert "mapped  (kernel_page_tables:3)" in ptaudit("where", tmp_path, "0xffffffc000001000").out


def test_address_in_a_fragment_of_a_dump_quotes_its_row_and_says_what_decides_the_rest(ptaudit, tmp_path: Path) -> None:
    row = "0xffffffc000000000-0xffffffc000080000  512K PTE  RW NX SHD AF  UXN MEM/NORMAL"
    (tmp_path / "mail").write_text(f"as the dump has it:\n\n{row}\n\nWhat of it?\n")
    text = ptaudit("where", tmp_path / "mail", "0xffffffc000001000").out
    assert " ".join(row.split()) in text
    assert "(mail:3)" in text
    assert "unknown: page size, address bits or release are not known" in text
    assert "--layout page_size=4096 --layout va_bits=48" in text
    assert "kernel_page_tables" not in text


def test_address_outside_of_both_is_named_by_the_release(ptaudit) -> None:
    log = FIXTURES / "field/transports/x_plain.txt"
    text = ptaudit("where", log, "0xffff800080010000").out
    assert "vmalloc (the kernel image is there, too)" in text
