"""Symbols and types from the dump itself, and what is left when they are missing."""

import re
from dataclasses import replace

import numpy as np
import pytest

from parsers.errors import FormatError, InputError
from parsers.vmcore.btf import Btf, BtfKind
from parsers.vmcore.distilled import write_core
from parsers.vmcore.dump import Dump
from parsers.vmcore.extract import extract, extract_facts
from parsers.vmcore.kallsyms import system_map
from parsers.vmcore.memory import RecordingMemory
from parsers.vmcoreinfo import parse_vmcoreinfo
from tests.parsers.vmcore.conftest import AFTER
from tests.parsers.vmcore.cores import PatchedMemory, word

SYMBOLS = ("_stext", "_text", "_end", "swapper_pg_dir", "init_uts_ns", "__start_BTF", "__stop_BTF")
SYMBOLS += ("hstates", "hugetlb_max_hstate", "kernel_ptdump_info", "memory_blocks", "memory_subsys", "node_data")
SYMBOLS += ("contig_page_data", "sections_per_block", "vmemmap_optimize_enabled")
SYMBOLS += ("kernel_config_data", "kernel_config_data_end", "saved_command_line", "iomem_resource")


@pytest.fixture(scope="module")
def dump(raw_after):
    return Dump(raw_after)


@pytest.fixture(scope="module")
def btf_bytes(dump):
    start = dump.symbol("__start_BTF")
    return dump.read(start, dump.symbol("__stop_BTF") - start)


def without_keys(raw, *patterns, extra=b""):
    lines = raw.vmcoreinfo_bytes.splitlines(keepends=True)
    kept = [line for line in lines if not any(re.match(item.encode(), line) for item in patterns)]
    text = b"".join(kept) + extra
    return replace(raw, vmcoreinfo=parse_vmcoreinfo(text, "vmcoreinfo"), vmcoreinfo_bytes=text)


def map_text(dump, offset=0):
    found = sorted({(dump.symbol(name), name) for name in SYMBOLS if dump.symbol(name)})
    return "".join(f"{address - offset:016x} D {name}\n" for address, name in found).encode()


def test_btf_agrees_with_vmcoreinfo_on_every_size_and_offset(raw_after, dump):
    checked = 0
    for key, value in raw_after.vmcoreinfo.values.items():
        kind, _, name = key.rstrip(")").partition("(")
        if kind == "SIZE" and dump._btf.find(name, BtfKind.STRUCT):
            assert dump.size(name) == value, name
            checked += 1
        if kind == "OFFSET" and dump._btf.find(name.partition(".")[0], BtfKind.STRUCT):
            assert dump.offset(*name.split(".", 1)) == value, name
            checked += 1
    assert checked > 40


def test_btf_knows_enums_and_leaves_bit_fields_out(dump):
    assert dump.enumerator("SECTION_TAINT_ZONE_DEVICE_BIT") == 4
    assert [dump.enumerator(name) for name in ("MEM_ONLINE", "MEM_FINISH_OFFLINE")] == [0, 7]
    assert dump.enumerator("NO_SUCH_ENUMERATOR") is None
    assert dump.structures.member("printk_info", "level") is None
    assert dump.structures.member("printk_info", "text_len").size == 2
    assert dump.structures.member("page", "compound_head").offset == 8
    zones = dump.structures.member("pglist_data", "node_zones")
    assert zones.size == zones.count * dump.size("zone")


def test_drgn_reads_bitfields_enums_unions_and_forward_declarations(dump):
    pytest.importorskip("drgn", reason="drgn has wheels for x86-64 only")
    from parsers.vmcore.program import BtfForDrgn  # noqa: PLC0415 only where drgn is

    info = dump.prog.type("struct printk_info")
    assert [(m.name, m.bit_field_size) for m in info.members if m.bit_field_size] == [("flags", 5), ("level", 3)]
    states = {item.name: item.value for item in dump.prog.type("enum memory_block_state").enumerators}
    assert (states["MEM_ONLINE"], states["MEM_FINISH_OFFLINE"]) == (0, 7)
    assert dump.prog.type("struct page").members[1].type.kind.name == "UNION"
    forward = int(np.flatnonzero(dump._btf.kind == BtfKind.FWD)[0])
    assert not BtfForDrgn(dump._btf).make(dump.prog, forward).is_complete()
    assert str(dump.prog.type("gfp_t").type) == "unsigned int"
    with pytest.raises(LookupError):
        dump.prog.type("struct no_such_structure")


