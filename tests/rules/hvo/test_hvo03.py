"""HVO-03: Read-only struct pages share a page across more than one huge page, or where none can be."""

from parsers.arm64 import PTE
from parsers.vmcore.dump import Dump
from rules.finding import Claim, Severity
from tests.rules.dumps import TAILS, pfns_of, the_finding


def test_tails_that_share_the_page_of_another_huge_page(hvo):
    other = hvo.word(hvo.entry(TAILS + 0x8000, PTE))
    codes, verdicts = hvo.caused({hvo.entry(TAILS + 4096 * index, PTE): other for index in range(7)})
    assert codes == {"HVO-03"}
    finding = the_finding(verdicts, "HVO-03")
    assert (finding.severity, finding.hit.claim, pfns_of(finding)) == (
        Severity.CRITICAL,
        Claim.PROVEN,
        [(0x41440, 0x41800)],
    )


def test_shared_tails_where_there_is_no_huge_page(hvo):
    """The pool of the only size that is in use says that it is empty; there are 16 huge pages."""
    dump = Dump(hvo.raw)
    states = dump.global_at("hstates") + 2 * dump.size("hstate")
    pool = states + dump.offset("hstate", "nr_huge_pages") - hvo.addresses.kimage_voffset
    assert hvo.word(pool % (1 << 64)) == 16
    codes, verdicts = hvo.caused({pool % (1 << 64): 0})
    assert codes == {"HVO-03"}
    assert len(verdicts["HVO-03"].findings) == 16
