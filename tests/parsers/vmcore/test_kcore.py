"""/proc/kcore: the same facts as of the dump it is made from, zeros that are not absence, and a moving target."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from parsers.errors import InputError
from parsers.vmcore import table_pages
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.extract import distill, extract, extract_facts
from parsers.vmcore.kcore import KcoreMemory
from parsers.vmcore.memory import ElfMemory
from parsers.vmcore.moment import find_flux, without_flux
from parsers.vmcore.opening import open_dump
from parsers.vmcore.pagetable import walk_page_tables
from tests.parsers.vmcore.conftest import AFTER, FIXTURES
from tests.parsers.vmcore.cores import PatchedMemory, word
from tests.parsers.vmcore.kcores import WithStructPages, room_for_kcore, write_kcore
from tests.parsers.vmcore.test_distilled import comparable

CORES = sorted(FIXTURES.glob("*.core.zst"))
DIFFERENT = {"kind", "flux", "diagnostics", "path", "settled"}


@pytest.fixture(scope="module")
def room():
    with room_for_kcore() as directory:
        yield directory


def kcore_of(room, core, memory=None, **options):
    raw = open_dump(core)
    facts = extract_facts(raw, with_dmesg=False)
    memory = memory or WithStructPages(raw.memory, facts)
    return write_kcore(room / "kcore", memory, raw.vmcoreinfo_bytes, facts.addresses, **options)


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_the_facts_are_those_of_the_dump(room, core):
    facts, dump = extract(kcore_of(room, core)), extract(core)
    assert (facts.kind, facts.flux.matters, facts.flux.start.size, facts.listed) == ("kcore", False, 0, None)
    of_dumps = {"explain", "symbol", "symbol_at", "recheck", "vmcoreinfo", "struct_pages", "listed"}
    for name in dump.__dataclass_fields__.keys() - DIFFERENT - of_dumps:
        assert comparable(getattr(facts, name)) == comparable(getattr(dump, name)), name
    # Struct pages that lie in device memory are not among what the kernel reads, and stay unknown where they are zeros.
    blank = dict(zip(dump.struct_pages.pfn.tolist(), dump.struct_pages.blank.tolist(), strict=True))
    found = dict(zip(facts.struct_pages.pfn.tolist(), facts.struct_pages.blank.tolist(), strict=True))
    assert found.items() <= blank.items()
    assert found == blank or "half-added" in core.name


def test_kernels_before_4_19_give_no_physical_addresses(room, after):
    facts = extract(kcore_of(room, AFTER, old=True))
    assert comparable(facts.mapping) == comparable(after.mapping)
    assert comparable(facts.sections) == comparable(after.sections)


def test_data_of_the_kernel_that_the_linear_map_lacks_is_read_where_the_image_is_mapped(room, after):
    """Linux 7.2 made the linear alias of data and bss invalid: zones, resources and max_pfn read as zeros there."""
    facts = extract(kcore_of(room, AFTER, hidden=True))
    assert facts.zones.max_pfn == after.zones.max_pfn > 0
    for name in ("zones", "iomem", "blocks", "sections", "mapping", "hugetlb", "texts"):
        assert comparable(getattr(facts, name)) == comparable(getattr(after, name)), name


def test_one_reader_at_a_time(room, monkeypatch):
    """The kernel copies through one buffer an open file: a second reader would change what the first one gets."""
    kcore = kcore_of(room, AFTER)
    inside, alone, pread = threading.Semaphore(1), [], ElfMemory._pread

    def watched(self, view, offset):
        mine = inside.acquire(blocking=False)
        alone.append(mine)
        time.sleep(0.001)
        got = pread(self, view, offset)
        if mine:
            inside.release()
        return got

    monkeypatch.setattr(ElfMemory, "_pread", watched)
    monkeypatch.setattr(table_pages, "_BATCH_BYTES", 1 << 14)
    raw = open_dump(kcore)
    walk = walk_page_tables(raw.memory, AddressMap.from_vmcoreinfo(raw.vmcoreinfo), source="kcore")
    assert len(walk.mapping)
    assert len(alone) > 20
    assert all(alone)


def test_a_small_core_is_made_of_it(room, tmp_path, after):
    small = tmp_path / "small"
    distill(kcore_of(room, AFTER), small)
    facts = extract(small)
    assert (facts.kind, facts.flux) == ("elf", None)
    assert comparable(facts.mapping) == comparable(after.mapping)
    assert comparable(facts.sections) == comparable(after.sections)


def test_nothing_is_read_past_the_headers_that_is_not_asked_for(room):
    memory = open_dump(kcore_of(room, AFTER)).memory
    assert isinstance(memory, KcoreMemory)
    starts, ends = memory.extents
    assert int(ends[-1]) < 1 << 40
    _, present = memory.read_units(np.array([int(ends[-1]) // 4096, 1 << 30], np.uint64))
    assert not present.any()
    assert starts.size > 1


def table_of(facts, va):
    """The last table of the walk of an address, and the entry that leads to it."""
    *_, above, last = facts.explain(va)
    return last.table_pa, above.entry_pa


def test_a_table_of_zeros_is_unknown_unless_its_struct_page_says_it_was_read(room, raw_after, after):
    """An empty table page in boot memory, whose struct page the fixture does not hold: nothing vouches for it."""
    va = int(after.sections.section_mem_map[1]) & ~63
    va += int(after.sections.section_nr[1]) * 32768 * 64 + 0x200000
    step = after.explain(va)[-1]
    units = raw_after.memory.extents[0] // np.uint64(4096)
    empty = int(units[0]) * 4096
    memory = PatchedMemory(raw_after.memory, {step.entry_pa: word(empty | 3), empty: bytes(4096)})
    as_dump = extract_facts(replace(raw_after, memory=memory))
    for facts in (as_dump, extract(kcore_of(room, AFTER, memory))):
        assert empty not in facts.mapping.tables.pa.tolist()
        observed = zip(facts.mapping.observed_start.tolist(), facts.mapping.observed_last.tolist(), strict=True)
        assert not any(start <= va <= last for start, last in observed)
    confirmed = extract(kcore_of(room, AFTER, WithStructPages(memory, as_dump)))
    assert empty in confirmed.mapping.tables.pa.tolist()


def test_no_vmcoreinfo_and_no_physical_addresses_is_an_error(room, raw_after, after):
    path = write_kcore(room / "kcore", raw_after.memory, b"", after.addresses, old=True)
    with pytest.raises(InputError, match="--vmcoreinfo"):
        open_dump(path)


# A moving target ----------------------------------------------------------------------------------------------------


def flux_between(before, after, core=AFTER):
    size = 64
    del core
    return find_flux((before.walk, before.sections), (after.walk, after.sections), before.addresses, size)


def test_two_equal_readings_have_no_flux(after):
    flux = flux_between(after, after)
    assert (flux.matters, flux.start.size, flux.sections.size) == (False, 0, 0)
    assert without_flux(after, flux) is after


def test_a_removal_between_two_readings_is_flux_and_nothing_is_claimed_of_it(before, after):
    flux = flux_between(before, after)
    assert flux.matters
    assert flux.sections.tolist() == [16]
    left = without_flux(after, flux)
    assert left.sections.section_nr.tolist() == [0, 8, 9]
    assert (left.sections.unknown_start.tolist(), left.sections.unknown_end.tolist()) == ([16], [17])
    assert (left.flux, left.blocks.start_section_nr.tolist()) == (flux, [0, 8, 9])
    assert "sections 16" in left.diagnostics[-1].message
    vmemmap = 0xFFFFFDFFC2000000
    rows = left.mapping
    observed = list(zip(rows.observed_start.tolist(), rows.observed_last.tolist(), strict=True))
    assert not any(start <= vmemmap <= last for start, last in observed)
    for start, last in zip(flux.start.tolist(), flux.last.tolist(), strict=True):
        assert not ((rows.start <= np.uint64(last)) & (rows.last >= np.uint64(start))).any()
    # What is left is what it was.
    for start, last, pa in zip(rows.start.tolist(), rows.last.tolist(), rows.pa.tolist(), strict=True):
        row = int(np.searchsorted(after.mapping.start, np.uint64(start), side="right")) - 1
        assert after.mapping.start[row] <= start
        assert last <= after.mapping.last[row]
        moved = 0 if after.walk.repeated[row] or not after.mapping.attrs[row] else start - int(after.mapping.start[row])
        assert pa == int(after.mapping.pa[row]) + moved
        assert any(low <= start and last <= high for low, high in observed)
