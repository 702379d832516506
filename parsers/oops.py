"""Oopses, WARNs and BUGs of an arm64 kernel log: each report with its fields, and the lines they are on.

Where a report begins is found by a search for fixed words over the whole log, so whatever a console put before them
does no harm; only the reports themselves, cut short at MAX_REPORT_BYTES, are looked at field by field
(`parsers.oops_fields`).
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from parsers.errors import Diagnostic
from parsers.expressions import expression
from parsers.oops_fields import (
    MAX_LINE,
    Address,
    Quote,
    Walk,
    find_fields,
    frames,
    registers,
    text_of_bytes,
    values_of,
)
from parsers.oops_report import Panic, Report, Reports
from parsers.oops_starts import STARTS, ReportKind
from parsers.printk import prefix_at
from parsers.records import dataclass
from parsers.words import Words

__all__ = [
    "MAX_REPORTS",
    "Address",
    "Panic",
    "Quote",
    "Report",
    "ReportKind",
    "Reports",
    "Walk",
    "find_reports",
]

MAX_REPORTS = 1000
MAX_REPORT_BYTES = 48 << 10
MAX_OPEN_BYTES = 24 << 10
"""Of a report whose end is not in the log."""


_SHAPES = tuple((start.kind, start.shape) for start in STARTS)
_WORDS = Words([start.words for start in STARTS])
# What is printed on the way: the second start belongs to the first one's report.
_CONTINUES = {
    (ReportKind.ABORT, ReportKind.DIED),
    (ReportKind.SERROR, ReportKind.DIED),
    (ReportKind.BUG, ReportKind.DIED),
    (ReportKind.PAGE_DUMP, ReportKind.BUG),
    (ReportKind.PAGE_DUMP, ReportKind.DIED),
    (ReportKind.BAD_PAGE, ReportKind.PAGE_DUMP),
    (ReportKind.BAD_PTE, ReportKind.PAGE_DUMP),
    (ReportKind.SANITIZER, ReportKind.PAGE_DUMP),
}
_DEADLY = frozenset(ReportKind) - {ReportKind.WARNING, ReportKind.BAD_PAGE, ReportKind.BAD_PTE}
_TITLE = expression(rb"(?:Subject|TITLE|ALT):")
"""Before the words of a report that a mail or a test of syzkaller is about."""
# With a crash kernel, die() jumps to it before it prints "end trace" (arch/arm64/kernel/traps.c, machine_kexec.c).
_ENDS = (b"---[ end trace ", b"---[ end Kernel panic", b"Starting crashdump kernel...")
_END_TRACE, _ABORT_INFO = b"---[ end trace ", b"Mem abort info:"
_MAX_BETWEEN = 40
"""Lines of other CPUs between the first line of a report and the second."""
_CALL_TRACE = b"Call trace:"
_CUT_HERE = b"-[ cut here ]-"
_WALK = expression(rb"\[[0-9a-fA-F]{16}\]\s{1,4}\*?pgd ?=[^\n]{8,200}")
_WALKS = (b"] pgd=", b"] *pgd=")
_ABORT_LINES = expression(rb"\b(?:Mem abort info:|Data abort info:|ESR = 0x|Exception class = |\w+ pgtable: )")
_MAX_INFO_BYTES = 4 << 10
"""Of what mem_abort_decode() and show_pte() print before the walk (arch/arm64/mm/fault.c), with what consoles add."""
_DIED = b"Internal error: "
_PANICS = b"Kernel panic - not syncing"

_TIME = expression(rb"\[ {0,7}(\d{1,9}\.\d{6})\]")
_CALLER = expression(rb"\[ {0,8}([TC]\d{1,8})\]")
_CALLER_OF_LINE = rb"^(?=[^\n]{0,80}\[ {0,8}[TC]\d{1,8}\])(?![^\n]{0,80}\[ {0,8}%b\])[^\n]*"
_PANIC = expression(
    rb"Kernel Offset: (?:0x(?P<offset>[0-9a-f]{1,16}) from 0x(?P<base>[0-9a-f]{1,16})|disabled)"
    rb"|PHYS_OFFSET: 0x(?P<phys>[0-9a-f]{1,16})"
)


@dataclass(frozen=True, slots=True)
class _Start:
    kind: ReportKind
    at: int
    caller: bytes


def find_reports(data: bytes, path: str, starts: Sequence[tuple[int, int]] | None = None) -> Reports:
    """Every report in a log whose transport is already undone (`parsers.lines.without_transport`).

    ``starts`` are the places and numbers of the words of STARTS where they are known already.  Raises nothing: a log
    without reports has none.  The first MAX_REPORTS are read.

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
    found = _starts(data, _WORDS.find(data) if starts is None else starts)
    kept = found[:MAX_REPORTS]
    boots = [line for line, _ in _lines(data, _places(data, b"Linux version "))]
    reports = _distinct(list(_read(data, kept)), boots)
    diagnostics: tuple[Diagnostic, ...] = ()
    if len(found) > len(kept):
        lost = len(found) - len(kept)
        at_least = "at least " if len(found) > 2 * MAX_REPORTS else ""
        diagnostics = (
            Diagnostic(f"{at_least}{lost} more reports of the kernel are left out, the first {MAX_REPORTS} read", path),
        )
    return Reports(
        path=path,
        reports=tuple(reports),
        panics=tuple(_panics(data)),
        headless=tuple(line for line, _ in _lines(data, sorted(_headless(data, found)))),
        diagnostics=diagnostics,
    )


