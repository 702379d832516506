"""Everything that went wrong in a log, one row each: what, where, and whether it is the memory map's business.

Oopses, BUGs, WARNs, SErrors, bad pages, stalls and lockups come from the kernel's reports, memory failures and hotplug
operations that failed from its messages.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from parsers.dmesg import Kind
from parsers.expressions import expression
from parsers.records import dataclass
from rules.model.hotplug_failures import failures_of
from rules.model.oops import Region
from rules.model.oops_words import concern_of, function_of, is_related, what_happened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Boot, Message
    from parsers.layout import KernelLayout
    from rules.model.oops import DecodedOops, Oopses

__all__ = ["BadPlace", "LogEvent", "LogEvents", "bad_places", "events_of"]

MAX_FAILURES = 1000
_MEMORY_FAILURE = expression(r"Memory failure: (?:0x)?(?P<pfn>[0-9a-f]{1,13}): (?P<what>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One thing that went wrong."""

    line: int
    """1-based line of the log."""
    path: str
    time: float | None
    kind: str
    """`parsers.oops.ReportKind`, ``memory_failure``, ``hardware_error`` or ``hotplug_failure``."""
    what: str
    """In words: ``level 2 translation fault on a read``."""
    address: int | None = None
    """The faulting virtual address, as translated."""
    region: str = "none"
    """As `rules.model.oops.DecodedOops.area`."""
    level: int | None = None
    """Arm level of the entry that faulted."""
    span_bytes: int | None = None
    """What an entry of that level translates."""
    access: str | None = None
    pfn: int | None = None
    function: str = ""
    module: str = ""
    """The module that ``function`` is in; empty for the kernel itself."""
    task: str = ""
    pid: int | None = None
    release: str = ""
    at_boot: bool = False
    """While the kernel booted."""
    capture_kernel: bool = False
    current: bool = True
    """In the boot that the other evidence is of."""
    when: str = ""
    """Which boot it was, where it is another one."""
    repeats: int = 0
    related: bool = True
    """Memory that is added, removed, mapped or bad can have to do with it."""
    concern: str = ""
    """What it means for struct pages and the linear map, in words; says so where neither is concerned."""

    @property
    def text(self) -> str:
        """All of it in one line."""
        parts = [self.what]
        if self.address is not None:
            parts.append(f"at {self.address:#x} ({self.region})")
        if self.span_bytes is not None and self.level is not None:
            parts.append(f"an entry of level {self.level} spans {_size(self.span_bytes)}")
        parts += [f"PFN {self.pfn:#x}"] if self.pfn is not None else []
        module = f" [{self.module}]" if self.module else ""
        parts += [f"in {self.function}(){module}"] if self.function else []
        pid = f" ({self.pid})" if self.pid is not None else ""
        parts += [f"{self.task}{pid}"] if self.task else []
        parts += [self.release] if self.release else []
        parts += ["while booting"] if self.at_boot else []
        parts += ["in a capture kernel"] if self.capture_kernel else []
        parts += [] if self.current else [self.when or "in an earlier boot"]
        parts += [f"{self.repeats + 1} times"] if self.repeats else []
        return f"line {self.line}: {', '.join(parts)}" + (f": {self.concern}" if self.concern else "")

    def as_dict(self) -> dict[str, object]:
        """The row of a report: addresses and PFNs as hexadecimal text, None for what is not known."""
        return {
            "source": self.path,
            "line": self.line,
            "time": self.time,
            "kind": self.kind,
            "what": self.what,
            "address": _hex(self.address),
            "region": self.region,
            "level": self.level,
            "span": _hex(self.span_bytes),
            "access": self.access,
            "pfn": _hex(self.pfn),
            "function": self.function or None,
            "module": self.module or None,
            "task": self.task or None,
            "pid": self.pid,
            "release": self.release or None,
            "at_boot": self.at_boot,
            "capture_kernel": self.capture_kernel,
            "this_boot": self.current,
            "repeats": self.repeats,
            "related": self.related,
            "concern": self.concern,
            "text": self.text,
        }


