"""The kernel's release: ``uname -a``, ``uname -r``, /proc/version, the boot banner.

The release is the string that says least for sure: vendors keep a base version for years and backport
into it.  A kernel whose release is not plainly mainline's or stable's is flagged, and `KernelRelease.at_least`
answers None where only the vendor knows.
"""

from __future__ import annotations

import re
from dataclasses import replace

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import text_of, without_prompts
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "KernelRelease", "parse_uname", "with_banner"]

MAX_BYTES = 64 << 10

Version = tuple[int, int, int]

_RELEASE = r"(?P<release>[1-9]\d?\.\d{1,3}[^\s()]{0,120})"
_SHAPES = (
    expression(rf"Linux version {_RELEASE} (?:\([^()\n]*\) )?(?P<rest>[^\n]*)"),
    expression(rf"^(?:(?:Kernel|uname): ?)?Linux (?P<node>\S+) {_RELEASE} (?P<rest>[^\n]*)", re.MULTILINE),
    expression(rf"^[^\S\n]*{_RELEASE}(?P<rest>)[^\S\n]*$", re.MULTILINE),
)
_VERSION = expression(r"(\d+)\.(\d+)(?:\.(\d{1,5}))?(.*)")
_MACHINE = expression(
    r"\b(aarch64_be|aarch64|x86_64|i[3-6]86|armv\d\w*|ppc64(?:le)?|s390x|riscv(?:32|64)|loongarch64|mips\w*)\b"
)
_RELEASE_MACHINE = {"arm64": "aarch64", "aarch64": "aarch64", "amd64": "x86_64", "x86_64": "x86_64"}
_RELEASE_WORDS = expression(r"x86_64|[a-z0-9]+")
_CANDIDATE = expression(r"-rc(?P<rc>\d{1,3})\b")
_PLAIN = expression(r"(?:-rc\d+)?")
_FLAVOUR = expression(r"[-+](?:deb\d+-|bpo-)?(?P<flavour>(?:[a-z]+-)*(?:arm64|amd64|[a-z]+)(?:-v\d|-\d+k)?|\d+kb?)$")

