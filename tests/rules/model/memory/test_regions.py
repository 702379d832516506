"""Where the linear map ends: below the shadow of KASAN."""

import time
from dataclasses import replace

import pytest

from parsers.vmcore.dump import Dump
from rules.engine import Outcome
from tests.rules.dumps import BLOCK_ENTRY, FREE_PAGE
from tests.rules.patched import table_page

SHADOW, MODULES_SHADOW, SHADOW_END = 0xFFFF600000000000, 0xFFFF700000000000, 0xFFFF800000000000
READ_ONLY_PAGE = 0xE0000000000783


def kasan_shadow(machine):
    """Words and pages of the shadow of a kernel with generic KASAN: what memory there is has its own, all else shares.

    One page of shadow backs every address that has none (kasan_early_shadow_pud, _pmd, _pte, _page), over and
    over for whole tables, and in turn with real shadow around the modules (arch/arm64/mm/kasan_init.c).
    """
    shared_pud, shared_pmd, shared_pte, zero, pud, pmd, upper, lower = (
        FREE_PAGE + number * 4096 for number in range(8)
    )
    real = 0x45000000  # memory that the kernel took for shadow
    pages = {
        shared_pud: table_page(dict.fromkeys(range(512), shared_pmd | 3)),
        shared_pmd: table_page(dict.fromkeys(range(512), shared_pte | 3)),
        shared_pte: table_page(dict.fromkeys(range(512), READ_ONLY_PAGE | zero)),
        pud: table_page({0: pmd | 3}),
        pmd: table_page(
            {64 + number: BLOCK_ENTRY | real + (number << 21) for number in range(16)}
        ),  # of 0x40000000-0x50000000
        upper: table_page({0: lower | 3} | dict.fromkeys(range(1, 512), shared_pmd | 3)),
        lower: table_page({number: (shared_pte | 3, BLOCK_ENTRY | real)[number % 2] for number in range(512)}),
    }

    def root(va):
        return machine.addresses.root_pa + 8 * (va >> 39 & 511)

    shared = range(0xFFFF6C0000000000, SHADOW_END, 1 << 39)
    words = {root(va): shared_pud | 3 for va in shared} | {root(SHADOW): pud | 3, root(MODULES_SHADOW): upper | 3}
    return words, pages


def with_kasan(monkeypatch, name="__asan_load8_noabort"):
    found = Dump._find_symbols

    def symbols(dump, path):
        known = found(dump, path)
        return lambda one: 1 if one == name else known(one)

    monkeypatch.setattr(Dump, "_find_symbols", symbols)


def test_the_shadow_of_kasan_is_not_a_linear_map_and_costs_nothing(pmem, monkeypatch):
    with_kasan(monkeypatch)
    words, pages = kasan_shadow(pmem)
    begin = time.process_time()
    dump = pmem.dump(words, pages)
    assert time.process_time() - begin < 10  # 20 TiB of page entries, 5,368,709,120 of them
    assert dump.addresses.linear_end == SHADOW
    assert dump.walk.repeated.any()
    assert not [one for one in dump.diagnostics if "referred to" in one.message]
    assert len(dump.mapping) < 2000
    codes, verdicts = pmem.caused(words, pages)
    assert codes == set()
    assert verdicts["LIN-05"].outcome is verdicts["VMM-11"].outcome is verdicts["TBL-02"].outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("name", "release", "end"),
    [
        ("__asan_load8_noabort", "6.12.117", SHADOW),
        ("__hwasan_load8_noabort", "6.12.117", 0xFFFF700000000000),
        ("__asan_load8_noabort", "5.10.262", SHADOW_END),
        ("__asan_load8_noabort", "unreadable", SHADOW_END),
        ("kasan_report", "6.12.117", SHADOW_END),
    ],
)
def test_the_linear_map_ends_where_the_shadow_begins(pmem, monkeypatch, name, release, end):
    with_kasan(monkeypatch, name)
    info = pmem.raw.vmcoreinfo
    raw = replace(pmem.raw, vmcoreinfo=replace(info, text={**info.text, "OSRELEASE": release}))
    assert Dump(raw).addresses.linear_end == end