def _headless(data: bytes, starts: Sequence[_Start]) -> Iterator[int]:
    """Offsets of what is printed within a report and belongs to none that begins in the log."""
    begins = [one.at for one in starts]
    for number, at in enumerate(itertools.islice(_places(data, _END_TRACE), MAX_REPORTS)):
        if bisect.bisect_left(begins, at) <= number:  # more ends than beginnings; several CPUs may report at once
            yield at
            return
    aborts = [one.at for one in starts if one.kind is ReportKind.ABORT]
    for at in itertools.islice(_places(data, _ABORT_INFO), MAX_REPORTS):
        latest = bisect.bisect_left(aborts, at) - 1
        if latest < 0 or data.count(b"\n", aborts[latest], at) > _MAX_BETWEEN:
            yield at
            return


def _starts(data: bytes, places: Sequence[tuple[int, int]]) -> list[_Start]:
    """Where reports begin, without those that belong to the one before."""
    starts: list[_Start] = []
    latest: dict[bytes, _Start] = {}
    for at, number in places:
        kind, shape = _SHAPES[number]
        first = _line_start(data, at)
        if shape.match(data, at) is None or _is_title(data, first):
            continue
        head = data[first:at]
        caller = found[1] if (found := _CALLER.search(head)) is not None else b""
        before = latest.get(caller)
        if before is not None and _continues(data, before, kind, at):
            continue
        start = _Start(kind, at, caller)
        latest[caller] = start
        starts.append(start)
        if len(starts) > 2 * MAX_REPORTS:
            break
    return starts


def _is_title(data: bytes, first: int) -> bool:
    """Whether the line at an offset is the subject of a mail, or its continuation."""
    if data[first : first + 1] in {b" ", b"\t"} and first:
        first = _line_start(data, first - 1)
    return _TITLE.match(data, first) is not None


def _continues(data: bytes, before: _Start, kind: ReportKind, at: int) -> bool:
    between = before.at, at
    if at - before.at >= MAX_REPORT_BYTES:
        return False
    if kind is ReportKind.PANIC or data.startswith(_PANICS, at):
        line = data[at : at + MAX_LINE].partition(b"\n")[0]
        if data.startswith((b"WARNING: ", b"INFO: "), before.at):  # these do not panic by themselves
            return b"panic_on_warn" in line or (before.kind is ReportKind.HUNG and b"hung_task" in line)
        return before.kind in _DEADLY or b"panic_on_warn" in line
    if _end_of_report(data, *between) >= 0:
        return False
    if before.kind is kind is ReportKind.ABORT:
        return _is_same_fault(data, before.at, at)
    return (before.kind, kind) in _CONTINUES and (kind is ReportKind.PAGE_DUMP or data.find(_CALL_TRACE, *between) < 0)


def _is_same_fault(data: bytes, start: int, at: int) -> bool:
    """The walk of a fault, or a fault in the middle of printing it: show_pte() read a table that is not mapped."""
    if data.startswith(_WALKS, at):
        return data.find(_DIED, start, at) < 0 and at - start < MAX_REPORT_BYTES >> 2
    walks = [*_WALK.finditer(data, start, at)]
    if not walks or data.find(_DIED, walks[-1].start(), at) >= 0 or data.count(b"\n", walks[-1].end(), at) > 4:
        return False
    found = find_fields(walks[-1][0]).get("walk")
    return found is not None and values_of({"walk": found})["walk"].is_cut


