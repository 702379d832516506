"""Pages of zeros in a dump: an empty table, or memory that was left out of it?"""

from dataclasses import replace

import numpy as np
import pytest

from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import extract, extract_facts
from parsers.vmcore.faults import FAULTS, Fault
from parsers.vmcore.opening import open_dump
from parsers.vmcore.rows import BlockRows, SectionRows
from rules.engine import Outcome, builtin_rules, run
from rules.finding import Severity
from rules.model.captured import Captured, build_facts
from rules.model.memory.sections import SectionTable
from tests.parsers.vmcore.conftest import AFTER, FIXTURES
from tests.parsers.vmcore.cores import PatchedMemory, kdump

VMEMMAP, LINEAR = 0xFFFFFDFFC0000000, 0xFFFF000000000000
SECTION_16 = {"struct pages": VMEMMAP + (16 << 21), "linear map": LINEAR + (16 << 27) - 0x40000000}
"""Where section 16, two namespaces, has its struct pages and its memory."""
CORES = ["pmem-6.12-vuln-before", "pmem-6.12-64k-namespaces", "hvo-6.1-allocated", "dimm-6.12-mixed-online"]


def zeroed(raw, tables):
    """The dump with pages of zeros for some table pages."""
    page = int(raw.vmcoreinfo.page_size)
    return zeroed_units(raw, [pa + at for pa in tables for at in range(0, page, 4096)])


def zeroed_units(raw, units):
    """The dump with zeros for some page frames of 4096 bytes."""
    return replace(raw, memory=PatchedMemory(raw.memory, {pa: bytes(4096) for pa in units}))


def observes(facts, va):
    rows = zip(facts.mapping.observed_start.tolist(), facts.mapping.observed_last.tolist(), strict=True)
    return any(start <= va <= last for start, last in rows)


