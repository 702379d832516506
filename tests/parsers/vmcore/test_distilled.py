"""Small cores: the same facts from only the pages that were read; and dumps changed by hand."""

from dataclasses import fields

import numpy as np
import pytest

from parsers.arm64 import Attr
from parsers.dmesg import Dmesg
from parsers.errors import InputError
from parsers.vmcore.distilled import write_core
from parsers.vmcore.extract import distill, extract, extract_facts
from parsers.vmcore.memory import RecordingMemory, page_runs
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore.conftest import AFTER
from tests.parsers.vmcore.cores import PageMemory, PatchedMemory, vmcoreinfo, word

VMEMMAP = 0xFFFFFDFFC0000000


def comparable(value):
    """Tables as lists, so that two of them compare equal when they hold the same."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [comparable(one) for one in value]
    if isinstance(value, dict):
        return {key: comparable(one) for key, one in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: comparable(getattr(value, item.name)) for item in fields(value) if item.name not in SKIPPED}
    return value


SKIPPED = {
    "path",
    "source",
    "explain",
    "symbol",
    "symbol_at",
    "recheck",
    "settled",
    "quote",
    "diagnostics",
    "vmcoreinfo",
    "listed",
}


def test_the_small_core_of_a_dump_says_the_same(tmp_path, raw_after, after):
    """A dump with much more memory than is read: a user's secret fills every page that the small core lacks."""
    secret = b"a user's secret ".ljust(4096, b"!")
    units = np.concatenate(
        [np.arange(a, b, 4096, dtype=np.uint64) for a, b in zip(*raw_after.memory.extents, strict=True)]
    )
    data, _ = raw_after.memory.read_units(units // np.uint64(4096))
    pages = dict(zip((units // np.uint64(4096)).tolist(), data, strict=True))
    # The kernel's own code, in pages 0x4a200 to 0x4b260 here, is read and is nobody's secret.
    elsewhere = (*range(0x40000, 0x4A200), *range(0x4B260, 0x50000))
    pages |= {unit: secret for unit in elsewhere if unit not in pages}
    big = tmp_path / "big"
    memory = PageMemory(pages)
    write_core(big, memory, memory.units, raw_after.vmcoreinfo_bytes)
    small = tmp_path / "small"
    kept = distill(big, small, with_dmesg=True)
    assert kept.size == small.stat().st_size < big.stat().st_size / 20
    assert kept.pages * 4096 < kept.size < kept.pages * 4096 + (1 << 20)
    assert b"a user's secret" not in small.read_bytes()
    assert comparable(extract(small)) == comparable(after)


def test_distilling_again_changes_nothing(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    distill(AFTER, one, with_dmesg=True)
    distill(one, two, with_dmesg=True)
    assert one.read_bytes() == two.read_bytes()
    kept, stored = units_of(one), units_of(AFTER)  # drgn, with which it was distilled, read some more of kallsyms
    assert np.isin(kept, stored).all()
    assert stored.size - kept.size < 0.05 * stored.size


def units_of(path):
    """The page frames that a core holds."""
    starts, ends = open_dump(path).memory.extents
    return np.concatenate([np.arange(a, b, 4096, dtype=np.uint64) for a, b in zip(starts, ends, strict=True)])


def test_the_log_is_left_out_unless_it_is_asked_for(tmp_path, after):
    small = tmp_path / "small"
    distill(AFTER, small)
    assert b"random: crng init done" not in small.read_bytes()
    assert b"random: crng init done" in after.texts.dmesg
    facts = extract(small)
    assert facts.texts.dmesg is None
    assert ["kernel log" in item.message for item in facts.diagnostics] == [True]
    assert set(facts.unreadable) == {Dmesg}
    for name in {item.name for item in fields(facts)} - SKIPPED - {"texts", "unreadable"}:
        assert comparable(getattr(facts, name)) == comparable(getattr(after, name)), name
    for name in {item.name for item in fields(facts.texts)} - {"dmesg", "log"}:
        assert comparable(getattr(facts.texts, name)) == comparable(getattr(after.texts, name)), name


def test_a_core_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        distill(AFTER, tmp_path / "absent" / "core")
    assert list(tmp_path.iterdir()) == []


def test_the_recorder_notes_what_was_there():
    memory = RecordingMemory(PageMemory({5: bytes(4096), 6: bytes(4096), 9: bytes(4096)}))
    assert memory.units.size == 0
    memory.read_units(np.array([6, 7, 5], np.uint64))
    memory.read(9 * 4096 + 100, 8)
    assert memory.units.tolist() == [5, 6, 9]
    first, count = page_runs(memory.units)
    assert (first.tolist(), count.tolist()) == ([5, 9], [2, 1])


def test_an_empty_core_is_not_a_dump(tmp_path):
    path = tmp_path / "core"
    write_core(path, PageMemory({}), np.empty(0, np.uint64), vmcoreinfo())
    with pytest.raises(InputError, match="no memory"):
        open_dump(path)


def changed(raw, patches):
    return extract_facts(raw, memory=PatchedMemory(raw.memory, patches), with_dmesg=False)


def row_at(mapping, va):
    return int(np.searchsorted(mapping.start, np.uint64(va), side="right")) - 1


def test_a_cleared_pmd_is_a_hole(raw_after, after):
    va = VMEMMAP + 0x1000000  # struct pages of the first RAM section
    entry = after.explain(va)[-1].entry_pa
    mapping = changed(raw_after, {entry: word(0)}).mapping
    assert after.mapping.present[row_at(after.mapping, va)]
    assert not mapping.present[row_at(mapping, va)]


def test_a_pmd_that_points_elsewhere_splits_the_row(raw_after, after):
    va = VMEMMAP + 0x1200000
    step = after.explain(va)[-1]
    moved = step.descriptor & ~0xFFFFFFE00000 | 0x84000000
    mapping = changed(raw_after, {step.entry_pa: word(moved)}).mapping
    assert int(mapping.pa[row_at(mapping, va)]) == 0x84000000
    assert len(mapping) == len(after.mapping) + 1


def test_a_lone_contiguous_bit_is_a_separate_row(raw_after, after):
    va = VMEMMAP + 0x1200000
    step = after.explain(va)[-1]
    mapping = changed(raw_after, {step.entry_pa: word(step.descriptor | 1 << 52)}).mapping
    row = row_at(mapping, va)
    assert int(mapping.size[row]) == 2 << 20
    assert mapping.attrs[row] & Attr.CONT


def test_a_leaked_table_is_a_table_page_without_entries(raw_after, after):
    empty = 0x40000000 + 4096 * 3
    memory = raw_after.memory
    units = memory.extents[0] // np.uint64(4096)
    empty = int(units[0]) * 4096
    va = VMEMMAP + 0x2200000  # of section 17, which does not exist
    facts = changed(raw_after, {after.explain(va)[-1].entry_pa: word(empty | 3), empty: bytes(4096)})
    tables = facts.mapping.tables
    row = tables.pa.tolist().index(empty)
    assert (int(tables.used[row]), int(tables.va[row]), int(tables.level[row])) == (0, va, 3)
    assert int(tables.parent_pa[row]) == after.explain(va)[-1].entry_pa


def test_a_table_that_points_at_itself_is_left_at_once(raw_after, after):
    va = VMEMMAP + 0x2000000
    step = after.explain(va)[-1]
    facts = changed(raw_after, {step.entry_pa: word(step.table_pa | 3)})
    assert any("another level" in item.message for item in facts.diagnostics)
    observed = zip(facts.mapping.observed_start.tolist(), facts.mapping.observed_last.tolist(), strict=True)
    assert not any(start <= va <= last for start, last in observed)


def test_a_subsection_bit_that_is_cleared_is_seen(raw_after, after):
    row = after.sections.section_nr.tolist().index(16)
    usage = np.array([after.sections.usage[row]], np.uint64)
    pa, _ = after.addresses.physical(usage)
    facts = changed(raw_after, {int(pa[0]) + 16: word(0xF)})
    assert facts.sections.subsections[row].tolist() == [0xF]


def test_a_section_whose_usage_is_missing_is_unknown(raw_after, after):
    row = after.sections.section_nr.tolist().index(16)
    pa, _ = after.addresses.physical(np.array([after.sections.usage[row]], np.uint64))
    page = int(pa[0]) & ~0xFFF
    memory = PatchedMemory(raw_after.memory, missing=[page])
    facts = extract_facts(raw_after, memory=memory, with_dmesg=False)
    assert not facts.sections.subsections_known[row]
    assert facts.sections.subsections[row].tolist() == [0]


def test_sections_of_a_missing_root_are_unknown(raw_after, after):
    page = int(after.sections.pa[0]) & ~0xFFF
    facts = extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, missing=[page]), with_dmesg=False)
    unknown = zip(facts.sections.unknown_start.tolist(), facts.sections.unknown_end.tolist(), strict=True)
    assert any(start <= 16 < end for start, end in unknown)
    assert 16 not in facts.sections.section_nr.tolist()
