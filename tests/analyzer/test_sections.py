"""The sections view: self-hosted struct pages, node and flags where a crash dump has them, alike sections folded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from analyzer.sections.section_rows import section_rows
from analyzer.sources.read import Request, read_sources
from parsers.vmcore.rows import BlockRows
from rules.facts import Facts
from rules.model.captured import build_facts

VMCORES = Path(__file__).parents[2] / "fixtures" / "vmcore"
SELF_HOSTED = VMCORES / "dimm-6.12-memmap-on-memory-online.core.zst"
DEVICE = VMCORES / "pmem-6.12-vuln-after.core.zst"


def cells(done) -> list[list[str]]:
    return [[cell for cell in line.split("  ") if cell.strip()] for line in done.out.splitlines()]


def test_a_text_capture_has_no_columns_that_nothing_tells(ptaudit, sound: Path) -> None:
    heading, *rows = cells(ptaudit("sections", sound))
    assert [cell.strip() for cell in heading] == [
        *("section", "PFNs", "state", "origin", "kind", "subsections", "struct pages", "linear map")
    ]
    assert [row[0] for row in rows] == ["0", "8", "9", "16-19"]


class TestCrashDumps:
    def test_map_of_a_boot_section_is_shown_as_mem_section_has_it(self, ptaudit) -> None:
        """Section 0 begins with no-map memory: all of its PFNs are valid, half of its subsections are in the map."""
        done = ptaudit("sections", VMCORES / "boot-7.3-52-on-48.core.zst")
        rows = {line.split()[0]: line for line in done.out.splitlines()}
        assert "32/64 0xffffffff00000000" in rows["0"]
        assert "64/64" in rows["8-10"]

    def test_blocks_that_hold_their_own_struct_pages(self, ptaudit) -> None:
        done = ptaudit("sections", SELF_HOSTED)
        (line,) = (line for line in done.out.splitlines() if "self-hosted" in line)
        assert line.split() == [
            *("16-19", "0x80000-0xa0000", "online", "hot-added", "ram", "0", "-", "64/64"),
            *("pmd,", "self-hosted", "pmd"),
        ]

    def test_flags_and_node(self, ptaudit) -> None:
        document = json.loads(ptaudit("sections", DEVICE, "--format", "json").out)
        assert [(row["first"], row["kind"], row["node"], row["flags"]) for row in document["sections"]] == [
            (0, "no-map", "0", "early"),
            (8, "ram", "0", "early"),
            (9, "ram", "0", "early"),
            (16, "device", "", "taint"),
        ]
        assert document["sections"][3]["subsections"] == "48/64 0xffffffff0000ffff"

    def test_output_addresses_decide_where_the_blocks_do_not(self) -> None:
        facts = build_facts(read_sources(Request((SELF_HOSTED,))).captured)
        alone = Facts({kind: fact for kind, fact in facts.known.items() if kind is not BlockRows})
        for known in (facts, alone):
            hosted = [row for row in section_rows(known) if "self-hosted" in row.struct_pages]
            assert [(row.first, row.last) for row in hosted] == [(16, 19)]

    def test_blocks_that_hold_their_own_struct_pages_in_part_are_not_folded(self) -> None:
        facts = build_facts(read_sources(Request((SELF_HOSTED,))).captured)
        rows = facts.known[BlockRows]
        pages = np.where(rows.start_section_nr == 18, 0, rows.nr_vmemmap_pages)
        some = replace(rows, nr_vmemmap_pages=pages)
        seen = [
            (row.first, row.last, row.struct_pages) for row in section_rows(Facts({**facts.known, BlockRows: some}))
        ]
        assert seen[3:] == [(16, 17, "pmd, self-hosted"), (18, 18, "pmd"), (19, 19, "pmd, self-hosted")]
