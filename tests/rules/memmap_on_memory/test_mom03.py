"""MOM-03: A block that should hold its own struct pages has them in absent memory."""

from rules.finding import Severity
from tests.rules.dumps import proven


def test_struct_pages_of_a_self_hosted_block_in_removed_memory(dimm):
    codes, verdicts = dimm.caused(dimm.struct_pages_at(17, 0xB0000000))
    assert codes == {"MOM-03"}
    assert proven(verdicts, "MOM-03", Severity.CRITICAL) == [(17 << 15, 18 << 15)]
