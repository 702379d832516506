"""Oopses, WARNs and BUGs of an arm64 kernel log: each report with its fields, and the lines they stand on.

Formats from arch/arm64/mm/fault.c, arch/arm64/kernel/{traps,process,setup}.c, kernel/panic.c, lib/bug.c,
mm/page_alloc.c and mm/debug.c (4.14 to 6.18).  Where a report begins is found by a search for fixed words over the
whole log, so whatever a console put before them does no harm; only the reports themselves, cut short at
MAX_REPORT_BYTES, are looked at field by field.  A field may be wrapped once, as mail does it.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from parsers.errors import Diagnostic
from parsers.esr import Esr

__all__ = ["MAX_REPORTS", "Address", "Panic", "Quote", "Report", "ReportKind", "Reports", "Walk", "find_reports"]

MAX_REPORTS = 1000
MAX_REPORT_BYTES = 48 << 10
MAX_FRAMES = 128
MAX_LINE = 1024


class ReportKind(StrEnum):
    """What the kernel complains about."""

    ABORT = "abort"
    """An access that faulted."""
    SERROR = "serror"
    BUG = "bug"
    DIED = "died"
    """"Internal error" whose first lines are not in the log."""
    WARNING = "warning"
    BAD_PAGE = "bad_page"
    PAGE_DUMP = "page_dump"
    STALL = "stall"


_STARTS: tuple[tuple[ReportKind, bytes, re.Pattern[bytes]], ...] = tuple(
    (kind, words, re.compile(re.escape(words) + more))
    for kind, words, more in (
        (ReportKind.ABORT, b"Unable to handle kernel ", b""),
        (ReportKind.ABORT, b"Unhandled fault", rb"(?:: | at 0x)"),
        (ReportKind.ABORT, b"Synchronous External Abort: ", b""),
        (ReportKind.SERROR, b"SError Interrupt on CPU", b""),
        (ReportKind.DIED, b"Internal error: ", b""),
        (ReportKind.BUG, b"kernel BUG at ", b""),
        (ReportKind.WARNING, b"WARNING: ", rb"(?=CPU: \d+ PID: \d+ at |(?:\[[^\n]{0,200}\] )?[\w./-]{1,200}:\d+ at )"),
        (ReportKind.BAD_PAGE, b"BUG: Bad page state in process ", b""),
        (ReportKind.PAGE_DUMP, b"page dumped because: ", b""),
        (ReportKind.STALL, b"self-detected stall on CPU", b""),
        (ReportKind.STALL, b"detected stalls on CPUs", b""),
    )
)
"""Fixed words, found as fast as memory can be read, and what must follow them."""
# What is printed on the way: the second start belongs to the first one's report.
_CONTINUES = {
    (ReportKind.ABORT, ReportKind.DIED),
    (ReportKind.SERROR, ReportKind.DIED),
    (ReportKind.BUG, ReportKind.DIED),
    (ReportKind.PAGE_DUMP, ReportKind.BUG),
    (ReportKind.PAGE_DUMP, ReportKind.DIED),
    (ReportKind.BAD_PAGE, ReportKind.PAGE_DUMP),
}
# With a crash kernel, die() jumps to it before it prints "end trace" (arch/arm64/kernel/traps.c, machine_kexec.c).
_END = re.compile(rb"---\[ end trace |---\[ end Kernel panic|Starting crashdump kernel\.\.\.")
_CALL_TRACE = re.compile(rb"Call trace:")
_CUT_HERE = b"-[ cut here ]-"

_TIME = re.compile(rb"\[ {0,7}(\d{1,9}\.\d{6})\]")
_CALLER = re.compile(rb"\[ {0,8}([TC]\d{1,8})\]")
_CALLER_OF_LINE = rb"^(?=[^\n]{0,80}\[ {0,8}[TC]\d{1,8}\])(?![^\n]{0,80}\[ {0,8}%b\])[^\n]*"

_G = rb"[ \t]*\n?[ \t]*"  # a gap that may be wrapped
_HEX = rb"([0-9a-f]{8,16})"
_SYMBOL = rb"([A-Za-z_][\w.$]{0,255}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8})"
_FIELDS: Mapping[str, re.Pattern[bytes]] = {
    "address": re.compile(rb"(?:at virtual address|Unhandled fault at|\(0x[0-9a-f]{8,16}\) at)\s{1,8}(?:0x)?" + _HEX),
    "esr": re.compile(
        rb"ESR = 0x%b|Internal error: [^\n]{0,120}?\b%b \[#\d|[A-Za-z ]\(0x%b\) at |, code 0x%b" % ((_HEX,) * 4)
    ),
    "pgtable": re.compile(
        rb"(swapper|user) pgtable:%b(\d{1,3})k pages,%b(\d\d)-bit VAs,%bpgdp? ?=%b(?:0x)?([0-9a-f]{16})?" % ((_G,) * 4)
    ),
    "walk": re.compile(
        rb"\[([0-9a-f]{16})\]%b(\*?pgd ?=[0-9a-f]{8,16}(?:,%b\*?p[\w]{2} ?=[0-9a-f]{8,16}){0,4})" % (_G, _G)
    ),
    "task": re.compile(
        rb"CPU:? ?(\d{1,5}) (?:UID: \d{1,10} )?PID: (\d{1,10}) Comm: ([^\n]{1,32}?) (?:Kdump: loaded )?"
        rb"(Not%btainted|Tainted: [A-Z() ]{1,40}?)\s{1,12}([1-9]\d?\.\d{1,3}\S{0,120})(?:\s{1,4}(#\d[^\n]{0,120}))?"
        % _G
    ),
    "pc": re.compile(rb"(?:\bpc : |\bPC is at )(?:\[<[0-9a-f]{1,16}>\] )?(?:%b|(0x[0-9a-f]{1,16}))" % _SYMBOL),
    "lr": re.compile(rb"(?:\blr : |\bLR is at )(?:\[<[0-9a-f]{1,16}>\] )?%b" % _SYMBOL),
    "place": re.compile(
        rb"(?:kernel BUG at |WARNING: (?:CPU: \d+ PID: \d+ at |(?:\[[^\n]{0,200}?\] )?))([\w./+-]{1,200}:\d{1,6})"
        rb"(?:!| (?:at )?%b)?" % _SYMBOL
    ),
    "pfn": re.compile(rb"pfn:(?:0x)?([0-9a-f]{1,13})\b"),
}
_ENTRY = re.compile(rb"(p\w{2}) ?=([0-9a-f]{8,16})")
_REGISTER = re.compile(rb"\b(x\d{1,2}|sp) ?: ([0-9a-f]{16})\b")
_FRAME = re.compile(rb"(?<![\w+])" + _SYMBOL)
_PANIC = re.compile(
    rb"Kernel Offset: (?:0x(?P<offset>[0-9a-f]{1,16}) from 0x[0-9a-f]{1,16}|disabled)"
    rb"|PHYS_OFFSET: 0x(?P<phys>[0-9a-f]{1,16})"
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A line of the log; a wrapped one with its second part."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Address:
    """A faulting address: ``value`` is as translated, ``tag`` the top byte that was printed instead of 0xff."""

    value: int
    tag: int | None

    @classmethod
    def of(cls, printed: int) -> Address:
        """What the register held: a kernel pointer (bit 55 set) may carry a KASAN tag in its top byte."""
        top = printed >> 56
        if printed >> 55 & 1 and top != 0xFF:
            return cls(printed | 0xFF << 56, top)
        return cls(printed, None)


@dataclass(frozen=True, slots=True)
class Walk:
    """The line that ``show_pte()`` prints: raw descriptors from the top, ending with the one that is empty or bad.

    Before 6.12.110 the walk held no lock and can itself be wrong.
    """

    entries: tuple[tuple[str, int], ...]
    """(``pgd``, value), (``p4d``, value) …"""

    @property
    def last(self) -> tuple[str, int]:
        """Where the walk ended."""
        return self.entries[-1]

    def get(self, name: str) -> int | None:
        """The descriptor of a level, None where the walk did not get there."""
        return dict(self.entries).get(name)


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """One report.  A field that was not printed, or was lost, is None or empty."""

    kind: ReportKind
    line: int
    """1-based line on which it begins."""
    time: float | None
    headline: str
    """The message of its first line; a WARN's own words stand in ``warning``."""
    warning: str = ""
    """What WARN() or VM_BUG_ON_PAGE() said, empty where it said nothing."""
    address: Address | None = None
    esr: Esr | None = None
    page_size: int | None = None
    va_bits: int | None = None
    """Bits in use (vabits_actual)."""
    user_table: bool = False
    walk: Walk | None = None
    cpu: int | None = None
    pid: int | None = None
    comm: str = ""
    taint: str = ""
    """Letters, empty for a kernel that is not tainted or does not say."""
    release: str = ""
    """As in ``uname -r``, and after a blank what the report has of ``uname -v``."""
    pc: str = ""
    """``memunmap_pages+0x1a8/0x2a8``."""
    lr: str = ""
    place: str = ""
    """``mm/memremap.c:153`` of a WARN or BUG."""
    pfn: int | None = None
    trace: tuple[str, ...] = ()
    """Functions, innermost first, without offsets."""
    registers: Mapping[str, int] = field(default_factory=dict)
    text: str = ""
    """The whole of it, without the lines of other tasks."""
    complete: bool = False
    """Its last line is there."""
    repeats: int = 0
    """How often the log holds the same report again."""
    quotes: Mapping[str, Quote] = field(default_factory=dict)
    """Where each field was read: by field name, ``trace``, and ``start`` for the first line."""

    @property
    def function(self) -> str:
        """Where it happened, without the offset."""
        return self.pc.partition("+")[0]

    def passes(self, *names: str) -> str:
        """The first function of the report that begins with one of ``names``; empty if none does."""
        functions = (self.function, self.lr.partition("+")[0], *self.trace)
        return next((one for one in functions if one.startswith(names)), "")


