"""ENV-02: Poisoned page frames hold struct pages, or lie in memory that can be removed."""

from parsers.arm64 import PMD, PTE
from parsers.dmesg import parse_dmesg
from rules.engine import Outcome
from rules.finding import Claim, Severity
from rules.model.captured import Captured, build_facts
from tests.rules.drawn import VMEMMAP
from tests.rules.dumps import verdict_about, without_log


def poisoned(machine, pfn):
    log = parse_dmesg(b"[    9.000000] Memory failure: 0x%x: recovery action for free page\n" % pfn, "dmesg")
    facts = build_facts(Captured(vmcore=without_log(machine.facts), dmesg=log))
    verdict = verdict_about("ENV-02", facts)
    return [(one.hit.key, one.severity, one.hit.claim, one.hit.pfns.tuples()) for one in verdict.findings]


def test_poison_in_what_holds_struct_pages(dimm):
    first = dimm.word(dimm.entry(VMEMMAP + 64 * 0x48000, PMD)) & 0xFFFFFFFFF000
    for pfn in (first >> 12, (first >> 12) + 511):
        assert poisoned(dimm, pfn) == [("backing", Severity.CRITICAL, Claim.PROVEN, [(pfn, pfn + 1)])]
    assert poisoned(dimm, 0x41100) == []


def test_poison_where_no_walk_is_known_backs_nothing(dimm):
    first = dimm.word(dimm.entry(VMEMMAP + 64 * 0x48000, PMD)) & 0xFFFFFFFFF000
    log = parse_dmesg(b"[    9.000000] Memory failure: 0x%x: recovery action for free page\n" % (first >> 12), "dmesg")
    facts = build_facts(Captured(vmcore=without_log(dimm.facts), dmesg=log))
    assert verdict_about("ENV-02", facts).outcome is Outcome.FIRED
    for left_out in ("Vmemmap", "PageWalk"):
        assert verdict_about("ENV-02", facts, **{left_out: None}).outcome is Outcome.PASSED


def test_poison_in_hot_added_memory(dimm):
    assert poisoned(dimm, 0x88300) == [("removable", Severity.MEDIUM, Claim.PROBABLE, [(0x88300, 0x88301)])]


def test_tails_of_a_huge_page_are_all_in_one_page(hvo):
    """The pages after it were given away: poison there is nobody's struct page."""
    tail = hvo.word(hvo.entry(0xFFFFFC0001051000, PTE)) & 0xFFFFFFFFF000
    assert poisoned(hvo, tail >> 12)[0][0] == "backing"
    assert poisoned(hvo, (tail >> 12) + 1) == []
