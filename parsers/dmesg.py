"""The kernel log: facts of the boot, and what the memory subsystem had to say since.

One pass over the whole buffer (`parsers.log_scan`) finds the messages of `parsers.log_messages`, whatever printk,
dmesg, syslog, journald or a serial console put before each; lines that say nothing about memory cost no Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from parsers.cmdline import CommandLine, parse_cmdline
from parsers.errors import Diagnostic, FormatError, WrongFormatError
from parsers.expressions import expression
from parsers.hosts import doubts_of_hosts
from parsers.journal import without_json
from parsers.lines import at_lines, without_transport
from parsers.log_losses import missing_records, what_is_lost
from parsers.log_messages import Kind
from parsers.log_scan import Message, scan_log
from parsers.mapping import I64, U32, U64
from parsers.oops import Reports, find_reports
from parsers.printk import STAMP
from parsers.records import dataclass
from parsers.uname import KernelRelease, parse_uname

__all__ = [
    "MAX_BYTES",
    "MAX_MESSAGES",
    "Boot",
    "BootMemory",
    "Dmesg",
    "HardwarePoison",
    "Kind",
    "Message",
    "ZoneRange",
    "bare_boot",
    "parse_dmesg",
]

MAX_BYTES = 2 << 30
MAX_MESSAGES = 20_000
MAX_NAMED = 1000
"""Reports whose host is looked at."""
MAX_BOOTS = 1000
ORDER_BYTES = 1 << 16
_ENOUGH_STEPS = 32

_NODE_RANGE = expression(r"\s*node +(\d{1,9}): \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]")
_ZONE_RANGE = expression(r"\s*(\w+) +(?:\[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]|empty)")
_FEATURE = expression(r"CPU features: detected(?: feature)?: (.+)")
# drivers/firmware/dmi_scan.c and drivers/of/fdt.c at boot; lib/dump_stack.c with every trace, then followed by " (DT)".
_MACHINE = expression(r"(?:DMI|Machine model|Hardware name): (.{1,200}?)(?:, BIOS .*| \(DT\))?$")
_HOST_NAME = expression(r"[^<]*<([^<>]{1,64})>")
_POISON = expression(r"Memory failure: 0x([0-9a-f]{1,16}): (?!memory outside kernel control)")


@dataclass(frozen=True, eq=False, kw_only=True)
class BootMemory:
    """Memory known at boot, holes left out: one row a line ``node N: [mem start-last]``."""

    node: I64
    start: U64
    last: U64
    """Inclusive last address."""
    line: U32


@dataclass(frozen=True, eq=False, kw_only=True)
class HardwarePoison:
    """Page frames that memory-failure handling has marked, one row a message."""

    pfn: U64
    line: U32


@dataclass(frozen=True, slots=True)
class ZoneRange:
    """Bounds of a zone at boot, ``last`` inclusive; both None for an empty zone."""

    name: str
    start: int | None
    last: int | None
    line: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Boot:
    """One boot of a log.  A fact that its part of the log does not state is None or has no row: unknown."""

    line: int
    """1-based line of its banner, or of its first message if the banner is not in the log."""
    messages: tuple[Message, ...]
    """Every message of a `Kind`, in order."""
    release: KernelRelease | None
    machine: str | None
    """What the log calls the hardware, or the virtual machine: ``QEMU QEMU Virtual Machine``."""
    host_names: tuple[str, ...]
    """What systemd named the host, in the initial RAM disk and after; empty where the log does not say."""
    command_line: CommandLine | None
    memory: BootMemory
    zones: tuple[ZoneRange, ...]
    cpu_features: Mapping[str, int]
    """Line by name as printed: ``Memory Tagging Extension``, ``BBM Level 2 without TLB conflict abort`` …"""
    kaslr: bool | None
    poison: HardwarePoison
    lost: str
    """What shows that lines of this boot are missing from the log; empty where nothing does."""

    @property
    def is_capture_kernel(self) -> bool:
        """A kdump kernel: it was given the dead kernel's core by ``elfcorehdr=`` or the device tree."""
        named = self.command_line is not None and "elfcorehdr" in self.command_line
        return named or any("for elfcorehdr" in message.text for message in self.of(Kind.RESERVED))

    def of(self, kind: Kind) -> tuple[Message, ...]:
        """The messages of one kind."""
        return tuple(message for message in self.messages if message.kind is kind)

    def feature(self, words: str) -> int | None:
        """Line that reports a CPU feature whose name contains ``words``, in any case; None proves nothing."""
        wanted = words.lower()
        return next((line for name, line in self.cpu_features.items() if wanted in name.lower()), None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dmesg:
    """A kernel log, boot by boot.

    >>> text = b'''[    0.000000] Linux version 6.12.117 (root@vm) (gcc 12.2.0) #2 SMP
    ... [    0.000000] KASLR disabled due to lack of seed
    ... [    0.000000]   node   0: [mem 0x0000000040000000-0x000000004c40ffff]
    ... [    0.000000] CPU features: detected: Memory Tagging Extension
    ... [    0.000000] Kernel command line: console=ttyAMA0 rodata=full
    ... [   12.345678][  T123] Offlined Pages 32768
    ... '''
    >>> log = parse_dmesg(text, "dmesg")
    >>> log.boot.release.version, log.boot.command_line.value("rodata"), log.boot.kaslr, log.boot.feature("tagging")
    ((6, 12, 117), 'full', False, 4)
    >>> hex(log.boot.memory.last[0]), log.boot.of(Kind.HOTPLUG)[0].text
    ('0x4c40ffff', 'Offlined Pages 32768')
    """

    path: str
    boots: tuple[Boot, ...]
    """In the order of the log; at least one."""
    boot: Boot
    """The boot that is reported: the last that is not a kdump kernel's."""
    reports: Reports
    """Oopses, WARNs and BUGs of all boots."""
    diagnostics: tuple[Diagnostic, ...] = ()


def parse_dmesg(data: bytes, path: str) -> Dmesg:
    """Read a kernel log of any length up to MAX_BYTES; FormatError if it is not one.

    Of more than MAX_MESSAGES messages or MAX_BOOTS boots the last are kept.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"{len(data)} bytes; a kernel log is read up to {MAX_BYTES}", path=path)
    unended = not data.endswith((b"\n", b"\0"))
    data = without_transport(without_json(data))
    if _is_newest_first(data):
        raise WrongFormatError("its lines are in reverse order, the newest first: reverse them with `tac`", path=path)
    scan = scan_log(data, path, MAX_MESSAGES)
    messages = scan.messages
    reports = find_reports(data, path, scan.starts)
    if not messages and not reports.reports and not re.search(STAMP, data):
        raise FormatError("no kernel message, no kernel log", path=path)
    parts = list(_split(messages))
    lost = f"{missing} records are missing from it" if (missing := missing_records(data)) else ""
    lost = lost or ("its last line has no end: it may be cut short" if unended else "")
    kept = parts[-MAX_BOOTS:]
    begins = [part[0].line for part in kept[1:]]
    boots = tuple(
        _boot(part, reports.between(first, end), path, lost)
        for part, first, end in zip(kept, [0, *begins], [*begins, len(data) + 2], strict=True)
    )
    if len(parts) > len(boots):
        reports = replace(reports, reports=tuple(one for one in reports.reports if one.line >= boots[0].line))
    boot = next((boot for boot in reversed(boots) if not boot.is_capture_kernel), boots[-1])
    doubts = (*_doubts(boots, boot, scan.dropped, path), *scan.diagnostics, *reports.diagnostics)
    doubts += tuple(doubts_of_hosts(data, [at for at, _ in scan.starts[:MAX_NAMED]], path))
    if len(parts) > len(boots):
        doubts += (
            Diagnostic(f"{len(parts) - len(boots)} earlier boots are left out, the last {MAX_BOOTS} kept", path),
        )
    return Dmesg(path=path, boots=boots, boot=boot, reports=reports, diagnostics=doubts)


def _is_newest_first(data: bytes) -> bool:
    """Whether times fall from line to line, as in what ``journalctl -r`` and some log servers print."""
    stamps = re.findall(STAMP, data[:ORDER_BYTES])
    times = np.array([float(stamp[1:-1]) for stamp in stamps])
    steps = np.diff(times)
    down, up = np.count_nonzero(steps < 0), np.count_nonzero(steps > 0)
    return bool(down >= _ENOUGH_STEPS and down > _ENOUGH_STEPS * up)


def _split(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The messages of each boot: a banner starts one."""
    starts = [index for index, message in enumerate(messages) if message.kind is Kind.BANNER]
    if not starts or starts[0] > 0:
        starts.insert(0, 0)
    for start, stop in zip(starts, [*starts[1:], len(messages)], strict=True):
        yield messages[start:stop]


def _boot(messages: Sequence[Message], reports: Reports, path: str, lost: str) -> Boot:
    by_kind: dict[Kind, list[Message]] = {kind: [] for kind in Kind}
    for message in messages:
        by_kind[message.kind].append(message)
    features: dict[str, int] = {}
    for message in by_kind[Kind.CPU_FEATURE]:
        if match := _FEATURE.match(message.text):
            features.setdefault(match[1].strip(), message.line)
    kaslr = [message.text for message in by_kind[Kind.KASLR] if message.text.startswith("KASLR ")]
    return Boot(
        line=messages[0].line if messages else 1,
        messages=tuple(messages),
        release=_release(by_kind[Kind.BANNER], path),
        machine=_machine(by_kind[Kind.MACHINE]),
        host_names=tuple(match[1] for message in by_kind[Kind.HOST_NAME] if (match := _HOST_NAME.match(message.text))),
        command_line=_command_line(by_kind[Kind.COMMAND_LINE], path),
        memory=_memory(by_kind[Kind.BOOT_MEMORY]),
        zones=tuple(_zones(by_kind[Kind.ZONE_RANGE])),
        cpu_features=MappingProxyType(features),
        kaslr=kaslr[-1].startswith("KASLR enabled") if kaslr else None,
        poison=_poison(by_kind[Kind.MEMORY_FAILURE]),
        lost=what_is_lost(messages, reports) or (lost and f"the log is not whole: {lost}"),
    )


def bare_boot(path: str, line: int) -> Boot:
    """A boot of which nothing but the place of a report is known."""
    return replace(
        _boot((), Reports(path=path, reports=(), panics=()), path, "its kernel is not this log's"), line=line
    )


def _release(banners: Sequence[Message], path: str) -> KernelRelease | None:
    if not banners:
        return None
    try:
        release = parse_uname(banners[0].text.encode(), path)
    except FormatError:
        return None
    line = banners[0].line
    return replace(release, line=line, diagnostics=tuple(replace(each, line=line) for each in release.diagnostics))


def _machine(messages: Sequence[Message]) -> str | None:
    match = _MACHINE.match(messages[0].text) if messages else None
    return match[1].strip() if match else None


def _command_line(messages: Sequence[Message], path: str) -> CommandLine | None:
    if not messages:
        return None
    text, line = messages[0].text.partition(":")[2], messages[0].line
    if not text.strip():
        return CommandLine(path=path, line=line, raw="", parameters=(), init_arguments=())
    try:
        command_line = parse_cmdline(text.encode() + b"\n", path)
    except FormatError:
        return None  # said by `_doubts`
    diagnostics = tuple(replace(each, line=line) for each in command_line.diagnostics)
    return replace(command_line, line=line, diagnostics=diagnostics)


def _memory(messages: Sequence[Message]) -> BootMemory:
    rows = [(match, message.line) for message in messages if (match := _NODE_RANGE.match(message.text))]
    rows = [(match, line) for match, line in rows if not _is_reversed(match)]
    return BootMemory(
        node=np.array([int(match[1]) for match, _ in rows], dtype=np.int64),
        start=np.array([int(match[2], 16) for match, _ in rows], dtype=np.uint64),
        last=np.array([int(match[3], 16) for match, _ in rows], dtype=np.uint64),
        line=np.array([line for _, line in rows], dtype=np.uint32),
    )


def _is_reversed(match: re.Match[str]) -> bool:
    return int(match[2], 16) > int(match[3], 16)


def _zones(messages: Sequence[Message]) -> Iterator[ZoneRange]:
    for message in messages:
        if match := _ZONE_RANGE.match(message.text):
            start, last = (None if bound is None else int(bound, 16) for bound in match.group(2, 3))
            yield ZoneRange(match[1], start, last, message.line)


def _poison(messages: Sequence[Message]) -> HardwarePoison:
    rows = [(int(match[1], 16), message.line) for message in messages if (match := _POISON.match(message.text))]
    return HardwarePoison(
        pfn=np.array([pfn for pfn, _ in rows], dtype=np.uint64),
        line=np.array([line for _, line in rows], dtype=np.uint32),
    )


def _doubts(boots: Sequence[Boot], boot: Boot, dropped: int, path: str) -> Iterator[Diagnostic]:
    nodes = ((_NODE_RANGE.match(message.text), message.line) for message in boot.messages)
    yield from at_lines(
        "the range ends before it starts, left out",
        [line for match, line in nodes if match and _is_reversed(match)],
        path,
    )
    if dropped:
        yield Diagnostic(f"{dropped} earlier messages about memory are left out, the last {MAX_MESSAGES} kept", path)
    if len(boots) > 1:
        yield Diagnostic(f"the log holds {len(boots)} boots; facts are taken from this one", path, boot.line)
    if boot.is_capture_kernel:
        yield Diagnostic("the log is a kdump kernel's, not that of the kernel that died", path, boot.line)
    if boot.command_line is None:
        damaged = [message.line for message in boot.messages if message.kind is Kind.COMMAND_LINE]
        yield from at_lines("the kernel command line is damaged, so it is not known", damaged, path)
    if boot.release is None:
        yield Diagnostic("the log starts after boot: boot messages are unavailable", path, boot.line)