@dataclass(frozen=True, eq=False)
class LogEvents:
    """What went wrong in a log, by line."""

    events: tuple[LogEvent, ...]

    @classmethod
    def of(cls, oopses: Oopses) -> LogEvents:
        """The events of a log."""
        return cls(events_of(oopses))

    @property
    def unrelated(self) -> bool:
        """There are events, and memory has to do with none of them."""
        return bool(self.events) and not any(event.related for event in self.events)

    @property
    def summary(self) -> str:
        """What happened, as a part of a sentence: the first event that concerns memory, and how many more there are."""
        first, count = next((one for one in self.events if one.related), self.events[0]), len(self.events)
        module = f" [{first.module}]" if first.module else ""
        where = f" in {first.function}(){module}" if first.function else ""
        more = f" and {count - 1} more event{'' if count == 2 else 's'}" if count > 1 else ""
        if first.kind == "hotplug_failure":
            return f'"{first.what[:MAX_SUMMARY]}" (line {first.line}){more}'
        return f"the {first.what[:MAX_SUMMARY]}{where} of line {first.line}{more}"


MAX_SUMMARY = 160


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def events_of(oopses: Oopses) -> tuple[LogEvent, ...]:
    """Every event of a log, by line."""
    rows = [_of_report(oops) for oops in oopses.all]
    reported = {row.line for row in rows}
    for boot in oopses.dmesg.boots:
        layout = oopses.layout if boot is oopses.dmesg.boot else None
        rows += _memory_failures(boot, oopses.dmesg.path, layout)
        rows += _hardware_errors(boot, oopses.dmesg.path, layout)
        failed = _failed_operations(boot, oopses, layout)
        rows += [row for row in failed if row.line not in reported]  # the dump of a page that stays is a report
    return tuple(sorted(rows, key=lambda row: row.line))


def _of_report(oops: DecodedOops) -> LogEvent:
    report, concern = oops.report, concern_of(oops)
    return LogEvent(
        line=report.line,
        path=oops.path,
        time=report.time,
        kind=str(report.kind),
        what=what_happened(oops),
        address=_address(oops),
        region=oops.area,
        level=oops.level if report.address is not None else None,
        span_bytes=oops.span if report.address is not None else None,
        access=oops.access,
        pfn=oops.pfn,
        function=function_of(oops),
        module=report.module,
        task=report.comm,
        pid=report.pid,
        release=oops.release.raw if oops.release is not None else report.release.partition(" ")[0],
        at_boot=report.is_boot,
        capture_kernel=oops.boot.is_capture_kernel,
        current=oops.current,
        when=oops.when,
        repeats=report.repeats,
        related=is_related(oops, concern),
        concern=concern,
    )


def _address(oops: DecodedOops) -> int | None:
    """As the kernel translated it; as it was printed where it cannot be translated."""
    address = oops.report.address
    if address is None:
        return None
    return address.printed if oops.region is Region.BETWEEN else address.value


def _memory_failures(boot: Boot, path: str, layout: KernelLayout | None) -> Iterator[LogEvent]:
    rows: dict[int, tuple[Message, str, int]] = {}
    for message in boot.of(Kind.MEMORY_FAILURE):
        found = _MEMORY_FAILURE.match(message.text)
        if found is None or "outside kernel control" in found["what"]:
            continue
        pfn = int(found["pfn"], 16)
        first, what, count = rows.get(pfn, (message, found["what"], -1))
        rows[pfn] = (first, what, count + 1)
        if len(rows) >= MAX_FAILURES:
            break
    for pfn, (message, what, repeats) in rows.items():
        yield LogEvent(
            line=message.line,
            path=path,
            time=message.time,
            kind="memory_failure",
            what=f"memory failure: {what[:120]}",
            pfn=pfn,
            release=boot.release.raw if boot.release else "",
            current=layout is not None,
            repeats=repeats,
            concern=f"poisoned memory{_section(pfn, layout)}",
        )


