"""Every event of a log that went wrong as a row, also those that memory hotplug has nothing to do with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rules.model.log_events import events_of
from rules.model.oops import Oopses

if TYPE_CHECKING:
    from rules.facts import Facts
    from rules.model.log_events import LogEvent

__all__ = ["log_events", "oops_row"]


def log_events(facts: Facts) -> tuple[LogEvent, ...]:
    """The events in the order of the log; none where there is no log."""
    oopses = facts.get(Oopses)
    return () if oopses is None else events_of(oopses)


def oops_row(event: LogEvent) -> dict[str, Any]:
    """One event as plain data, addresses as text; what is not known is None."""
    return {
        "source": event.path,
        "line": event.line,
        "time": event.time,
        "kind": event.kind,
        "what": event.what,
        "address": None if event.address is None else f"{event.address:#x}",
        "region": event.region,
        "level": event.level,
        "access": event.access,
        "pfn": None if event.pfn is None else f"{event.pfn:#x}",
        "function": event.function or None,
        "task": event.task or None,
        "concern": event.concern or None,
    }