def test_every_btf_type_can_be_made_for_drgn(dump):
    pytest.importorskip("drgn", reason="drgn has wheels for x86-64 only")
    from parsers.vmcore.program import BtfForDrgn  # noqa: PLC0415 only where drgn is

    types = BtfForDrgn(dump._btf)
    skipped = {BtfKind.FUNC, BtfKind.VAR, BtfKind.DATASEC, BtfKind.DECL_TAG}
    for type_id in range(0, len(dump._btf), 37):
        if BtfKind(int(dump._btf.kind[type_id])) not in skipped:
            assert types.make(dump.prog, type_id) is not None


def test_damaged_btf_is_an_error_or_another_btf(btf_bytes):
    rng = np.random.default_rng(5)
    for size in (0, 10, 24, 5000):
        with pytest.raises(FormatError):
            Btf(btf_bytes[:size])
    refused = 0
    for _ in range(30):
        data = bytearray(btf_bytes)
        for place in rng.integers(0, len(data) // 2, 8).tolist():
            data[place] = int(rng.integers(256))
        try:
            broken = Btf(bytes(data))
            for type_id in rng.integers(1, len(broken), 50).tolist():
                broken.member(broken.string(int(broken.name[type_id])), "flags")
        except FormatError:
            refused += 1
    assert refused


def test_kallsyms_agree_with_vmcoreinfo(raw_after, dump):
    exported_values = {"mem_section", "vmemmap", "node_online_map"}  # values, not addresses
    names = [key[7:-1] for key in raw_after.vmcoreinfo.text if key.startswith("SYMBOL(")]
    names = [name for name in names if name not in exported_values and not name.startswith("kallsyms_")]
    assert len(names) >= 6
    for name in names:
        assert dump.symbol(name) == raw_after.vmcoreinfo.symbol(name), name
    assert dump.symbol("no_such_symbol") is None


@pytest.mark.parametrize("offset", [0, 0x1A40000])
def test_a_system_map_stands_in_for_kallsyms(tmp_path, raw_after, dump, after, offset):
    path = tmp_path / "System.map"
    path.write_bytes(map_text(dump, offset))
    raw = without_keys(raw_after, "SYMBOL\\(kallsyms", "KERNELOFFSET", extra=f"KERNELOFFSET={offset:x}\n".encode())
    facts = extract_facts(raw, system_map=path)
    assert facts.types == "BTF"
    assert facts.iomem.name == after.iomem.name
    assert facts.texts.cmdline == after.texts.cmdline
    np.testing.assert_array_equal(facts.sections.subsections, after.sections.subsections)


def test_a_system_map_of_another_kernel_is_refused(raw_after, dump):
    text = map_text(dump)
    moved = re.sub(rb"^[0-9a-f]{16}(?= D init_uts_ns$)", b"ffff800081000000", text, flags=re.MULTILINE)
    with pytest.raises(InputError, match="another kernel"):
        system_map(moved, raw_after.vmcoreinfo, "System.map")
    with pytest.raises(InputError, match="another kernel"):
        system_map(map_text(dump, 0x10000), raw_after.vmcoreinfo, "System.map")
    with pytest.raises(FormatError, match="no System"):
        system_map(b"\x7fELF", raw_after.vmcoreinfo, "System.map")
    with pytest.raises(FormatError, match="no symbol in common"):
        system_map(b"ffff800080000000 T other\n", raw_after.vmcoreinfo, "System.map")


def assert_core_facts(facts, after):
    """Page tables, sections and the log need neither symbols nor types."""
    for name in ("start", "size", "level", "attrs", "memtype", "pa"):
        np.testing.assert_array_equal(getattr(facts.mapping, name), getattr(after.mapping, name))
    for name in ("section_nr", "section_mem_map", "subsections", "device", "early", "online", "pa"):
        np.testing.assert_array_equal(getattr(facts.sections, name), getattr(after.sections, name))
    assert facts.texts.dmesg == after.texts.dmesg
    assert [item.name for item in facts.boundaries][:2] == ["Linear Mapping start", "Linear Mapping end"]


def test_without_btf_the_losses_are_named(raw_after, dump, after):
    pa, _ = dump.physical(np.array([dump.symbol("__start_BTF")], np.uint64))
    facts = extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, {int(pa[0]): word(0)}))
    assert facts.types == "VMCOREINFO"
    assert_core_facts(facts, after)
    said = "\n".join(item.message for item in facts.diagnostics)
    for what in ("no BTF", "memory blocks", "zones", "resources", "huge pages", "subsection maps"):
        assert what in said
    assert (facts.blocks, facts.zones, facts.iomem, facts.hugetlb) == (None, None, None, None)
    assert facts.texts.config == after.texts.config


