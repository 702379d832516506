"""MOM-09: An offline block still holds its own struct pages."""

from rules.finding import Severity
from tests.rules.dumps import proven


def test_an_offline_block_that_holds_its_own_struct_pages(dimm):
    codes, verdicts = dimm.caused(dimm.offline(18))
    assert codes == {"MOM-09"}
    assert proven(verdicts, "MOM-09", Severity.INFO) == [(18 << 15, 19 << 15)]
