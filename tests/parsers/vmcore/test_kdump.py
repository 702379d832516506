"""kdumps: as hypervisors write them, as makedumpfile does, split, damaged."""

import numpy as np
import pytest

from parsers.errors import FormatError, InputError, PtauditError, WrongFormatError
from parsers.vmcore.extract import extract
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore import cores
from tests.parsers.vmcore.cores import PatchedMemory, flattened, forty_tables, kdump, vmcoreinfo

VMEMMAP = 0xFFFFFDFFC0000000


@pytest.fixture(scope="module")
def tables():
    return forty_tables().image()


@pytest.fixture(scope="module")
def whole(raw_after):
    """All units of the small core, and its text of VMCOREINFO."""
    starts, ends = raw_after.memory.extents
    units = np.concatenate([np.arange(a, b, 4096, dtype=np.uint64) for a, b in zip(starts, ends, strict=True)])
    return raw_after.memory, units // np.uint64(4096), raw_after.vmcoreinfo_bytes


def same_facts(one, other):
    for name in ("start", "size", "level", "attrs", "memtype", "pa"):
        np.testing.assert_array_equal(getattr(one.mapping, name), getattr(other.mapping, name))
    for name in ("section_nr", "section_mem_map", "subsections", "pa"):
        np.testing.assert_array_equal(getattr(one.sections, name), getattr(other.sections, name))
    assert one.iomem.name == other.iomem.name
    assert one.texts.config == other.texts.config
    assert (one.texts.cmdline, one.texts.dmesg) == (other.texts.cmdline, other.texts.dmesg)
    assert one.blocks.state == other.blocks.state


@pytest.mark.parametrize(
    ("codec", "flat"),
    [("zlib", False), ("zlib", True), ("zstd", True), ("lzo", True), ("snappy", True), ("none", True)],
)
def test_a_hypervisor_kdump_says_what_the_elf_core_says(tmp_path, whole, after, codec, flat):
    data = kdump(*whole, codec=codec)
    path = tmp_path / "kdump"
    path.write_bytes(flattened(data) if flat else data)
    facts = extract(path)
    same_facts(facts, after)
    assert facts.diagnostics == ()


@pytest.mark.parametrize("codec", ["zlib", "lzo", "snappy", "zstd", "none"])
def test_a_makedumpfile_kdump(tmp_path, whole, after, codec):
    path = tmp_path / "kdump"
    path.write_bytes(kdump(*whole, machine="aarch64", block_size=4096, codec=codec))
    same_facts(extract(path), after)