_ERROR_ADDRESS = expression(
    r"physical(?: fault |_)address: 0x(?P<pa>[0-9a-f]{1,16})|ERR0ADDR: 0x(?P<ras>[0-9a-f]{1,16})"
    r"| page:0x(?P<pfn>[0-9a-f]{1,13})\b"
)
_ADDRESS_BITS = (1 << 56) - 1  # ERR<n>ADDR.PADDR; above it are flags


@dataclass(frozen=True, slots=True)
class BadPlace:
    """Memory, or a register of a device, that firmware, EDAC or a RAS node reports."""

    message: Message
    address: int | None
    """Physical address; None where the message names a page only."""
    pfn: int | None
    """PFN as the message has it, or by the page size where that is known."""
    repeats: int


def bad_places(boot: Boot, layout: KernelLayout | None) -> tuple[BadPlace, ...]:
    """The places that hardware errors of a boot name, each once with its first message."""
    shift = layout.page_shift if layout is not None and layout.knows("page_size") else None
    seen: dict[tuple[int | None, int | None], list[Message]] = {}
    for message in boot.of(Kind.HARDWARE_ERROR):
        if (found := _ERROR_ADDRESS.search(message.text)) is None:
            continue
        if found["pfn"]:
            seen.setdefault((None, int(found["pfn"], 16)), []).append(message)
        else:
            address = int(found["pa"], 16) if found["pa"] else int(found["ras"], 16) & _ADDRESS_BITS
            if 0 < address < 1 << 52:
                seen.setdefault((address, None if shift is None else address >> shift), []).append(message)
    places = itertools.islice(seen.items(), MAX_FAILURES)
    return tuple(BadPlace(messages[0], address, pfn, len(messages) - 1) for (address, pfn), messages in places)


def _hardware_errors(boot: Boot, path: str, layout: KernelLayout | None) -> Iterator[LogEvent]:
    for place in bad_places(boot, layout):
        where = f" at physical {place.address:#x}" if place.address is not None else ""
        yield LogEvent(
            line=place.message.line,
            path=path,
            time=place.message.time,
            kind="hardware_error",
            what=f"hardware error{where}",
            pfn=place.pfn,
            release=boot.release.raw if boot.release else "",
            current=layout is not None,
            repeats=place.repeats,
            concern="bad memory, or a device's register" + ("" if place.pfn is None else _section(place.pfn, layout)),
        )


def _section(pfn: int, layout: KernelLayout | None) -> str:
    if layout is None or not layout.knows("section_size_bits", "page_size"):
        return ""
    return f" in section {pfn // layout.pages_per_section}"


def _failed_operations(boot: Boot, oopses: Oopses, layout: KernelLayout | None) -> Iterator[LogEvent]:
    for failed in itertools.islice(failures_of(boot), MAX_FAILURES):
        place = failed.bytes_range
        where = f" [{place[0]:#x}, {place[1]:#x})" if place is not None else ""
        details = ", ".join(filter(None, (failed.device, failed.details)))
        details = f" ({details})" if details else ""
        pfn = failed.pfn
        if pfn is None and place is not None and layout is not None and layout.knows("page_size"):
            pfn = place[0] >> layout.page_shift
        yield LogEvent(
            line=failed.message.line,
            path=oopses.dmesg.path,
            time=failed.message.time,
            kind="hotplug_failure",
            what=f"{failed.failure.title}{where}{details}",
            pfn=pfn,
            release=boot.release.raw if boot.release else "",
            current=layout is not None,
            concern=failed.failure.leaves,
        )


def _size(size_bytes: int) -> str:
    unit, shift = next(
        (one for one in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)) if size_bytes >> one[1]), ("B", 0)
    )
    return f"{size_bytes >> shift} {unit}"
