"""HVO-02: Struct pages are mapped read-only without HugeTLB vmemmap optimisation."""

from dataclasses import replace

from parsers.arm64 import PMD
from parsers.vmcore.extract import extract
from rules.engine import Outcome, builtin_rules, run
from rules.finding import Severity
from rules.model.captured import Captured, build_facts
from tests.cases import FIXTURES
from tests.rules.dumps import READ_ONLY, struct_page_address

CORE = FIXTURES / "vmcore/hvo-7.3-kasan-allocated.core.zst"


def verdict_of(facts):
    (rule,) = (one for one in builtin_rules() if one.code == "HVO-02")
    (verdict,) = run((rule,), build_facts(Captured(vmcore=facts)))
    return verdict


def test_a_dump_without_its_configuration_does_not_accuse_the_optimisation_of_a_backport():
    """7.3 of kernel.org has none on arm64, this kernel has: its page tables show the optimisation at work."""
    facts = extract(CORE)
    assert verdict_of(facts).outcome is Outcome.PASSED
    bare = replace(facts, texts=replace(facts.texts, kconfig=None, command_line=None))
    verdict = verdict_of(bare)
    assert (verdict.outcome, verdict.findings) == (Outcome.UNDECIDED, ())
    assert "is not known" in verdict.reason


def test_a_read_only_page_that_no_optimisation_makes(dimm):
    """6.12 without its configuration: an entry that maps struct pages of its own."""
    entry = dimm.entry(struct_page_address(0x48000), PMD)
    facts = dimm.dump({entry: dimm.word(entry) | READ_ONLY})
    bare = replace(facts, texts=replace(facts.texts, kconfig=None, command_line=None))
    (finding,) = verdict_of(bare).findings
    assert finding.severity is Severity.HIGH