@pytest.mark.parametrize("block_size", [4096, 65536])
def test_memory_that_is_listed_and_left_out(tmp_path, whole, block_size):
    """makedumpfile's first bitmap has the memory that the crash kernel knew of, the second what is in the file."""
    memory, units, info = whole
    per_block = block_size // 4096
    held = np.unique(units // np.uint64(per_block)).astype(np.int64)
    more = np.concatenate((np.arange(held.max() + 3, held.max() + 200), [held.max() + 255, held.max() + 256]))
    listed = np.union1d(np.arange(held.min(), held.max() + 1), more)
    path = tmp_path / "kdump"
    path.write_bytes(kdump(memory, units, info, machine="aarch64", block_size=block_size, listed=listed))
    found = extract(path).listed
    told = [pfn for start, end in zip(found.start_pfn, found.end_pfn, strict=True) for pfn in range(start, end)]
    assert told == [block * per_block + page for block in listed.tolist() for page in range(per_block)]
    assert len(found) == 3


@pytest.mark.parametrize("codec", ["none", "zlib", "lzo", "snappy"])
def test_a_kdump_that_ends_anywhere_does_not_end_the_process(tmp_path, tables, codec):
    memory = tables.memory
    data = kdump(memory, memory.units, vmcoreinfo(), machine="aarch64", block_size=4096, codec=codec)
    path = tmp_path / "kdump"
    starts = range(4096, len(data), len(data) // 30)
    for size in (4628, *starts, *range(len(data) - 3 * 4096, len(data), 500)):
        path.write_bytes(data[:size])
        try:
            _, present = open_dump(path).memory.read_units(memory.units)
        except PtauditError:
            continue
        assert not present.all()


def test_excluded_pages_are_unknown(tmp_path, tables):
    memory = tables.memory
    lost = tables.words[tables.entry(0xFFFF000000000000, 2)] & ~0xFFF
    units = np.setdiff1d(memory.units, np.array([lost // 4096], np.uint64))
    for machine in ("aarch64", "Unknown"):
        path = tmp_path / machine
        path.write_bytes(kdump(memory, units, vmcoreinfo(), machine=machine, block_size=4096))
        facts = extract(path)
        assert facts.mapping.observed_start.tolist() == [0xFFFF000000200000]
        assert any("not in the dump" in item.message for item in facts.diagnostics)


def test_split_files_are_read_together_in_any_order(tmp_path, tables):
    memory = tables.memory
    middle = int(memory.units[len(memory.units) // 2])
    parts = []
    for number, span in enumerate([(0, middle), (middle, 1 << 30)]):
        parts.append(tmp_path / f"part{number}")
        parts[-1].write_bytes(kdump(memory, memory.units, vmcoreinfo(), machine="aarch64", block_size=4096, split=span))
    facts = extract(parts[::-1])
    assert len(facts.mapping.tables.pa) == len(tables.tables)
    with pytest.raises(InputError, match="split"):
        extract(parts[0])


@pytest.mark.parametrize("codec", ["zlib", "lzo", "snappy", "zstd"])
def test_damaged_pages_are_unknown_and_counted(tmp_path, tables, codec, monkeypatch):
    flags, pack = cores.CODECS[codec]
    monkeypatch.setitem(cores.CODECS, codec, (flags, lambda data: pack(data)[:20]))
    memory = tables.memory
    path = tmp_path / "kdump"
    path.write_bytes(kdump(memory, memory.units, vmcoreinfo(), codec=codec))
    facts = extract(path)
    assert any(
        "pages are damaged" in item.message or "pages have a wrong size" in item.message for item in facts.diagnostics
    )
    assert facts.mapping.observed_start.size == 0


def test_a_kdump_of_another_machine(tmp_path, tables):
    memory = tables.memory
    path = tmp_path / "kdump"
    path.write_bytes(kdump(memory, memory.units, vmcoreinfo(), machine="x86_64", block_size=4096))
    with pytest.raises(WrongFormatError, match="x86_64"):
        extract(path)


@pytest.mark.parametrize("flat", [False, True], ids=["plain", "flattened"])
def test_every_truncation_gives_facts_or_an_error_of_ours(tmp_path, tables, flat):
    memory = tables.memory
    data = kdump(memory, memory.units, vmcoreinfo())
    data = flattened(data) if flat else data
    path = tmp_path / "kdump"
    for size in range(16, len(data), len(data) // 40):
        path.write_bytes(data[:size])
        try:
            facts = extract(path)
        except PtauditError:
            continue
        assert any("truncated" in item.message or "not in the dump" in item.message for item in facts.diagnostics)


@pytest.mark.parametrize("machine", ["Unknown", "aarch64"])
def test_damage_gives_facts_or_an_error_of_ours(tmp_path, tables, machine):
    memory = tables.memory
    data = kdump(memory, memory.units, vmcoreinfo(), machine=machine, block_size=4096)
    path = tmp_path / "kdump"
    rng = np.random.default_rng(3)
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, len(broken), 6).tolist() + rng.integers(400, 600, 2).tolist():
            broken[place] = int(rng.integers(256))
        path.write_bytes(broken)
        try:
            extract(path)
        except PtauditError:
            continue


def test_a_bitmap_that_contradicts_the_page_count(tmp_path, tables):
    memory = tables.memory
    data = bytearray(kdump(memory, memory.units, vmcoreinfo()))
    data[436:440] = (0).to_bytes(4, "little")
    path = tmp_path / "kdump"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="bitmap"):
        extract(path)


def test_patched_memory_is_what_kdump_writes(tables):
    memory = PatchedMemory(tables.memory, {tables.root_pa: b"\xff" * 8})
    data = kdump(memory, memory.memory.units, vmcoreinfo(), codec="none")
    assert data.count(b"\xff" * 8 + b"\0" * 8) >= 1