def test_btf_without_its_symbols_is_found_by_its_magic_number(raw_after, dump):
    """CONFIG_KALLSYMS_ALL=n hides __start_BTF, which is data."""
    hidden = Dump(without_keys(raw_after, "SYMBOL\\(kallsyms"))
    assert hidden.symbol("__start_BTF") is None
    assert hidden.types == "BTF"
    assert not any("BTF" in item.message for item in hidden.diagnostics)
    page = dump.symbol("__start_BTF") & -4096
    pa, _ = dump.physical(np.array([page], np.uint64))
    gone = Dump(
        without_keys(raw_after, "SYMBOL\\(kallsyms"), memory=PatchedMemory(raw_after.memory, missing=pa.tolist())
    )
    assert gone.types == "VMCOREINFO"


def test_a_small_core_keeps_btf_that_was_searched_for(tmp_path, raw_after):
    raw = without_keys(raw_after, "SYMBOL\\(kallsyms")
    recorder = RecordingMemory(raw.memory)
    extract_facts(raw, memory=recorder)
    small = tmp_path / "small"
    write_core(small, raw.memory, recorder.units, raw.vmcoreinfo_bytes)
    assert extract(small).types == "BTF"
    assert recorder.units.size < 2000


def test_without_symbols_the_losses_are_named(raw_after, after):
    facts = extract_facts(without_keys(raw_after, "SYMBOL\\(kallsyms"))
    assert_core_facts(facts, after)
    assert (facts.types, facts.has_symbols) == ("BTF", False)
    said = "\n".join(item.message for item in facts.diagnostics)
    for what in ("no symbols", "command line", "configuration", "memory blocks", "resources"):
        assert what in said


def test_without_mem_section_there_is_no_section_table(raw_after):
    facts = extract_facts(without_keys(raw_after, "SYMBOL\\(mem_section"))
    assert facts.sections is None
    assert any("mem_section" in item.message for item in facts.diagnostics)


def test_damaged_kallsyms_are_named(raw_after, dump, after):
    pa, _ = dump.physical(np.array([raw_after.vmcoreinfo.symbol("kallsyms_num_syms")], np.uint64))
    for value in (0, 0xFFFFFFFF, 0x00FFFFFF):
        facts = extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, {int(pa[0]): word(value)}))
        assert any("kallsyms" in item.message for item in facts.diagnostics)
        assert_core_facts(facts, after)


def test_missing_pages_become_diagnostics_and_never_tracebacks(raw_after):
    starts, ends = raw_after.memory.extents
    pages = np.concatenate([np.arange(a, b, 4096, dtype=np.uint64) for a, b in zip(starts, ends, strict=True)])
    rng = np.random.default_rng(11)
    for share in (0.01, 0.1, 0.5, 0.9):
        missing = rng.choice(pages, int(pages.size * share), replace=False).tolist()
        facts = extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, missing=missing))
        assert facts.diagnostics


def test_random_damage_becomes_diagnostics_and_never_tracebacks(raw_after):
    starts, ends = raw_after.memory.extents
    pages = np.concatenate([np.arange(a, b, 4096, dtype=np.uint64) for a, b in zip(starts, ends, strict=True)])
    rng = np.random.default_rng(13)
    for count in (20, 200):
        patches = {int(pa): rng.bytes(4096) for pa in rng.choice(pages, count, replace=False)}
        extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, patches))


def test_the_resource_tree_may_close_on_itself(raw_after, dump):
    at = dump.symbol("iomem_resource")
    child = dump.offset("resource", "child")
    pa, _ = dump.physical(np.array([at], np.uint64))
    facts = extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, {int(pa[0]) + child: word(at)}))
    assert facts.iomem is None
    assert any("resource tree is damaged" in item.message for item in facts.diagnostics)


def test_a_resource_may_end_before_it_starts(raw_after, dump):
    members = [dump.offset("resource", member) for member in ("child", "start")]
    (first,), _ = dump.read_words(np.array([dump.symbol("iomem_resource") + members[0]], np.uint64))
    pa, _ = dump.physical(np.array([int(first) + members[1]], np.uint64))
    facts = extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, {int(pa[0]): word(1 << 60)}))
    assert facts.iomem is None
    assert any("ends before it starts" in item.message for item in facts.diagnostics)


def test_a_log_whose_ends_are_far_apart_is_refused(raw_after, dump):
    ring = int.from_bytes(dump.read(raw_after.vmcoreinfo.symbol("prb"), 8), "little")
    head = ring + 24
    pa, _ = dump.physical(np.array([head], np.uint64))
    facts = extract_facts(raw_after, memory=PatchedMemory(raw_after.memory, {int(pa[0]): word(1 << 60)}))
    assert facts.texts.dmesg is None
    assert any("log's ring is damaged" in item.message for item in facts.diagnostics)


def test_fixture_is_named_as_documented():
    assert AFTER.name in (AFTER.parent / "README.md").read_text()