@dataclass(frozen=True, slots=True)
class Panic:
    """What the panic notifier printed: the kernel image's offset, PHYS_OFFSET; None for what the line does not say."""

    line: int
    text: str
    kernel_offset: int | None
    phys_offset: int | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Reports:
    """All reports of a log, in its order."""

    path: str
    reports: tuple[Report, ...]
    panics: tuple[Panic, ...]
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class _Start:
    kind: ReportKind
    at: int
    caller: bytes


def find_reports(data: bytes, path: str) -> Reports:
    """Every report in a log whose transport is already undone (`parsers.lines.without_transport`).

    Raises nothing: a log without reports has none.  The first MAX_REPORTS are read.

    >>> log = b'''[    8.548711] Unable to handle kernel paging request at virtual address fffffdffc2100000
    ... [    8.549014]   ESR = 0x0000000096000006
    ... [    8.549627] swapper pgtable: 4k pages, 48-bit VAs, pgdp=000000004adff000
    ... [    8.549743] [fffffdffc2100000] pgd=100000004ffe6003, pud=100000004ffe5003, pmd=0000000000000000
    ... [    8.550438] CPU: 0 UID: 0 PID: 130 Comm: ndctl Not tainted 6.12.117 #2
    ... [    8.550806] pc : memunmap_pages+0x1a8/0x2a8
    ... '''
    >>> report = find_reports(log, "dmesg").reports[0]
    >>> hex(report.address.value), report.esr.level, report.walk.last, report.comm, report.function
    ('0xfffffdffc2100000', 2, ('pmd', 0), 'ndctl', 'memunmap_pages')
    """
    starts = _starts(data)
    kept = starts[:MAX_REPORTS]
    boots = [line for line, _ in _lines(data, _places(data, b"Linux version "))]
    reports = _distinct(list(_read(data, kept)), boots)
    diagnostics: tuple[Diagnostic, ...] = ()
    if len(starts) > len(kept):
        lost = len(starts) - len(kept)
        diagnostics = (
            Diagnostic(f"{lost} more reports of the kernel are left out, the first {MAX_REPORTS} read", path),
        )
    return Reports(path=path, reports=tuple(reports), panics=tuple(_panics(data)), diagnostics=diagnostics)