def _read(data: bytes, starts: Sequence[_Start]) -> Iterator[Report]:
    line, counted = 1, 0
    following: dict[bytes, int] = {}
    limits = [len(data)] * len(starts)
    for number in range(len(starts) - 1, -1, -1):
        limits[number] = following.get(starts[number].caller, len(data))
        following[starts[number].caller] = starts[number].at
    for number, (start, limit) in enumerate(zip(starts, limits, strict=True)):
        first = _line_start(data, start.at)
        opening = _opening(data, first, start, starts[number - 1].at if number else 0)
        line += data.count(b"\n", counted, opening)
        counted = opening
        yield _report(data[opening : min(limit, opening + MAX_REPORT_BYTES)], line, start, start.at - opening)


def _end_of_report(data: bytes, start: int, end: int) -> int:
    """Offset of the first of the words that end a report; -1 if there are none."""
    places = [at for words in _ENDS if (at := data.find(words, start, end)) >= 0]
    return min(places, default=-1)


def _line_start(data: bytes, at: int) -> int:
    """Where the line of an offset begins; of a very long one, a part of it."""
    return data.rfind(b"\n", max(0, at - MAX_LINE), at) + 1 or max(0, at - MAX_LINE)


def _opening(data: bytes, first: int, start: _Start, before: int) -> int:
    """Start of the first line that belongs to a report whose words of `STARTS` are on the line at ``first``.

    A WARN or BUG has said something after "cut here".  A fault whose own first line is lost (a log that begins in the
    middle of it) has printed the syndrome and the table before its walk.  ``before`` is where the previous report
    begins.
    """
    if start.kind in {ReportKind.WARNING, ReportKind.BUG}:
        mark = data.rfind(_CUT_HERE, max(0, first - 4 * MAX_LINE), first)
        if mark < 0 or _end_of_report(data, mark, first) >= 0 or data.count(b"\n", mark, first) > 6:
            return first
        return min(data.find(b"\n", mark) + 1 or first, first)
    if start.kind is not ReportKind.DIED and not data.startswith(_WALKS, start.at):
        return first
    begin = max(before, first - _MAX_INFO_BYTES)
    if before and _end_of_report(data, before, first) < 0:
        return first  # the lines are of the report before, or nobody can say whose they are
    begin = max([begin, *(data.rfind(words, begin, first) for words in _ENDS)])
    info = _ABORT_LINES.search(data, begin, first)
    return first if info is None else _line_start(data, info.start())


def _report(block: bytes, line: int, start: _Start, begin: int) -> Report:
    if start.caller:
        block = re.sub(_CALLER_OF_LINE % re.escape(start.caller), b"", block, flags=re.MULTILINE)
        begin = _begin(block, start.kind)
    end = _end_of_report(block, 0, len(block))
    block = block[: _end_of_line(block, end) if end >= 0 else MAX_OPEN_BYTES]
    found = find_fields(block)
    calls = block.find(_CALL_TRACE)
    quotes = {name: _quote(block, line, match.start(), match.end()) for name, match in found.items()}
    quotes["start"] = _quote(block, line, begin, begin)
    if calls >= 0:
        quotes["trace"] = _quote(block, line, calls, calls + len(_CALL_TRACE))
    time = _TIME.search(block[block.rfind(b"\n", 0, begin) + 1 : begin])
    values = values_of(found)
    return Report(
        kind=start.kind,
        line=quotes["start"].line,
        time=float(time[1]) if time else None,
        headline=_headline(block, begin),
        warning=_said(block, begin, start.kind),
        registers=MappingProxyType(registers(block)),
        trace=() if calls < 0 else frames(block, calls + len(_CALL_TRACE)),
        text=block.decode("utf-8", "replace"),
        complete=end >= 0,
        quotes=MappingProxyType(quotes),
        nested=_nested(block, values.get("address")) if start.kind is ReportKind.ABORT else (),
        **values,
    )


def _headline(block: bytes, begin: int) -> str:
    """The first line of a report, with what mail wrapped to the next one."""
    end = _end_of_line(block, begin)
    line = block[begin:end].rstrip()
    following = block[end + 1 : _end_of_line(block, end + 1)].strip()
    if following and len(following) <= MAX_WRAPPED and prefix_at(following, 0)["time"] is None:
        timed = prefix_at(block, block.rfind(b"\n", 0, begin) + 1)["time"] is not None
        if _UNFINISHED.search(line) or (timed and _CONTINUATION.match(following)):
            line += b" " + following
    return text_of_bytes(line)


MAX_WRAPPED = 120
_UNFINISHED = expression(
    rb"(?:\b(?:at|in|for|from|to|of|process|virtual|address|kernel|non-executable|read-only|memory|user|access"
    rb"|range|abort|syncing)|[:,(-])$"
)
_CONTINUATION = expression(rb"[\w(][^\n]*$(?<![:.])")


