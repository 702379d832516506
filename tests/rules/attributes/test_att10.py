"""ATT-10: A block of the linear map is invalid, and the kernel takes it for a table or for valid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from parsers.arm64 import PMD, PUD, Attr, MemType
from parsers.mapping import Mapping
from parsers.uname import KernelRelease, parse_uname
from rules.attributes.att10_invalid_large_leaf import invalid_large_leaf
from rules.engine import Outcome, run
from rules.finding import Claim, Severity
from rules.model.memory.regions import LinearMap
from tests.rules.attributes.machines import HALF, NOT, invalid, outcome, walked
from tests.rules.drawn import BLOCK, LINEAR, MIB, RAM, Drawn
from tests.rules.dumps import linear_address, pfns_of, the_finding
from tests.rules.walked import PFN, VALID

MARKED, DAMAGED = Attr.PRESENT | Attr.NG, Attr(Attr.PRESENT)


@pytest.mark.parametrize(
    ("release", "attrs", "level", "isolated", "expected"),
    [
        ("6.18.3", DAMAGED, 2, False, True),
        ("6.18.3", DAMAGED, 3, False, False),
        ("6.18.3", VALID, 2, False, False),
        ("6.18.3", MARKED, 2, False, False),
        ("6.18.3", MARKED, 2, True, True),  # with page-table isolation the mark is in every entry
        ("7.2.0", MARKED, 2, True, False),
        ("7.2.0", DAMAGED, 2, True, True),
        ("6.12.5", MARKED, 2, False, True),
    ],
)
def test_invalid_blocks_in_a_crash_dump(layout, release, attrs, level, isolated, expected):
    good = (LINEAR, 512, PFN, 2, VALID | (Attr.NG if isolated else 0), MemType.NORMAL, False)
    bad = (LINEAR + 2 * MIB, 512, PFN + 512, level, attrs, MemType.NORMAL, False)
    hole = (LINEAR + 4 * MIB, 512, 0, 2, Attr(0), MemType.NORMAL, False)
    facts = walked(layout, good, bad, hole)
    facts.known[KernelRelease] = parse_uname(release.encode(), "uname")
    (verdict,) = run([invalid_large_leaf], facts)
    assert (verdict.outcome, verdict.reason) == (Outcome.FIRED if expected else Outcome.PASSED, "")
    found = [one for finding in verdict.findings for one in finding.hit.pfns.tuples()]
    assert found == [(PFN + 512, PFN + 1024) for _ in range(expected)]


@pytest.mark.parametrize("release", ["6.12.5", "6.18.3"])
def test_parts_of_the_linear_map_that_the_dump_does_not_hold(layout, release):
    facts = walked(layout, (LINEAR, 512, PFN, 2, VALID, MemType.NORMAL, False))
    seen = replace(facts.known[Mapping], observed_last=np.array([LINEAR + 2 * MIB - 1], dtype=np.uint64))
    facts.known[LinearMap] = LinearMap.of(seen, layout)
    facts.known[KernelRelease] = parse_uname(release.encode(), "uname")
    assert run([invalid_large_leaf], facts)[0].outcome is Outcome.UNDECIDED


def test_a_walk_without_a_linear_map_shows_nothing(layout):
    facts = walked(layout, (LINEAR, 512, PFN, 2, VALID, MemType.NORMAL, False))
    del facts.known[LinearMap]
    facts.known[KernelRelease] = parse_uname(b"6.12.5", "uname")
    assert run([invalid_large_leaf], facts)[0].outcome is NOT


BBM = "[    0.000000] CPU features: detected: BBM Level 2 without TLB conflict abort\n"


def oops(entry):
    place = "[ffff000199600000] pgd=18000000ffff7403, p4d=18000000ffff7403, pud=18000000ffff6403"
    return (
        "[  101.000000] Unable to handle kernel paging request at virtual address ffff000199600000\n"
        f"[  103.000000] {place}, pmd={entry:016x}\n"
        "[  104.000000] Internal error: Oops: 0000000096000006 [#1]  SMP\n"
    )


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", Outcome.PASSED),
        (BBM, Outcome.UNDECIDED),
        (oops(0x10), Outcome.FIRED),
        (oops(0x12), Outcome.FIRED),
        (oops(0xE8000199600704), Outcome.FIRED),
        (oops(0), Outcome.PASSED),
        (oops(0x11), Outcome.PASSED),
    ],
)
def test_oopses_on_invalid_blocks(tmp_path, log, expected):
    verdict = Drawn(release="6.18.3", dmesg=log).verdict(tmp_path, "ATT-10")
    assert verdict.outcome is expected


def test_an_oops_says_enough_on_a_cpu_with_bbml2(tmp_path):
    assert Drawn(release="6.18.3", dmesg=BBM + oops(0x10)).verdict(tmp_path, "ATT-10").reason == ""


def test_a_text_dump_shows_no_invalid_blocks(tmp_path):
    rows = ((RAM, HALF, "PMD", BLOCK), (HALF, HALF + 2 * MIB, "PMD", invalid(BLOCK)))
    machine = Drawn(release="6.18.3", linear=rows)
    assert outcome(machine, tmp_path, "ATT-10") is Outcome.PASSED
    assert outcome(replace(machine, files={"dmesg": ""}), tmp_path, "ATT-10") is Outcome.UNDECIDED


def test_an_invalid_block_of_the_linear_map(pmem):
    entry = pmem.entry(linear_address(0x4D000000), PMD)
    words = {entry: pmem.word(entry) & ~1}
    codes, verdicts = pmem.caused(words)
    assert codes == {"ATT-10"}
    finding = the_finding(verdicts, "ATT-10")
    assert (finding.severity, finding.hit.claim, pfns_of(finding)) == (
        Severity.CRITICAL,
        Claim.PROBABLE,
        [(0x4D000, 0x4D200)],
    )
    assert "too old to make any block invalid: they were damaged" in finding.hit.message
    assert "0x00e800004d000704" in " ".join(one.text for one in finding.hit.evidence)


NG = 1 << 11


@pytest.mark.parametrize(
    ("release", "marked", "words"),
    [
        ("6.18.23", False, "fixed in 7.1, 7.0.1, 6.18.24"),
        ("6.18.24", False, "marks those that it made invalid itself"),
        ("6.18.24", True, None),
        ("7.1.0", False, "marks those that it made invalid itself"),
        ("7.1.0", True, None),
        ("6.18.3-vendor", True, None),  # the mark shows that the vendor took the fix over
        ("6.6.0-vendor", True, "unknown took a166563e7ec3 over"),
        ("6.17.13", True, "too old"),
    ],
)
def test_a_fixed_kernel_marks_the_blocks_that_it_made_invalid(pmem, release, marked, words):
    entry = pmem.entry(linear_address(0x4D000000), PMD)
    verdict = pmem.audit({entry: pmem.word(entry) & ~1 | (NG if marked else 0)}, release=release)["ATT-10"]
    assert [words in one.hit.message for one in verdict.findings] == ([True] if words else [])
    assert verdict.outcome is (Outcome.FIRED if words else Outcome.PASSED)
    assert pmem.audit(release=release)["ATT-10"].outcome is Outcome.PASSED


def test_an_invalid_table_of_the_linear_map(pmem):
    entry = pmem.entry(linear_address(0x4D000000), PUD)
    codes, verdicts = pmem.caused({entry: pmem.word(entry) & ~1})
    assert codes == {"ATT-10"}
    assert pfns_of(the_finding(verdicts, "ATT-10")) == [(0x40000, 0x80000)]


def test_tables_that_the_dump_lacks_may_hold_invalid_blocks(pmem):
    table = pmem.table(linear_address(0x4D000000), PMD)
    assert pmem.audit(missing=[table])["ATT-10"].outcome is Outcome.UNDECIDED
