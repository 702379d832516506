"""Evidence of x86, RISC-V, PowerPC or s390 is refused by name, or left out and named beside that of an arm64 host."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request, read_sources
from parsers.cpuinfo import looks_like_cpuinfo, parse_cpuinfo
from parsers.errors import ArchitectureError, FormatError
from parsers.iomem import parse_iomem
from parsers.kinds import KINDS
from tests.analyzer.conftest import CAPTURES

HOST = CAPTURES / "dimm-6.12/02-dimm-online"
FOREIGN = {
    "cpuinfo of x86": (
        "cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz\n",
        "x86",
    ),
    "cpuinfo of RISC-V": ("cpuinfo", "processor\t: 0\nhart\t\t: 2\nisa\t\t: rv64imafdc\nmmu\t\t: sv39\n", "RISC-V"),
    "cpuinfo of PowerPC": ("cpuinfo", "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "PowerPC"),
    "cpuinfo of s390": ("cpuinfo", "vendor_id       : IBM/S390\n# processors    : 2\n", "s390"),
    "cpuinfo of 32-bit Arm": ("cpuinfo", "processor\t: 0\nCPU architecture: 7\nCPU part\t: 0xc07\n", "32-bit Arm"),
    "iomem of x86": (
        "iomem",
        "00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n000a0000-000bffff : PCI Bus 0000:00\n"
        "000f0000-000fffff : System ROM\n00100000-7ffdcfff : System RAM\n  24000000-24e00eb0 : Kernel code\n"
        "fec00000-fec003ff : IOAPIC 0\nfee00000-fee00fff : Local APIC\n",
        "x86",
    ),
    "iomem of RISC-V": (
        "iomem",
        "80000000-8007ffff : Reserved\n80080000-ffffffff : System RAM\n  80202000-819fffff : Kernel image\n",
        "RISC-V",
    ),
    "boot log of x86": (
        "dmesg",
        "[    0.000000] Linux version 5.14.0-427.el9.x86_64 (mockbuild@x86-64-01) (gcc (GCC) 11.4.1) #1 SMP\n"
        "[    0.000000] Command line: BOOT_IMAGE=(hd0,msdos1)/vmlinuz-5.14.0-427.el9.x86_64 ro\n",
        "x86-64",
    ),
    "boot log of x86 without its banner": (
        "dmesg",
        "[    0.000000] Command line: BOOT_IMAGE=/vmlinuz ro\n"
        "[    0.000000] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'\n",
        "x86",
    ),
    "boot log of PowerPC": (
        "dmesg",
        "[    0.000000] hash-mmu: Page sizes from device-tree:\n[    0.000000] Linux version 5.14.0 (a@b) (gcc) #1\n",
        "PowerPC",
    ),
    "boot log of RISC-V": (
        "dmesg",
        "[    0.000000] Linux version 6.6.0 (a@b) (gcc) #1 SMP\n[    0.000000] riscv: base ISA extensions acdfim\n",
        "RISC-V",
    ),
    "release of x86": ("uname", "Linux pc 6.1.0-18-amd64 #1 SMP Debian 6.1.76-1 x86_64 GNU/Linux\n", "x86_64"),
    "release of PowerPC": ("uname", "Linux pc 5.14.0-427.el9.ppc64le #1 SMP ppc64le GNU/Linux\n", "ppc64le"),
    "zoneinfo of a 32-bit kernel": (
        "proc_zoneinfo",
        "Node 0, zone   Normal\n  pages free     100\n        spanned  4096\nNode 0, zone  HighMem\n",
        "32-bit kernel",
    ),
    "meminfo of a 32-bit kernel": (
        "proc_meminfo",
        "MemTotal:        2065384 kB\nHighTotal:       1310720 kB\nHighFree:         901204 kB\n",
        "32-bit kernel",
    ),
    "configuration of x86": (
        "config",
        "# Linux/x86 6.1.76 Kernel Configuration\nCONFIG_X86_64=y\nCONFIG_X86=y\n",
        "x86",
    ),
}
SILENT = "MemTotal:        4005372 kB\nMemFree:         3717580 kB\nHugePages_Total:       0\n"


@pytest.fixture(params=FOREIGN.values(), ids=FOREIGN)
def foreign(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    return request.param


def test_alone_it_is_refused_by_name(tmp_path: Path, ptaudit, foreign: tuple[str, str, str]) -> None:
    _, text, what = foreign
    path = tmp_path / "of-some-name"
    path.write_text(text)
    done = ptaudit("audit", path)
    assert (done.status, done.out) == (2, "")
    assert what in done.err
    assert "arm64" in done.err
    assert done.err.count("\n") == 1


def test_beside_what_shows_nothing_it_is_refused(tmp_path: Path, foreign: tuple[str, str, str]) -> None:
    name, text, what = foreign
    (tmp_path / name).write_text(text)
    (tmp_path / "meminfo").write_text(SILENT)
    with pytest.raises(ArchitectureError, match=what):
        audit(Request((tmp_path,)))


def test_beside_an_arm64_host_it_is_left_out_and_named(tmp_path: Path, foreign: tuple[str, str, str]) -> None:
    name, text, _ = foreign
    home = tmp_path / "host"
    shutil.copytree(HOST, home)
    (home / name).unlink(missing_ok=True)
    expected = audit(Request((home,))).overall.state
    (home / name).write_text(text)
    read = read_sources(Request((home,)))
    reasons = {Path(one.path).name: one.reason for one in read.unread}
    assert "arm64" in reasons[name]
    assert {one.kind for one in read.sources} >= {"ptdump", "zoneinfo", "memory_blocks"}
    assert audit(Request((home,))).overall.state == expected


def test_another_host_beside_an_arm64_host_is_refused(tmp_path: Path, foreign: tuple[str, str, str]) -> None:
    name, text, what = foreign
    (tmp_path / name).write_text(text)
    (tmp_path / "zoneinfo").write_bytes((HOST / "zoneinfo").read_bytes() + b"\n")
    with pytest.raises(ArchitectureError, match=what):
        read_sources(Request((HOST, tmp_path)))


def test_an_arm64_log_may_quote_others(tmp_path: Path) -> None:
    log = (HOST / "dmesg").read_bytes()
    quoted = FOREIGN["boot log of x86"][1].encode() + FOREIGN["boot log of x86 without its banner"][1].encode()
    (tmp_path / "dmesg").write_bytes(log + quoted)
    assert [one.kind for one in read_sources(Request((tmp_path / "dmesg",))).sources] == ["dmesg"]


def test_resources_of_arm64_servers_are_not_taken_for_another_machine() -> None:
    text = (
        b"00000000-3fffffff : PCI Bus 0000:00\n40000000-7fffffff : System RAM\n  40210000-4186ffff : Kernel code\n"
        b"  41870000-41d9ffff : reserved\n  41da0000-4211ffff : Kernel data\n8000000000-ffffffffff : PCI Bus 0000:00\n"
    )
    assert len(parse_iomem(text, "iomem")) == 6


def test_cpuinfo_of_arm64_says_so_for_what_does_not(tmp_path: Path) -> None:
    (tmp_path / "uname").write_text(FOREIGN["release of x86"][1])
    (tmp_path / "meminfo").write_text(SILENT)
    (tmp_path / "cpuinfo").write_bytes(KINDS["cpuinfo"].sample)
    read = read_sources(Request((tmp_path,)))
    assert {one.reason for one in read.unread} == {"the release of another architecture: arm64 is audited"}


@pytest.mark.parametrize("text", [b"      4 CPU architecture: 8\n      4 CPU part\t: 0xd0c\n", KINDS["cpuinfo"].sample])
def test_cpuinfo_as_it_is_collected(text: bytes) -> None:
    assert KINDS["cpuinfo"].parse(text, "cpuinfo")


@pytest.mark.parametrize("name", ["cortex-a72-7.3", "cortex-a76-6.1", "max-7.3"])
def test_cpuinfo_of_guests(tmp_path: Path, name: str) -> None:
    recorded = (CAPTURES.parent / "host/cpuinfo" / name).read_bytes()
    shutil.copytree(HOST, tmp_path / "host")
    shutil.copy(CAPTURES.parent / "host/cpuinfo" / name, tmp_path / "host/cpuinfo")
    assert "cpuinfo" in {one.kind for one in read_sources(Request((tmp_path / "host",))).sources}
    plain = re.sub(rb"^ *\d+ ", b"", recorded, flags=re.MULTILINE)  # as the kernel prints it
    assert looks_like_cpuinfo(plain)
    assert parse_cpuinfo(plain, "cpuinfo").diagnostics == ()


def test_cpuinfo_that_says_nothing() -> None:
    with pytest.raises(FormatError, match="CPU architecture: 8"):
        KINDS["cpuinfo"].parse(b"processor\t: 0\n", "cpuinfo")
