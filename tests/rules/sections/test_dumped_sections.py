"""Rules about sections and self-hosted struct pages that need a crash dump."""

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from tests.cases import case
from tests.rules.dumps import SELF_HOSTED

FROM_DUMPS = ("SEC-01", "SEC-05", "SEC-06", "SEC-07", "SEC-09", "SEC-12", "SEC-13")


def test_nothing_is_wrong_with_the_machines(dimm, pmem):
    for machine in (dimm, pmem):
        verdicts = machine.audit()
        for code in (*FROM_DUMPS, *SELF_HOSTED, "SEC-02", "SEC-03", "SEC-08"):
            assert verdicts[code].outcome in {Outcome.PASSED, Outcome.NOT_APPLICABLE}, code
    assert {dimm.audit()[code].outcome for code in SELF_HOSTED} == {Outcome.PASSED}


def test_boot_memory_is_valid_whatever_the_map_says(dimm):
    codes, _ = dimm.caused({dimm.subsections(9): 0})
    assert codes == set()


@pytest.mark.parametrize("code", [*FROM_DUMPS, *SELF_HOSTED])
def test_no_rule_of_a_dump_passes_without_one(code):
    (verdict,) = audit(Request((case("SEC-02/quiet-offline"),)), only=[code]).verdicts
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.collect == ("a crash dump (/proc/vmcore, or dump-guest-memory from the hypervisor)",)
