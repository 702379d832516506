"""LIN-10: Most of the linear map is made of single pages."""

import pytest

from rules.finding import Claim
from tests.rules.drawn import BLOCK, CONT, GIB, MIB, NORMAL, RAM, Drawn

PAGES = Drawn(linear=((RAM, RAM + GIB, "PTE", NORMAL),))


@pytest.mark.parametrize(
    ("release", "cmdline", "config", "reason"),
    [
        ("6.12.5", "rodata=full\n", "", "rodata=full on the command line"),
        ("6.12.5", "quiet\n", "CONFIG_RODATA_FULL_DEFAULT_ENABLED=y\n", "rodata=full, the default of this kernel"),
        ("6.12.5", "rodata=on\n", "CONFIG_RODATA_FULL_DEFAULT_ENABLED=y\n", "do not say why"),
        ("6.18.5", "quiet\n", "", "rodata=full, the default of this kernel"),
        ("6.18.5", "rodata=noalias\n", "", "do not say why"),
        ("6.12.5", "debug_pagealloc=on\n", "", "debug_pagealloc=on on the command line"),
        ("6.12.5", "quiet\n", "CONFIG_KFENCE=y\nCONFIG_KFENCE_SAMPLE_INTERVAL=100\n", "do not say why"),
        ("6.12.5", "kfence.sample_interval=0\n", "CONFIG_KFENCE=y\n", "KFENCE, which may be enabled after the boot"),
    ],
)
def test_the_reason_is_named(tmp_path, release, cmdline, config, reason):
    files = {"cmdline": cmdline, "config": f"CONFIG_ARM64_4K_PAGES=y\n{config}"}
    machine = Drawn(linear=PAGES.linear, release=release, files=files)
    (finding,) = machine.verdict(tmp_path, "LIN-10").findings
    assert reason in finding.hit.message
    assert "4 KiB 100.0 %" in finding.hit.message
    assert "tables take 2 MiB" in finding.hit.message


def test_blocks_are_not_reported(tmp_path):
    assert not Drawn().verdict(tmp_path, "LIN-10").findings


HALF, END = RAM + GIB // 2, RAM + GIB


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        (((RAM, HALF, "PMD", BLOCK), (HALF, END, "PTE", NORMAL)), None),
        (((RAM, HALF - 2 * MIB, "PMD", BLOCK), (HALF - 2 * MIB, END, "PTE", NORMAL)), "50 %"),
        (((RAM, END, "PTE", CONT),), None),
        (((RAM, HALF, "PMD", BLOCK), (HALF, END - 2 * MIB, "PTE", NORMAL), (END - 2 * MIB, END, "PTE", CONT)), None),
        # What is not valid is not part of the map.
        (((RAM, HALF, "PMD", f"F {BLOCK}"), (HALF, END, "PTE", NORMAL)), "100 %"),
    ],
)
def test_more_than_half_of_the_valid_map_is_made_of_single_pages(tmp_path, rows, share):
    found = Drawn(linear=rows).verdict(tmp_path, "LIN-10").findings
    assert all(one.hit.claim is Claim.PROBABLE for one in found)
    assert [one.hit.title for one in found] == ([f"{share} of the linear map is made of single pages"] if share else [])