def severe(facts):
    verdicts = run(builtin_rules(), build_facts(Captured(vmcore=facts)))
    assert not [one for one in verdicts if one.outcome is Outcome.ERROR]
    return {one.rule.code for one in verdicts for found in one.findings if found.severity >= Severity.HIGH}


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", ["elf", "kdump"])
def test_tables_of_zeros_are_unknown_at_every_level_and_no_damage(tmp_path, core, level, kind):
    raw = open_dump(FIXTURES / f"{core}.core.zst")
    whole = extract_facts(raw)
    tables = whole.mapping.tables
    of_memory = whole.addresses.of_memory(tables.va, tables.va)
    chosen = tables.pa[of_memory & (tables.level == level)] if level else tables.pa[tables.level == level]
    if not chosen.size:
        pytest.skip("no table of this level")
    less = zeroed(raw, chosen.tolist())
    if kind == "kdump":
        starts, ends = (bound // np.uint64(4096) for bound in raw.memory.extents)
        units = np.concatenate([np.arange(lo, hi, dtype=np.uint64) for lo, hi in zip(starts, ends, strict=True)])
        page = int(raw.vmcoreinfo.page_size)
        (tmp_path / "dump").write_bytes(
            kdump(less.memory, units, raw.vmcoreinfo_bytes, machine="aarch64", block_size=page)
        )
        less = open_dump(tmp_path / "dump")
    facts = extract_facts(less)
    assert not observes(facts, int(tables.va[of_memory & (tables.level == max(level, 1))][0]))
    assert not np.isin(chosen, facts.mapping.tables.pa).any()
    assert severe(facts) <= severe(whole)


@pytest.mark.parametrize("place", SECTION_16.values(), ids=SECTION_16.keys())
def test_a_table_of_zeros_for_memory_that_has_a_section_was_left_out(raw_after, after, place):
    """The entry that was torn out leads to a page of zeros: nothing says whether that is a table of the kernel's."""
    entry = after.explain(place)[-1].entry_pa
    empty = int(raw_after.memory.extents[0][0])
    patches = {entry: (empty | 3).to_bytes(8, "little"), empty: bytes(4096)}
    facts = extract_facts(replace(raw_after, memory=PatchedMemory(raw_after.memory, patches)))
    assert not observes(facts, place)
    blank = facts.walk.faults.kind == FAULTS.index(Fault.BLANK)
    assert empty in facts.walk.faults.table_pa[blank].tolist()


def test_no_table_of_zeros_is_believed_beside_one_that_was_left_out(raw_after, after):
    """Tables of vmalloc are often empty; not in a dump that has zeros for what it left out."""
    tables = after.mapping.tables
    vmalloc = tables.va[(tables.used == 0) & ~after.addresses.of_memory(tables.va, tables.va)]
    assert vmalloc.size > 10
    assert observes(after, int(vmalloc[0]))
    lost = after.explain(SECTION_16["linear map"])[-1].table_pa
    facts = extract_facts(zeroed(raw_after, [lost]))
    assert not any(observes(facts, va) for va in vmalloc.tolist())


def test_a_table_of_zeros_is_not_believed_by_a_section_table_of_zeros(raw_after, after):
    """Both lie in what the dump left out: that neither has memory there is no second witness."""
    page = after.sections.pa // np.uint64(4096) * np.uint64(4096)
    lost = after.explain(SECTION_16["linear map"])[-1].table_pa
    facts = extract_facts(zeroed(raw_after, [lost, *np.unique(page).tolist()]))
    assert not observes(facts, SECTION_16["linear map"])
    assert facts.sections.blank_start[0] == 0


def test_dumps_of_the_fixtures_hold_no_table_of_zeros_for_memory():
    """The kernel frees the tables that it empties: the rule above costs real dumps nothing."""
    facts = extract(AFTER)
    tables = facts.mapping.tables
    assert not facts.addresses.of_memory(tables.va[tables.used == 0], tables.va[tables.used == 0]).any()
    assert not (facts.walk.faults.kind == FAULTS.index(Fault.BLANK)).any()


# Parts of tables that are larger than 4096 bytes ---------------------------------------------------------------------

LARGE = [FIXTURES.parent / "kcore" / f"{name}.hypervisor.zst" for name in ("kernel-zone-7.3", "namespaces")]
LARGE.append(FIXTURES / "pmem-6.12-64k-namespaces.core.zst")


def parts_said(facts):
    return [one.message for one in facts.diagnostics if "parts of 4096 bytes" in one.message]


def of_parity(raw, odd):
    """The dump in which every second page frame of 4096 bytes reads as zeros."""
    starts, ends = raw.memory.extents
    units = [pa for lo, hi in zip(starts.tolist(), ends.tolist(), strict=True) for pa in range(lo, hi, 4096)]
    return replace(raw, memory=PatchedMemory(raw.memory, {pa: bytes(4096) for pa in units if pa // 4096 % 2 == odd}))


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("core", LARGE, ids=lambda path: path.name)
def test_a_part_of_a_table_that_a_hole_of_the_file_covers_is_unknown(core, odd):
    """Half of a table of 16K looks like a table of few entries."""
    raw = open_dump(core)
    whole = extract_facts(raw)
    assert parts_said(whole) == []
    facts = extract_facts(of_parity(raw, odd))
    assert severe(facts) <= severe(whole)


def test_parts_of_zeros_beside_boot_memory_are_unknown_everywhere():
    raw = open_dump(LARGE[0])
    facts = extract_facts(of_parity(raw, 1))
    (said,) = parts_said(facts)
    assert "read as zeros" in said
    assert facts.mapping.observed_start.size > extract_facts(raw).mapping.observed_start.size


def test_zeros_for_what_the_kernel_uses_make_parts_of_tables_unknown():
    """A subsection map that reads as zeros shows that the dump has zeros for memory that it lacks."""
    raw = open_dump(LARGE[1])
    whole = extract_facts(raw)
    facts = extract_facts(zeroed(raw, pages_of(whole, whole.sections.usage[-1:])))
    assert len(parts_said(facts)) == 1


def test_a_part_of_zeros_for_memory_that_was_added_is_no_hole_of_the_file():
    """It may be what a bug of the kernel has left: only boot memory is known to stay."""
    raw = open_dump(LARGE[1])
    whole = extract_facts(raw)
    added = np.flatnonzero(~whole.sections.early & whole.sections.present)
    first = whole.sections.section_nr[added[:1]] << np.uint64(whole.sections.section_size_bits)
    linear = int(first[0]) + whole.addresses.page_offset - whole.addresses.phys_offset & (1 << 64) - 1
    entry = whole.explain(linear)[-1].entry_pa
    facts = extract_facts(zeroed_units(raw, [entry // 4096 * 4096]))
    assert parts_said(facts) == []


# Structures that the kernel uses ------------------------------------------------------------------------------------


def pages_of(facts, virtual):
    """Physical addresses of the pages at virtual addresses of the linear map."""
    pa, known = facts.addresses.physical(np.asarray(virtual, np.uint64))
    assert known.all()
    return np.unique(pa // np.uint64(4096) * np.uint64(4096)).tolist()


def verdicts_of(facts):
    return {one.rule.code: one for one in run(builtin_rules(), build_facts(Captured(vmcore=facts)))}


def test_subsection_maps_of_zeros_are_unknown_and_no_map(raw_after, after):
    facts = extract_facts(zeroed(raw_after, pages_of(after, after.sections.usage[~after.sections.early])))
    added = facts.sections.present & ~facts.sections.early
    assert added.any()
    assert not facts.sections.subsections_known[added].any()
    built = build_facts(Captured(vmcore=facts))
    table = built.get(SectionTable)
    assert table.unread.tuples() == [(0x80000, 0x88000)]
    assert not table.valid & table.unread
    assert table.unread & table.possible == table.unread
    verdict = verdicts_of(facts)["VMM-02"]
    assert verdict.outcome is Outcome.UNDECIDED
    assert "subsection maps" in verdict.reason


def test_a_list_of_memory_blocks_with_a_page_of_zeros_is_no_list(raw_after, after):
    facts = extract_facts(zeroed(raw_after, pages_of(after, after.blocks.address[-1:])))
    assert facts.blocks is None
    assert "read as zeros" in facts.unreadable[BlockRows]


def test_a_section_table_without_a_section_is_not_in_the_dump(raw_after, after):
    tells = Dump(raw_after)
    array = tells.vmcoreinfo.symbol("mem_section")
    at = tells.physical(np.array([array], np.uint64))[0][0] // np.uint64(4096) * np.uint64(4096)
    facts = extract_facts(zeroed(raw_after, [int(at)]))
    assert facts.sections is None
    assert "zeros" in facts.unreadable[SectionRows]


def test_a_resource_whose_name_reads_as_zeros_leaves_the_list_incomplete(raw_after, after):
    tells = Dump(raw_after)
    first = tells.field(tells.global_at("iomem_resource"), "resource", "child")
    text = tells.field(first, "resource", "name")
    facts = extract_facts(zeroed(raw_after, pages_of(after, [text])))
    assert facts.iomem.cut_short
    assert "?" in facts.iomem.name


@pytest.mark.parametrize(("number", "unknown"), [(8, True), (4000, False)], ids=["in use", "silent"])
def test_a_part_of_the_section_table_of_zeros_is_empty_where_the_linear_map_is(after, number, unknown):
    kept = after.sections.section_nr != number
    columns = ("section_nr", "section_mem_map", "present", "has_memmap", "online", "early", "device")
    columns += ("subsections", "subsections_known", "usage", "pa")
    less = {name: getattr(after.sections, name)[kept] for name in columns}
    blank = {"blank_start": np.array([number], np.uint64), "blank_end": np.array([number + 1], np.uint64)}
    rows = replace(after.sections, **less, **blank)
    table = build_facts(Captured(vmcore=replace(after, sections=rows))).get(SectionTable)
    assert bool(table.possible - table.valid) is unknown