def _starts(data: bytes) -> list[_Start]:
    """Where reports begin, without those that belong to the one before."""
    found = sorted(
        (at, kind) for kind, words, shape in _STARTS for at in _places(data, words) if shape.match(data, at) is not None
    )
    starts: list[_Start] = []
    latest: dict[bytes, _Start] = {}
    for at, kind in found:
        head = data[max(data.rfind(b"\n", 0, at) + 1, at - MAX_LINE) : at]
        caller = next(iter(_CALLER.findall(head)), b"")
        before = latest.get(caller)
        if before is not None and _continues(data, before, kind, at):
            continue
        start = _Start(kind, at, caller)
        latest[caller] = start
        starts.append(start)
    return starts


def _continues(data: bytes, before: _Start, kind: ReportKind, at: int) -> bool:
    between = before.at, at
    return (
        (before.kind, kind) in _CONTINUES
        and at - before.at < MAX_REPORT_BYTES
        and (kind is ReportKind.PAGE_DUMP or _CALL_TRACE.search(data, *between) is None)
        and _END.search(data, *between) is None
    )


def _read(data: bytes, starts: Sequence[_Start]) -> Iterator[Report]:
    line, counted = 1, 0
    for number, start in enumerate(starts):
        first = data.rfind(b"\n", 0, start.at) + 1
        opening = _opening(data, first) if start.kind in {ReportKind.WARNING, ReportKind.BUG} else first
        others = (one.at for one in starts[number + 1 :] if one.caller == start.caller)
        limit = min(next(others, len(data)), opening + MAX_REPORT_BYTES)
        line += data.count(b"\n", counted, opening)
        counted = opening
        yield _report(data[opening:limit], line, start)