def _begin(block: bytes, kind: ReportKind) -> int:
    """Where the first line of the report says what it is."""
    found = _START_WORDS[kind].search(block)
    return found.start() if found is not None else 0


_START_WORDS: Mapping[ReportKind, re.Pattern[bytes]] = {
    kind: expression(b"|".join(start.shape.pattern for start in STARTS if start.kind is kind)) for kind in ReportKind
}


def _nested(block: bytes, address: Address | None) -> tuple[int, ...]:
    """The addresses of further faults, each once."""
    faults = re.finditer(rb"at\s{1,8}virtual\s{1,8}address\s{1,8}(?:0x)?([0-9a-fA-F]{16})", block)
    values = dict.fromkeys(Address.of(int(fault[1], 16)).value for fault in itertools.islice(faults, 64))
    return tuple(value for value in values if address is not None and value != address.value)


def _said(block: bytes, begin: int, kind: ReportKind) -> str:
    """The words between "cut here" and the fixed words, or after those of a page dump."""
    if kind is ReportKind.PAGE_DUMP:
        return text_of_bytes(block[begin : _end_of_line(block, begin)]).partition(": ")[2]
    lines = block[: block.rfind(b"\n", 0, begin) + 1].splitlines()
    return " ".join(words for line in lines if (words := text_of_bytes(line[prefix_at(line, 0).end() :])))


def _quote(block: bytes, line: int, start: int, end: int) -> Quote:
    first = block.rfind(b"\n", 0, start) + 1
    text = block[first : _end_of_line(block, max(start, end))]
    return Quote(line + block.count(b"\n", 0, start), " ".join(text_of_bytes(text).split("\n")))


def _end_of_line(block: bytes, start: int) -> int:
    end = block.find(b"\n", start)
    return min(len(block) if end < 0 else end, start + MAX_LINE)


def _distinct(reports: Sequence[Report], boots: Sequence[int]) -> Iterator[Report]:
    """Each report once a boot: a console log may end with the kernel's own log, and a WARN may come for ever."""
    first: dict[tuple[object, ...], int] = {}
    kept: list[Report] = []
    for report in reports:
        key = (bisect.bisect(boots, report.line), *_identity(report))
        if key in first:
            kept[first[key]] = _again(kept[first[key]], report)
        else:
            first[key] = len(kept)
            kept.append(report)
    yield from _without_walls(kept)


def _again(first: Report, report: Report) -> Report:
    """The first report, with the fields that only the other copy has: several CPUs tear each other's lines apart."""
    lacks = {
        name: value
        for name in _COPIED
        if not getattr(first, name) and (value := getattr(report, name)) not in {None, "", False}
    }
    quotes = MappingProxyType({**report.quotes, **first.quotes})
    return replace(first, repeats=first.repeats + 1, quotes=quotes, **lacks)


_COPIED = ("esr", "page_size", "va_bits", "user_table", "pgd", "walk", "release", "taint")
"""Fields that are the same for every CPU that faults at one address in one moment."""


def _without_walls(reports: Sequence[Report]) -> Iterator[Report]:
    """Without the first line of a report that syslogd also sent to every terminal."""
    whole = {error for one in reports if one.kind is not ReportKind.DIED for error in _ERROR.findall(one.text)}
    for report in reports:
        alone = report.kind is ReportKind.DIED and not report.registers and not report.release
        if not alone or not whole.intersection(_ERROR.findall(report.text)):
            yield report


_ERROR = expression(r"\[ {0,7}\d{1,9}\.\d{6}\][^\n]{0,40}Internal error: [^\n]{1,200}")


def _identity(report: Report) -> tuple[object, ...]:
    if report.kind in {ReportKind.WARNING, ReportKind.CHECK}:
        return report.kind, report.place or report.headline, report.pc, report.warning
    if report.registers:  # the tail of a report is recognised, too
        return report.pid, report.pc, *report.registers.items()
    if report.esr is not None and report.esr.from_user:
        return report.kind, report.esr.value, report.comm  # a program may be hit for ever
    return report.kind, report.time, report.address, report.headline


def _panics(data: bytes) -> Iterator[Panic]:
    places = sorted((*_places(data, b"Kernel Offset: "), *_places(data, b"PHYS_OFFSET: ")))
    for line, at in itertools.islice(_lines(data, places), MAX_REPORTS):
        if match := _PANIC.match(data, at):
            offset, base, phys = (
                None if group is None else int(group, 16) for group in match.group("offset", "base", "phys")
            )
            image = None if offset is None or base is None else (base + offset) & (2**64 - 1)
            yield Panic(line, text_of_bytes(match[0]), offset, phys, image)


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
