"""Kernel releases from the field: what they say, and what they only seem to say."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import uname as module
from parsers.errors import FormatError
from parsers.uname import parse_uname, with_banner

HOST = Path(__file__).parents[2] / "fixtures" / "host"

# text, version, flavour, arch, vendor, upstream
RELEASES = [
    ("6.12.117", (6, 12, 117), "", "", "", (6, 12, 117)),
    ("6.14", (6, 14, 0), "", "", "", (6, 14, 0)),
    ("6.14.0-rc3", (6, 14, 0), "", "", "", None),
    ("6.9.0-rc1+", (6, 9, 0), "", "", "unknown", None),
    ("5.10.104-tegra", (5, 10, 104), "tegra", "", "nvidia", None),
    ("5.14.0-427.el9.aarch64", (5, 14, 0), "", "aarch64", "rhel", None),
    ("5.14.0-427.13.1.el9_4.aarch64+64k", (5, 14, 0), "64k", "aarch64", "rhel", None),
    ("5.15.0-100.96.32.el9uek.aarch64", (5, 15, 0), "", "aarch64", "oracle", None),
    ("5.15.0-1034-aws", (5, 15, 0), "aws", "", "ubuntu", None),
    ("6.1.0-18-arm64", (6, 1, 0), "arm64", "aarch64", "debian", None),
    ("6.1.0-0.deb11.13-cloud-arm64", (6, 1, 0), "cloud-arm64", "aarch64", "debian", None),
    ("6.12.38+deb13-arm64-16k", (6, 12, 38), "arm64-16k", "aarch64", "debian", None),
    ("6.1.0-18-amd64", (6, 1, 0), "amd64", "x86_64", "debian", None),
    ("4.19.90-2107.6.0.oe1", (4, 19, 90), "", "", "openeuler", None),
    ("4.19.90-52.22.v2207.ky10.aarch64", (4, 19, 90), "", "aarch64", "kylin", None),
    ("5.15.78-android13-8-g1a2b3c-ab9876543", (5, 15, 78), "", "", "android", None),
    ("5.10.199-190.747.amzn2.aarch64", (5, 10, 199), "", "aarch64", "amazon", None),
    ("6.8.9-300.fc40.aarch64", (6, 8, 9), "", "aarch64", "fedora", None),
    ("5.14.21-150500.55.7-default", (5, 14, 21), "default", "", "suse", None),
    ("6.6.31+rpt-rpi-v8", (6, 6, 31), "rpt-rpi-v8", "", "raspberry-pi", None),
    (
        ("Linux version 5.4.0-42-generic (buildd@bos02-arm64-052) (gcc version 9.3.0 (Ubuntu 9.3.0-10ubuntu2)) "
        "#46-Ubuntu SMP Fri Jul 10 00:25:18 UTC 2020 (Ubuntu 5.4.0-42.46-generic 5.4.44)"),
        (5, 4, 0), "generic", "", "ubuntu", (5, 4, 44),
    ),
    (
        ("Linux version 6.1.0-18-arm64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld "
        "(GNU Binutils for Debian) 2.40) #1 SMP Debian 6.1.76-1 (2024-02-01)"),
        (6, 1, 0), "arm64", "aarch64", "debian", (6, 1, 76),
    ),
    (
        "Linux pi 6.6.31+rpt-rpi-v8 #1 SMP PREEMPT Debian 1:6.6.31-1+rpt1 (2024-05-29) aarch64 GNU/Linux",
        (6, 6, 31), "rpt-rpi-v8", "aarch64", "debian", None,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [(text, tuple(rest)) for text, *rest in RELEASES])
def test_release(text, expected):
    kernel = parse_uname(text.encode(), "uname")
    assert (kernel.version, kernel.flavour, kernel.arch, kernel.vendor, kernel.upstream) == expected
    assert kernel.is_vendor == (kernel.vendor != "")


def test_capture():
    kernel = parse_uname((HOST / "dimm-6.12/03-two-blocks-offline/uname").read_bytes(), "uname")
    assert kernel.raw == "6.12.117"
    assert kernel.arch == "aarch64"
    assert kernel.build.startswith("#2 SMP Sat Nov 21")
    assert not kernel.is_vendor
    assert kernel.diagnostics == ()


def test_compiler_from_a_distribution_does_not_make_the_kernel_the_distributions():
    line = (HOST / "pmem-6.12-vuln/serial.log").read_bytes().splitlines()[7]
    assert b"(Debian 12.2.0-14)" in line
    kernel = parse_uname(line, "serial.log")
    assert kernel.raw == "6.12.117"
    assert kernel.vendor == ""


def test_other_machines_are_reported():
    kernel = parse_uname(b"\nLinux pc 6.1.55 #1 SMP x86_64 x86_64 x86_64 GNU/Linux\n", "uname")
    assert kernel.arch == "x86_64"
    assert [(d.line, "x86_64" in d.message) for d in kernel.diagnostics] == [(2, True)]


def test_prompt_is_skipped():
    assert parse_uname(b"[root@h ~]# uname -r\n> 6.6.3\n", "uname").raw == "6.6.3"


@pytest.mark.parametrize(
    ("release", "asked", "answer"),
    [
        ("6.12.20", (6, 12, 20), True),
        ("6.12.19", (6, 12, 20), False),
        ("6.13.1", (6, 12, 20), True),
        ("6.14.0-rc3", (6, 14, 0), None),
        ("6.14.0-rc3", (6, 13, 9), True),
        ("6.14.0-rc3", (6, 14, 1), False),
        ("5.14.0-427.el9.aarch64", (5, 12, 3), True),
        ("5.14.0-427.el9.aarch64", (5, 14, 0), True),
        ("5.14.0-427.el9.aarch64", (5, 14, 5), None),
        ("5.14.0-427.el9.aarch64", (6, 14, 0), None),
        ("4.19.90-2107.6.0.oe1", (4, 19, 50), None),
    ],
)
def test_at_least(release, asked, answer):
    assert parse_uname(release.encode(), "osrelease").at_least(*asked) is answer


@pytest.mark.parametrize("data", [b"", b"\n", b"hello\n", b"\x7fELF\0", b"Linux\n", b"1" * 60000, b"0.0.0"])
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_uname(data, "uname")


def test_size_is_bounded():
    with pytest.raises(FormatError, match="more than"):
        parse_uname(b"6.12.1\n" * module.MAX_BYTES, "uname")


@given(st.tuples(st.integers(1, 9), st.integers(0, 30), st.integers(0, 300)), st.tuples(*[st.integers(0, 300)] * 3))
def test_plain_releases_compare_as_tuples(version, asked):
    kernel = parse_uname("{}.{}.{}".format(*version).encode(), "osrelease")
    assert kernel.at_least(*asked) is (version >= asked)


@given(st.text(max_size=80) | st.text("Linux version6.-#\n ", max_size=80))
def test_any_text_parses_or_raises_format_error(text):
    with suppress(FormatError):
        assert parse_uname(text.encode("utf-8", "surrogatepass"), "uname").raw in text


def test_node_name():
    assert parse_uname(b"Linux web1 6.12.117 #1 SMP aarch64 GNU/Linux", "uname").nodename == "web1"
    assert parse_uname(b"6.12.117", "osrelease").nodename == ""


@pytest.mark.parametrize(
    ("text", "contains", "says_nothing_of"),
    [
        ("6.12.113+deb13-arm64", (6, 12, 113), (6, 12, 114)),
        ("7.3.4+deb13-arm64-16k", (7, 3, 4), (7, 3, 5)),
        ("6.8.9-300.fc40.aarch64", (6, 8, 9), (6, 8, 10)),
        ("6.1.0-56-arm64", (6, 1, 0), (6, 1, 1)),
        ("5.14.0-427.el9.aarch64", (5, 14, 0), (5, 14, 1)),
    ],
)
def test_vendor_kernel_contains_the_release_it_is_named_after(text, contains, says_nothing_of):
    kernel = parse_uname(text.encode(), "uname")
    assert kernel.at_least(*contains) is True
    assert kernel.at_least(*says_nothing_of) is None


def test_banner_completes_a_bare_release_of_the_same_build_only():
    bare = parse_uname(b"6.1.0-56-arm64", "OSRELEASE")
    text = "Linux version {} (debian-kernel@lists.debian.org) (gcc-12) #1 SMP Debian 6.1.192-1 (2026-07-01)"
    banner = parse_uname(text.format("6.1.0-56-arm64").encode(), "dmesg")
    other = parse_uname(text.format("6.1.0-55-arm64").encode(), "dmesg")
    assert with_banner(bare, banner).upstream == (6, 1, 192)
    assert with_banner(bare, banner).path == "OSRELEASE"
    assert with_banner(bare, other).upstream is None
    assert with_banner(bare, None) is bare
