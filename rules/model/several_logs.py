"""Several logs of one host: every oops counts once, whichever logs have it.

The ring buffer, its rotated copies, pstore records and the log in a crash dump overlap, and those of earlier boots may
be another kernel's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from parsers.log_losses import torn_report
from rules.model.layout.builder import LayoutBuilder
from rules.model.log_events import LogEvents, events_of
from rules.model.oops import Oopses

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from parsers.dmesg import Dmesg
    from parsers.uname import KernelRelease
    from rules.model.log_events import LogEvent
    from rules.model.oops import DecodedOops

__all__ = ["of_all_logs", "with_all_messages"]


def of_all_logs(
    main: Dmesg, others: Sequence[Dmesg], builder: LayoutBuilder, release: KernelRelease | None
) -> tuple[Oopses, LogEvents]:
    """The reports and events of a log and of the others beside it, each once.

    ``builder`` and ``release`` are of the kernel that the evidence is of; a log of another kernel is decoded by what it
    says itself, and is not of the current boot.
    """
    first = Oopses.of(main, builder, release)
    reports = _Once(_report_key(oops) for oops in first.all)
    every, events = list(first.all), list(events_of(first))
    known = _Once(_event_key(event) for event in events)
    for log in others:
        same = _is_same_kernel(log, first.release)
        own = Oopses.of(log, builder if same else LayoutBuilder(), release if same else None)
        new = tuple(oops for oops in own.all if reports.is_new(_report_key(oops)))
        new = new if same else tuple(replace(oops, current=False) for oops in new)
        every += new
        more = (event for event in events_of(replace(own, all=new)) if known.is_new(_event_key(event)))
        events += more if same else (replace(event, current=False) for event in more)
    whole = with_all_messages(main, others, first.release)
    return replace(first, dmesg=whole, all=tuple(every)), LogEvents(tuple(events))


def with_all_messages(main: Dmesg, others: Sequence[Dmesg], release: KernelRelease | None) -> Dmesg:
    """The log with what the others say of the same boot besides: each message knows its file.

    Logs of another kernel are left out.  Where another log overlaps with this one and goes back to the start of the
    boot, what boot messages say is known.  A report that another log has torn is lost from all.
    """
    boot = main.boot
    seen = {(message.time, message.text) for message in boot.messages}
    messages, features, banner, lost = list(boot.messages), dict(boot.cpu_features), boot.release, boot.lost
    for log in others:
        if not _is_same_kernel(log, release):
            continue
        shared = [one for one in log.boot.messages if one.time is not None and (one.time, one.text) in seen]
        new = [one for one in log.boot.messages if (one.time, one.text) not in seen]
        seen.update((one.time, one.text) for one in new)
        messages += [replace(one, path=log.path) for one in new]
        if shared and banner is None and log.boot.release is not None:
            banner, lost = log.boot.release, log.boot.lost
            features = {**log.boot.cpu_features, **features}
        if not lost and (torn := torn_report(log.reports)) is not None:
            lost = f"the report of line {torn} of {log.path} has lost lines"
    if len(messages) == len(boot.messages) and lost == boot.lost:
        return main
    if all(one.time is not None for one in messages):
        messages.sort(key=lambda one: one.time or 0.0)
    merged = replace(boot, messages=tuple(messages), cpu_features=features, release=banner, lost=lost)
    return replace(main, boot=merged, boots=tuple(merged if one is boot else one for one in main.boots))


class _Once:
    """What was seen, by key and time: without a time, of two the same key is enough."""

    def __init__(self, seen: Iterable[tuple[Hashable, float | None]]) -> None:
        self.times: dict[Hashable, set[float | None]] = {}
        for key, time in seen:
            self.times.setdefault(key, set()).add(time)

    def is_new(self, one: tuple[Hashable, float | None]) -> bool:
        """Whether it was not seen before; from now on it was."""
        key, time = one
        times = self.times.setdefault(key, set())
        new = not times or not (time is None or None in times or time in times)
        times.add(time)
        return new


def _report_key(oops: DecodedOops) -> tuple[Hashable, float | None]:
    report = oops.report
    address = None if report.address is None else report.address.value
    return (report.kind, report.headline, address, report.comm, report.pid, report.cpu, report.function), report.time


def _event_key(event: LogEvent) -> tuple[Hashable, float | None]:
    return (event.kind, event.what, event.address, event.pfn, event.task, event.pid, event.function), event.time


def _is_same_kernel(log: Dmesg, release: KernelRelease | None) -> bool:
    """Whether nothing in the log says that another kernel printed it."""
    if release is None:
        return True
    said = log.boot.release.raw if log.boot.release is not None else ""
    printed = {one.release.partition(" ")[0] for one in log.reports.reports if one.release}
    return said == release.raw if said else not printed or release.raw in printed
