"""ENV-04: Hot-added memory that a crash kernel may not know of, or that it did not know of."""

import numpy as np
import pytest

from parsers.iomem import parse_iomem
from parsers.kexec import KexecCrash
from parsers.ranges import Ranges
from parsers.vmcore.rows import CrashKernelMemory, ListedMemory
from rules.engine import Outcome
from rules.environment.env04_stale_kdump import stale_kdump
from rules.facts import Facts
from rules.finding import Claim
from rules.model.memory.resources import Resources
from tests.rules.walked import judged, table

BOOT, CRASH, DIMM = (0x40000, 0x80000), (0x70000, 0x74000), (0x80000, 0xA0000)
IOMEM = b"40000000-7fffffff : System RAM\n  70000000-73ffffff : Crash kernel\n80000000-9fffffff : System RAM\n"
TOLD_ALL = [(0x40000, 0x70000), (0x74000, 0x80000), DIMM]
TOLD_BOOT = TOLD_ALL[:2]


def verdict(layout, told=None, *, loaded=None, image=None, dimm=DIMM, iomem=IOMEM):
    resources = Resources.of(parse_iomem(iomem, "iomem"))
    hot, boot = Ranges.pairs([dimm] if dimm else []), Ranges.pairs([BOOT])
    memory = table(layout, valid=boot | hot, possible=boot | hot, hotadded=hot, early=boot)
    known = [layout, resources, memory]
    if told is not None:
        start, end = np.array(told, dtype=np.int64).reshape(-1, 2).T
        known.append(ListedMemory(start_pfn=start, end_pfn=end))
    if image is not None:
        start, end = np.array(image or [], dtype=np.int64).reshape(-1, 2).T
        why = "" if image else "none of its 4 segments can be read as an ELF header"
        known.append(CrashKernelMemory(loaded=image is not False, start_pfn=start, end_pfn=end, unread=why))
    if loaded is not None:
        known.append(KexecCrash(path="kexec_crash_loaded", loaded=loaded, line=1, diagnostics=()))
    return judged(stale_kdump, Facts({type(one): one for one in known}))


def told(outcome):
    (finding,) = outcome.findings
    return finding.hit.claim, finding.hit.pfns.tuples()


def test_memory_that_the_list_of_a_crash_dump_lacks_is_proven_to_be_missing(layout):
    assert told(verdict(layout, TOLD_BOOT)) == (Claim.PROVEN, [DIMM])
    assert told(verdict(layout, [*TOLD_BOOT, (0x80000, 0x98000)])) == (Claim.PROVEN, [(0x98000, 0xA0000)])


def test_a_crash_kernel_that_was_loaded_again_is_quiet(layout):
    assert verdict(layout, TOLD_ALL).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "other",
    [
        None,
        [],
        [BOOT, DIMM],  # of a hypervisor: the memory of the crash kernel is in it
        [BOOT],
        [(0x40000, 0x41000)],  # a small core
        [(0x44000, 0x70000), (0x74000, 0x80000)],  # filtered
    ],
)
def test_any_other_list_leaves_the_crash_kernel_open(layout, other):
    assert told(verdict(layout, other)) == (Claim.SUSPECTED, [DIMM])


def test_edges_of_boot_memory_may_be_missing(layout):
    assert told(verdict(layout, [(0x40010, 0x70000), (0x74000, 0x7FFF0)])) == (Claim.PROVEN, [DIMM])


def test_none_is_loaded(layout):
    assert verdict(layout, TOLD_BOOT, loaded=False).outcome is Outcome.PASSED
    assert told(verdict(layout, TOLD_BOOT, loaded=True)) == (Claim.PROVEN, [DIMM])


def test_the_list_of_the_loaded_crash_kernel_is_proof(layout):
    assert told(verdict(layout, image=TOLD_BOOT)) == (Claim.PROVEN, [DIMM])
    assert verdict(layout, image=TOLD_ALL).outcome is Outcome.PASSED
    assert verdict(layout, image=False).outcome is Outcome.PASSED


def test_kexec_tools_leaves_memory_of_drivers_out(layout):
    """Debian's 7.3.4: the list was the same before and after `kexec -p` with 384 MiB of virtio-mem online."""
    of_driver = IOMEM.replace(b"9fffffff : System RAM", b"9fffffff : System RAM (virtio_mem)")
    plain, managed = (verdict(layout, image=TOLD_BOOT, iomem=one) for one in (IOMEM, of_driver))
    assert told(plain) == told(managed) == (Claim.PROVEN, [DIMM])
    assert ["kexec-tools" in one.findings[0].hit.message for one in (plain, managed)] == [False, True]


def test_a_list_that_cannot_be_read_says_why(layout):
    outcome = verdict(layout, image=[])
    assert told(outcome) == (Claim.SUSPECTED, [DIMM])
    assert outcome.findings[0].hit.message.endswith("none of its 4 segments can be read as an ELF header.")


def test_memory_in_the_list_that_is_gone(layout):
    outcome = verdict(layout, image=TOLD_ALL, dimm=None)
    assert told(outcome) == (Claim.PROVEN, [DIMM])
    assert outcome.findings[0].hit.title == "The crash kernel takes memory that is gone for memory"