# First match wins, on the release followed by the build string.
_VENDORS = (
    ("android", expression(r"-android\d+|-ab[A-Z]?\d{6,}")),
    (
        "debian",
        expression(r"\bDebian\b|\+(?:deb\d+|bpo)\b|^\S+-[\w.]+-(?:cloud-|rt-)?(?:arm64|amd64)(?:-16k)?(?:\s|$)"),
    ),
    ("raspberry-pi", expression(r"rpi|-v8(?:-16k)?\+?(?:\s|$)|-raspi\b")),
    (
        "ubuntu",
        expression(r"Ubuntu|^\S+-\d+-(?:generic|lowlatency|aws|azure|gcp|gke|ibm|kvm|oracle|oem|nvidia|xilinx)"),
    ),
    ("oracle", expression(r"^\S*uek")),
    ("rhel", expression(r"^\S*\.el\d")),
    ("fedora", expression(r"^\S*\.fc\d")),
    ("amazon", expression(r"^\S*[.-]amzn")),
    ("openeuler", expression(r"^\S*\.oe\d")),
    ("kylin", expression(r"^\S*\.ky\d")),
    ("alibaba", expression(r"^\S*\.(?:al|an)\d")),
    ("microsoft", expression(r"^\S*(?:\.azl|\.cm\d|-microsoft)")),
    ("nvidia", expression(r"^\S*tegra")),
    ("suse", expression(r"^\S*-(?:default|64kb|preempt|azure)(?:\s|$)")),
)
_FROZEN_SUBLEVEL = frozenset({"rhel", "openeuler", "kylin"})
"""Vendors whose sublevel stays for years while patches of all kinds are taken over: it proves nothing."""
_UPSTREAM = expression(r"\bDebian (\d+)\.(\d+)\.(\d+)|\bUbuntu \S+ (\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class KernelRelease:
    """A kernel release taken apart.

    >>> kernel = parse_uname(b"Linux h 6.1.0-18-arm64 #1 SMP Debian 6.1.76-1 (2024-02-01) aarch64 GNU/Linux", "uname")
    >>> kernel.version, kernel.extra, kernel.flavour, kernel.arch, kernel.vendor, kernel.upstream
    ((6, 1, 0), '-18-arm64', 'arm64', 'aarch64', 'debian', (6, 1, 76))
    >>> kernel.at_least(6, 1, 72), kernel.at_least(6, 12, 20)
    (True, None)
    >>> parse_uname(b"6.12.19", "osrelease").at_least(6, 12, 20)
    False
    """

    path: str
    line: int
    raw: str
    """The release as ``uname -r`` prints it."""
    version: Version
    """(major, minor, patch) of the release; a vendor's patch is often 0 or its own."""
    extra: str
    """What follows the version."""
    flavour: str
    """``arm64``, ``aws``, ``64k`` …; empty if there is none."""
    arch: str
    """Machine as ``uname -m`` prints it; empty if the text does not say."""
    vendor: str
    """Who built it; empty for a plain mainline or stable release, ``unknown`` for a suffix that names no builder."""
    rc: int | None
    """Number of the release candidate."""
    upstream: Version | None
    """The stable release that the kernel contains, where that is known; None for a release candidate."""
    build: str
    """The text after the release: compiler, build number, date."""
    nodename: str = ""
    """The host's name as ``uname -n`` prints it; empty if the text does not say."""
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def is_vendor(self) -> bool:
        """The patch level proves nothing: patches may have been added and left out."""
        return self.vendor != ""

    @property
    def series(self) -> tuple[int, int]:
        """(major, minor)."""
        return self.version[:2]

    def at_least(self, major: int, minor: int, patch: int = 0) -> bool | None:
        """Whether it contains everything of an upstream release; None where the release does not say.

        A vendor's kernel contains the release that it is named after: some vendors move the sublevel (Debian 13's
        6.12.113+deb13, Fedora, Android), some keep 0 (RHEL, Debian 12). What it lacks from there on, it does not say.
        """
        asked = (major, minor, patch)
        if self.upstream is not None and self.upstream >= asked:
            return True
        if self.rc is not None:
            return None if asked == (*self.series, 0) else (*self.series, 0) > asked
        if self.is_vendor:
            frozen = self.vendor in _FROZEN_SUBLEVEL
            return True if ((*self.series, 0) if frozen else self.version) >= asked else None
        return False


def with_banner(release: KernelRelease, banner: KernelRelease | None) -> KernelRelease:
    """The release with what the boot banner says of the same build: OSRELEASE of a dump and ``uname -r`` lack it."""
    if banner is None or release.build or banner.raw != release.raw:
        return release
    return replace(
        release, build=banner.build, vendor=banner.vendor, upstream=banner.upstream, arch=release.arch or banner.arch
    )


def parse_uname(data: bytes, path: str) -> KernelRelease:
    """Read a release from the text of ``uname``, /proc/version or a boot banner; FormatError without one."""
    text = without_prompts(text_of(data, path, limit=MAX_BYTES, what="kernel release")).decode("utf-8", "replace")
    match = next(filter(None, (shape.search(text) for shape in _SHAPES)), None)
    if match is None:
        raise FormatError("no kernel release", path=path)
    release, rest = match["release"], match["rest"].strip()
    line = text.count("\n", 0, match.start("release")) + 1
    parts = _VERSION.fullmatch(release)
    if parts is None:
        raise FormatError(f"{release!r} is not a kernel release", path=path, line=line)
    version = (int(parts[1]), int(parts[2]), int(parts[3] or 0))
    plain = _PLAIN.fullmatch(parts[4])
    kernel_build = rest[max(rest.find("#"), 0) :]  # the compiler precedes it, with the compiler's vendor
    vendor = _vendor(f"{release} {kernel_build}", plain=plain is not None)
    candidate = _CANDIDATE.match(parts[4])
    rc = int(candidate["rc"]) if candidate else None
    arch = _arch(release, rest)
    flavour = _FLAVOUR.search(parts[4].replace(f".{arch}", "")) if vendor else None
    return KernelRelease(
        path=path,
        line=line,
        raw=release,
        version=version,
        extra=parts[4],
        flavour=flavour["flavour"] if flavour else "",
        arch=arch,
        vendor=vendor,
        rc=rc,
        upstream=_upstream(kernel_build) if vendor else version if rc is None else None,
        build=rest,
        nodename=match.groupdict().get("node", ""),
        diagnostics=() if arch in {"", "aarch64"} else (Diagnostic(f"the machine is {arch}, not aarch64", path, line),),
    )


def _vendor(text: str, *, plain: bool) -> str:
    return next((name for name, shape in _VENDORS if shape.search(text)), "" if plain else "unknown")


def _upstream(build: str) -> Version | None:
    match = _UPSTREAM.search(build)
    if match is None:
        return None
    major, minor, patch = (int(group) for group in match.groups() if group is not None)
    return major, minor, patch


def _arch(release: str, rest: str) -> str:
    """The machine that ``uname -a`` names last, or else the one in the release."""
    named = _MACHINE.findall(rest)
    if named:
        return str(named[-1])
    words = _RELEASE_WORDS.findall(release)
    return next((_RELEASE_MACHINE[word] for word in reversed(words) if word in _RELEASE_MACHINE), "")
