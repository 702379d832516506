"""Evidence of two machines or two boots is refused, whatever says so."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from analyzer.sources.identity import refuse_strangers
from analyzer.sources.read import Request, read_sources
from parsers.errors import UsageError
from parsers.vmcoreinfo import parse_vmcoreinfo

FIXTURES = Path(__file__).parents[2] / "fixtures"


def vmcore(path, phys_offset, kimage_voffset):
    addresses = SimpleNamespace(phys_offset=phys_offset, kimage_voffset=kimage_voffset)
    info = SimpleNamespace(page_size=4096)
    return SimpleNamespace(path=path, release="6.12.117", addresses=addresses, vmcoreinfo=info)


def test_crash_dumps_of_two_boots_are_refused():
    """KASLR put the kernel elsewhere; both would be read with the addresses of the last one."""
    first, second = vmcore("a", 1 << 63, 0xFFFFA59750400000), vmcore("b", 1 << 63, 0xFFFFB47BA5800000)
    refuse_strangers({"vmcore": [first, first]})
    with pytest.raises(UsageError, match="kimage_voffset is 0xffffa59750400000 in a and 0xffffb47ba5800000 in b"):
        refuse_strangers({"vmcore": [first, second]})


def test_a_crash_dump_and_the_vmcoreinfo_of_another_boot_are_refused():
    info = parse_vmcoreinfo(b"OSRELEASE=6.12.117\nPAGESIZE=4096\nNUMBER(PHYS_OFFSET)=0x40000000\n", "vmcoreinfo")
    refuse_strangers({"vmcore": [vmcore("a", 0x40000000, 0)], "vmcoreinfo": [info]})
    with pytest.raises(UsageError, match="PHYS_OFFSET"):
        refuse_strangers({"vmcore": [vmcore("a", 0x80000000, 0)], "vmcoreinfo": [info]})


def test_a_crash_dump_and_an_oops_of_another_page_size_are_refused():
    with pytest.raises(UsageError, match=r"the page size is 0x1000 in .* and 0x4000"):
        read_sources(Request((FIXTURES / "vmcore/pmem-6.12-vuln-after.core.zst", FIXTURES / "oops/pmem-6.12-16k.txt")))