def _opening(data: bytes, first: int) -> int:
    """Start of the line behind "cut here", where a WARN or BUG has said something before its first fixed words."""
    mark = data.rfind(_CUT_HERE, max(0, first - 4 * MAX_LINE), first)
    if mark < 0 or _END.search(data, mark, first) is not None or data.count(b"\n", mark, first) > 6:
        return first
    return min(data.find(b"\n", mark) + 1 or first, first)


def _report(block: bytes, line: int, start: _Start) -> Report:
    if start.caller:
        block = re.sub(_CALLER_OF_LINE % re.escape(start.caller), b"", block, flags=re.MULTILINE)
    end = _END.search(block)
    if end is not None:
        block = block[: block.find(b"\n", end.end()) if b"\n" in block[end.end() :] else len(block)]
    found = {name: match for name, pattern in _FIELDS.items() if (match := pattern.search(block)) is not None}
    calls = _CALL_TRACE.search(block)
    quotes = {name: _quote(block, line, match.start(), match.end()) for name, match in found.items()}
    head = _START_WORDS[start.kind].search(block)
    begin = head.start() if head is not None else 0
    quotes["start"] = _quote(block, line, begin, begin)
    if calls is not None:
        quotes["trace"] = _quote(block, line, calls.start(), calls.end())
    time = _TIME.search(block[block.rfind(b"\n", 0, begin) + 1 : begin])
    return Report(
        kind=start.kind,
        line=quotes["start"].line,
        time=float(time[1]) if time else None,
        headline=_text(block[begin : _end_of_line(block, begin)]),
        warning=_said(block, begin, start.kind),
        registers=MappingProxyType(
            {name.decode(): int(value, 16) for name, value in reversed(_REGISTER.findall(block))}
        ),
        trace=() if calls is None else _frames(block, calls.end()),
        text=block.decode("utf-8", "replace"),
        complete=end is not None,
        quotes=MappingProxyType(quotes),
        **_fields(found),
    )


_START_WORDS: Mapping[ReportKind, re.Pattern[bytes]] = {
    kind: re.compile(b"|".join(shape.pattern for one, _, shape in _STARTS if one is kind)) for kind in ReportKind
}


def _fields(found: Mapping[str, re.Match[bytes]]) -> dict[str, Any]:
    """The values of the fields that were found; the first that gives a value stands."""
    values: dict[str, Any] = {}
    for name, read in _VALUES.items():
        if match := found.get(name):
            values = read(match) | values
    return values


def _walk(match: re.Match[bytes]) -> dict[str, Any]:
    entries = tuple((name.decode(), int(value, 16)) for name, value in _ENTRY.findall(match[2]))
    return {"walk": Walk(entries), "address": Address.of(int(match[1], 16))}


def _pgtable(match: re.Match[bytes]) -> dict[str, Any]:
    return {"page_size": int(match[2]) << 10, "va_bits": int(match[3]), "user_table": match[1] == b"user"}


def _task(match: re.Match[bytes]) -> dict[str, Any]:
    return {
        "cpu": int(match[1]),
        "pid": int(match[2]),
        "comm": _text(match[3]),
        "taint": "".join(match[4].decode().partition(":")[2].split()),
        "release": _text(b" ".join(part.strip() for part in match.group(5, 6) if part)),
    }


