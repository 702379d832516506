"""VMM-13: Struct pages of memory that was present at boot are not mapped."""

from parsers.arm64 import PMD
from rules.engine import Outcome
from tests.rules.captures import VULNERABLE, file_of, verdict_in
from tests.rules.dumps import pfns_of, struct_page_address, the_finding


def test_a_cleared_block_of_boot_struct_pages(pmem):
    codes, verdicts = pmem.caused({pmem.entry(struct_page_address(0x40000), PMD): 0})
    assert codes == {"VMM-13"}
    assert pfns_of(the_finding(verdicts, "VMM-13")) == [(0x40000, 0x48000)]


def test_boot_memory_that_iomem_does_not_know_is_another_boots(changed_capture):
    def more_memory(data):
        return data.replace(b"0x000000004fffffff]", b"0x000000005fffffff]")

    report = changed_capture(VULNERABLE, dmesg=more_memory)
    assert more_memory(file_of(VULNERABLE, "dmesg")) != file_of(VULNERABLE, "dmesg")
    assert verdict_in(report, "VMM-13").outcome is Outcome.UNDECIDED
