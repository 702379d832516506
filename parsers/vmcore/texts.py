"""Texts that a kernel keeps in its memory: command line, configuration, log, the host's name."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from parsers.cmdline import CommandLine, parse_cmdline
from parsers.dmesg import Dmesg, parse_dmesg
from parsers.errors import FormatError, PtauditError
from parsers.expressions import expression
from parsers.kconfig import Kconfig, parse_kconfig
from parsers.records import dataclass
from parsers.uname import KernelRelease, parse_uname
from parsers.vmcore.dump import Dump
from parsers.vmcore.memory import MissingMemoryError
from parsers.vmcore.printk import read_dmesg

__all__ = ["Texts", "read_build", "read_cmdline", "read_config", "read_nodename", "until_the_crash"]

T = TypeVar("T")

_MAX_CONFIG = 16 << 20
_CONFIG_START = b"IKCFG_ST"
_NAME_BYTES = 65  # of each member of struct new_utsname: sysname, nodename … (include/uapi/linux/utsname.h)
_UTS_RELEASE, _UTS_VERSION = 2, 3  # members of struct new_utsname, by their order
_BANNER = expression(rb"Linux version (\S+) [^\n\0]*?(#\d[^\n\0]*)\n")
_MAX_BANNER = 1 << 10
_MAX_IMAGE = 512 << 20
_SEARCH_STEP = 4 << 20
_GZIP = 31  # zlib's wbits for a gzip member


@dataclass(frozen=True, eq=False, kw_only=True)
class Texts:
    """The texts of a dump: as they are in its memory, and as the parsers of their kinds read them; None if missing."""

    cmdline: bytes | None
    config: bytes | None
    dmesg: bytes | None
    kernel_release: KernelRelease | None
    command_line: CommandLine | None
    kconfig: Kconfig | None
    log: Dmesg | None

    @classmethod
    def of(cls, dump: Dump, release: str | None, *, with_dmesg: bool, with_nodename: bool) -> Texts:
        """Read and parse all; `Dump.unreadable` says what is damaged.

        Without ``with_nodename`` the page that holds the host's name is not read.
        """

        def parsed(what: str, parse: Callable[[bytes, str], T], data: bytes | None) -> T | None:
            return dump.attempt(what, lambda: parse(data, dump.path)) if data else None

        cmdline = dump.attempt("command line", lambda: read_cmdline(dump))
        config = dump.attempt("kernel configuration", lambda: read_config(dump))
        dmesg = dump.attempt("kernel log", lambda: read_dmesg(dump)) if with_dmesg else None
        log = parsed("kernel log", parse_dmesg, dmesg)
        build = read_build(dump, release, with_nodename=with_nodename) if release else ""
        return cls(
            cmdline=cmdline,
            config=config,
            dmesg=dmesg,
            kernel_release=parsed("kernel release", parse_uname, _release_text(release, build)),
            command_line=parsed("command line", parse_cmdline, cmdline and cmdline + b"\n"),
            kconfig=parsed("kernel configuration", parse_kconfig, config),
            log=None if log is None else until_the_crash(log),
        )


def _release_text(release: str | None, build: str) -> bytes:
    return (f"Linux version {release} {build}" if release and build else release or "").encode()


def until_the_crash(log: Dmesg) -> Dmesg:
    """The log, read to the end of the ring buffer: a report that is its last has no other end."""
    reports = log.reports.reports
    if not reports or reports[-1].complete:
        return log
    whole = (*reports[:-1], replace(reports[-1], complete=True))
    return replace(log, reports=replace(log.reports, reports=whole))


def read_cmdline(dump: Dump) -> bytes:
    """The kernel command line; LookupError without symbols."""
    address = dump.symbol("saved_command_line")
    if address is None:
        raise LookupError("saved_command_line")
    return dump.string(int.from_bytes(dump.read(address, 8), "little"), 16384)


def read_config(dump: Dump) -> bytes:
    """The kernel's configuration (CONFIG_IKCONFIG, kernel/configs.c); LookupError where it has none."""
    start, end = dump.symbol("kernel_config_data"), dump.symbol("kernel_config_data_end")
    if start is None:
        raise LookupError("kernel_config_data (CONFIG_IKCONFIG)")
    # Up to 5.0 the symbol was an array between two magic strings, without a symbol for its end.
    data = dump.read(start, min(end - start, _MAX_CONFIG) if end is not None and end > start else 1 << 20)
    data = data.removeprefix(_CONFIG_START)
    member = zlib.decompressobj(_GZIP)
    try:
        text = member.decompress(data, _MAX_CONFIG)
    except zlib.error as error:
        raise FormatError(f"the kernel's configuration is damaged: {error}") from error
    if not member.eof:
        raise FormatError("the kernel's configuration is damaged: its gzip member does not end")
    return text


def read_build(dump: Dump, release: str, *, with_nodename: bool) -> str:
    """What ``uname -v`` prints, in which vendors name the stable release; empty where the dump does not say.

    It is in ``linux_banner`` (init/version.c), which is found by its text where CONFIG_KALLSYMS_ALL=n hides the symbol,
    and in ``init_uts_ns``, where the host's name is beside it.
    """
    try:
        address = dump.symbol("linux_banner")
        if address is not None:
            banner = _build_in(dump.string(address, _MAX_BANNER), release)
            return "" if banner is None else banner[2].decode("utf-8", "replace")
        if with_nodename and (version := _uts_version(dump, release)):
            return version
        return _search_banner(dump, release)
    except PtauditError:
        return ""


def _build_in(banner: bytes, release: str) -> re.Match[bytes] | None:
    found = _BANNER.match(banner)
    return found if found is not None and found[1] == release.encode() else None


def _uts_version(dump: Dump, release: str) -> str:
    names, offset = dump.vmcoreinfo.symbol("init_uts_ns"), dump.vmcoreinfo.offset("uts_namespace.name")
    if names is None or offset is None:
        return ""
    try:
        found, version = (
            dump.string(names + offset + number * _NAME_BYTES, _NAME_BYTES) for number in (_UTS_RELEASE, _UTS_VERSION)
        )
    except MissingMemoryError:
        return ""
    return version.decode("utf-8", "replace") if found == release.encode() else ""


def _search_banner(dump: Dump, release: str) -> str:
    """The banner among the kernel's read-only data; of what is searched only it is recorded."""
    wanted = b"Linux version " + release.encode() + b" "
    first, last = dump.addresses.image_start, dump.addresses.swapper_pg_dir
    page = dump.addresses.granule.page_size
    for at in range(first, min(last, first + _MAX_IMAGE), _SEARCH_STEP):
        va = np.arange(at, min(at + _SEARCH_STEP, last), page, dtype=np.uint64)
        pa, _ = dump.addresses.physical(va)
        data = dump.memory.unrecorded.read_pages(pa, page)[0].tobytes()
        place = data.find(wanted)
        while place >= 0:
            if (banner := _build_in(dump.peek(at + place, _MAX_BANNER), release)) is not None:
                dump.read(at + place, banner.end())
                return banner[2].decode("utf-8", "replace")
            place = data.find(wanted, place + 1)
    return ""


def read_nodename(dump: Dump) -> str:
    """The host's name when it crashed (init_uts_ns); empty where the dump does not say, as in small cores."""
    names, offset = dump.vmcoreinfo.symbol("init_uts_ns"), dump.vmcoreinfo.offset("uts_namespace.name")
    if names is None or offset is None:
        return ""
    try:
        return dump.string(names + offset + _NAME_BYTES, _NAME_BYTES).decode("utf-8", "replace")
    except PtauditError:
        return ""
