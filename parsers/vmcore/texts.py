"""Texts that a kernel keeps in its memory: command line, configuration, log, the host's name."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from parsers.cmdline import CommandLine, parse_cmdline
from parsers.dmesg import Dmesg, parse_dmesg
from parsers.errors import FormatError, PtauditError
from parsers.kconfig import Kconfig, parse_kconfig
from parsers.uname import KernelRelease, parse_uname
from parsers.vmcore.dump import Dump
from parsers.vmcore.printk import read_dmesg

__all__ = ["Texts", "read_cmdline", "read_config", "read_nodename", "until_the_crash"]

T = TypeVar("T")

_MAX_CONFIG = 16 << 20
_CONFIG_START = b"IKCFG_ST"
_NAME_BYTES = 65  # of each member of struct new_utsname: sysname, nodename … (include/uapi/linux/utsname.h)
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
    def of(cls, dump: Dump, release: str | None, *, with_dmesg: bool) -> Texts:
        """Read and parse all; `Dump.unreadable` says what is damaged."""

        def parsed(what: str, parse: Callable[[bytes, str], T], data: bytes | None) -> T | None:
            return dump.attempt(what, lambda: parse(data, dump.path)) if data else None

        cmdline = dump.attempt("command line", lambda: read_cmdline(dump))
        config = dump.attempt("kernel configuration", lambda: read_config(dump))
        dmesg = dump.attempt("kernel log", lambda: read_dmesg(dump)) if with_dmesg else None
        log = parsed("kernel log", parse_dmesg, dmesg)
        return cls(
            cmdline=cmdline,
            config=config,
            dmesg=dmesg,
            kernel_release=parsed("kernel release", parse_uname, (release or "").encode()),
            command_line=parsed("command line", parse_cmdline, cmdline and cmdline + b"\n"),
            kconfig=parsed("kernel configuration", parse_kconfig, config),
            log=None if log is None else until_the_crash(log),
        )


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


def read_nodename(dump: Dump) -> str:
    """The host's name when it crashed (init_uts_ns); empty where the dump does not say, as in small cores."""
    names, offset = dump.vmcoreinfo.symbol("init_uts_ns"), dump.vmcoreinfo.offset("uts_namespace.name")
    if names is None or offset is None:
        return ""
    try:
        return dump.string(names + offset + _NAME_BYTES, _NAME_BYTES).decode("utf-8", "replace")
    except PtauditError:
        return ""
