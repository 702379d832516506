"""What is read from the small cores of real machines, against what the machines themselves showed."""

import numpy as np
import pytest

from parsers import ptdump
from parsers.arm64 import Attr, MemType
from parsers.iomem import parse_iomem
from parsers.vmcore.extract import extract
from parsers.vmcore.rows import RECORDS
from tests.parsers.vmcore.conftest import AFTER, BEFORE, FIXTURES, SELF_HOSTED

CORES = [BEFORE, AFTER, SELF_HOSTED]


def shown(core, kind):
    return (FIXTURES / core.name.replace("core.zst", kind)).read_bytes()


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_the_walk_prints_exactly_what_the_kernel_printed(core):
    facts = extract(core)
    text = ptdump.render(facts.printed, facts.addresses.va_actual, facts.addresses.granule.page_size)
    assert text.decode().splitlines() == shown(core, "kernel_page_tables").decode().splitlines()


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_the_resource_tree_is_that_of_proc_iomem(core):
    facts, iomem = extract(core), parse_iomem(shown(core, "iomem"), "iomem")
    assert facts.iomem.name == iomem.name
    for column in ("start", "last", "depth", "parent", "line"):
        np.testing.assert_array_equal(getattr(facts.iomem, column), getattr(iomem, column))


def test_nothing_is_lost_in_a_whole_dump(after, before, self_hosted):
    assert [facts.diagnostics for facts in (after, before, self_hosted)] == [(), (), ()]
    assert {facts.types for facts in (after, before, self_hosted)} == {"BTF"}


def test_every_table_of_a_dump_is_listed(after, self_hosted):
    other = extract(FIXTURES / "pmem-6.12-64k-namespaces.core.zst")  # with the pointer to the crash kernel
    for record in RECORDS:
        found = [getattr(facts, record.attribute) for facts in (after, self_hosted, other)]
        assert {type(rows) for rows in found if rows is not None} == {record.fact}


def test_texts_of_the_kernel(after):
    assert after.release == "6.12.117"
    assert after.texts.cmdline == shown(AFTER, "cmdline").strip()
    assert after.texts.dmesg == shown(AFTER, "dmesg")
    assert b"\nCONFIG_MEMORY_HOTREMOVE=y\n" in after.texts.config


def test_section_16_lost_its_middle_subsections(after, before):
    for facts, bitmap in ((before, 0xFFFFFFFFFFFFFFFF), (after, 0xFFFFFFFF0000FFFF)):
        sections = facts.sections
        row = sections.section_nr.tolist().index(16)
        assert sections.section_nr.tolist() == [0, 8, 9, 16]
        assert sections.subsections[row].tolist() == [bitmap]
        assert (sections.present[row], sections.has_memmap[row], sections.device[row]) == (True, True, True)
        assert (sections.online[row], sections.early[row]) == (False, False)
        assert sections.subsections_known.all()
        assert sections.section_mem_map[row] == 0xFFFFFDFFC0000013
        assert sections.early[:3].all()
        assert facts.sections.unknown_start.size == 0


def test_the_section_rows_name_the_words_that_prove_them(after, raw_after):
    values, present = raw_after.memory.read_words(after.sections.pa)
    assert present.all()
    np.testing.assert_array_equal(values, after.sections.section_mem_map)


def test_struct_pages_of_section_16_are_gone_and_the_walk_shows_where(after, before):
    va = 0xFFFFFDFFC2000000  # struct page of PFN 0x80000
    steps = after.explain(va)
    assert [step.level for step in steps] == [0, 1, 2]
    assert (steps[-1].descriptor, steps[-1].meaning, steps[-1].index) == (0, "empty", 16)
    assert steps[-1].table_pa == before.explain(va)[2].table_pa
    assert before.explain(va)[-1].output == before.mapping.pa[before.mapping.start == va][0]


def test_blocks_host_their_own_struct_pages(self_hosted):
    blocks = self_hosted.blocks
    assert blocks.start_section_nr.tolist() == [0, 8, 9, 16, 17, 18, 19]
    assert blocks.state == ("online",) * 7
    assert blocks.zone == ("DMA",) * 3 + ("Movable",) * 4
    assert blocks.nr_vmemmap_pages.tolist() == [0, 0, 0, 512, 512, 512, 512]
    assert blocks.altmap_base_pfn.tolist()[3:] == [0x80000, 0x88000, 0x90000, 0x98000]
    assert blocks.nid.tolist() == [0] * 7
    assert len(set(blocks.group.tolist()[3:])) == 1
    for number in (16, 17, 18, 19):
        struct_page = 0xFFFFFDFFC0000000 + (number << 15) * 64
        assert self_hosted.explain(struct_page)[-1].output == number << 27


def test_memory_blocks_do_not_know_device_memory(after):
    assert after.blocks.start_section_nr.tolist() == [0, 8, 9]


def test_zones_span_what_zoneinfo_says(after):
    zones = after.zones
    assert zones.name == ("DMA", "Device")
    assert (zones.start_pfn.tolist(), zones.spanned.tolist()) == ([0x4000, 0x80000], [311296, 32768])
    assert (zones.present.tolist(), zones.managed.tolist()) == ([81920, 0], [58416, 0])
    assert zones.node_id.tolist() == [0]


def test_huge_page_pools(after):
    assert after.hugetlb.name == (
        "hugepages-1048576kB",
        "hugepages-32768kB",
        "hugepages-2048kB",
        "hugepages-64kB",
    )
    assert after.hugetlb.order.tolist() == [18, 13, 9, 4]
    assert after.hugetlb.vmemmap_optimized is None  # no HVO on arm64 6.12


def test_linear_map_rows_carry_their_physical_addresses(after):
    mapping = after.mapping
    linear = mapping.present & (mapping.start < np.uint64(0xFFFF800000000000))
    np.testing.assert_array_equal(mapping.start[linear] - np.uint64(0xFFFF000000000000), mapping.pa[linear])


def test_kernel_text_is_where_iomem_says(after):
    mapping = after.mapping
    row = int(np.searchsorted(mapping.start, np.uint64(0xFFFF800080010000)))
    code = after.iomem.start[after.iomem.name.index("Kernel code")]
    assert mapping.pa[row] == code + np.uint64(0x10000)
    assert mapping.memtype[row] == MemType.NORMAL
    assert mapping.attrs[row] & Attr.PXN == 0


def test_table_pages_know_their_parents(after, raw_after):
    walk = after.walk
    tables = walk.mapping.tables
    assert (int(tables.parent_pa[0]), int(tables.level[0])) == (0, 0)
    descriptors, present = raw_after.memory.read_words(tables.parent_pa[1:])
    assert present.all()
    np.testing.assert_array_equal(descriptors, walk.table_descriptor[1:])
    np.testing.assert_array_equal(descriptors & np.uint64(0xFFFFFFFFF000), tables.pa[1:])
    pages, _ = raw_after.memory.read_pages(tables.pa)
    used = np.count_nonzero(pages.view("<u8"), axis=1)
    np.testing.assert_array_equal(used, tables.used)
    assert np.unique(tables.pa).size == tables.pa.size


def test_the_kernel_looks_for_memory_up_to_the_end_of_what_was_added(after, self_hosted):
    assert (after.zones.max_pfn, self_hosted.zones.max_pfn) == (0x88000, 0xA0000)