def _place(match: re.Match[bytes]) -> dict[str, Any]:
    return {"place": _text(match[1])} | ({"pc": _text(match[2])} if match[2] else {})


_VALUES: Mapping[str, Callable[[re.Match[bytes]], dict[str, Any]]] = {
    "address": lambda match: {"address": Address.of(int(match[1], 16))},
    "esr": lambda match: {"esr": Esr(int(next(group for group in match.groups() if group), 16))},
    "pgtable": _pgtable,
    "walk": _walk,
    "task": _task,
    "pc": lambda match: {"pc": _text(match[1] or match[2])},
    "lr": lambda match: {"lr": _text(match[1])},
    "place": _place,
    "pfn": lambda match: {"pfn": int(match[1], 16)},
}


def _frames(block: bytes, start: int) -> tuple[str, ...]:
    stop = block.find(b"Code: ", start)
    frames = _FRAME.findall(block, start, stop if stop >= 0 else len(block))
    return tuple(frame.decode().partition("+")[0] for frame in frames[:MAX_FRAMES])


def _said(block: bytes, begin: int, kind: ReportKind) -> str:
    """The words that stand between "cut here" and the fixed words, or behind those of a page dump."""
    if kind is ReportKind.PAGE_DUMP:
        return _text(block[begin : _end_of_line(block, begin)]).partition(": ")[2]
    lines = block[: block.rfind(b"\n", 0, begin) + 1].splitlines()
    return " ".join(words for line in lines if (words := _text(_message(line))))


_BEFORE_MESSAGE = re.compile(rb"^(?:[^\n]{0,200}?\[ {0,7}\d{1,9}\.\d{6}\](?:\[ {0,8}[TC]\d{1,8}\])? ?)?")


def _message(line: bytes) -> bytes:
    return _BEFORE_MESSAGE.sub(b"", line, count=1)


def _quote(block: bytes, line: int, start: int, end: int) -> Quote:
    first = block.rfind(b"\n", 0, start) + 1
    text = block[first : _end_of_line(block, max(start, end))]
    return Quote(line + block.count(b"\n", 0, start), " ".join(_text(text).split("\n")))


def _end_of_line(block: bytes, start: int) -> int:
    end = block.find(b"\n", start)
    return min(len(block) if end < 0 else end, start + MAX_LINE)


def _text(text: bytes) -> str:
    return text.decode("utf-8", "replace").strip()


def _distinct(reports: Sequence[Report], boots: Sequence[int]) -> Iterator[Report]:
    """Each report once a boot: a console log may end with the kernel's own log, and a WARN may come for ever."""
    first: dict[tuple[object, ...], int] = {}
    kept: list[Report] = []
    for report in reports:
        key = (bisect.bisect(boots, report.line), *_identity(report))
        if key in first:
            kept[first[key]] = replace(kept[first[key]], repeats=kept[first[key]].repeats + 1)
        else:
            first[key] = len(kept)
            kept.append(report)
    yield from kept


def _identity(report: Report) -> tuple[object, ...]:
    if report.kind is ReportKind.WARNING:
        return report.kind, report.place, report.pc, report.warning
    if report.registers:  # the tail of a report is recognised, too
        return report.pid, report.pc, *report.registers.items()
    return report.kind, report.time, report.address, report.headline


def _panics(data: bytes) -> Iterator[Panic]:
    places = sorted((*_places(data, b"Kernel Offset: "), *_places(data, b"PHYS_OFFSET: ")))
    for line, at in itertools.islice(_lines(data, places), MAX_REPORTS):
        if match := _PANIC.match(data, at):
            offset, phys = (None if group is None else int(group, 16) for group in match.group("offset", "phys"))
            yield Panic(line, _text(match[0]), offset, phys)


def _places(data: bytes, words: bytes) -> Iterator[int]:
    """Offsets of all occurrences."""
    at = data.find(words)
    while at >= 0:
        yield at
        at = data.find(words, at + len(words))


def _lines(data: bytes, places: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Each offset, ascending, with the 1-based line that it is on."""
    line, counted = 1, 0
    for at in places:
        line += data.count(b"\n", counted, at)
        counted = at
        yield line, at
