"""Notifications mean what the traced kernel means by them."""

from __future__ import annotations

import pytest

from parsers import ftrace
from parsers.ftrace.events import Phase
from parsers.ftrace.functions import Kind
from parsers.ftrace.notify import NotifyAction, decode_notify


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("probes-5.10-4k.trace.xz", "mask"),
        ("probes-6.1-4k.trace.xz", "mask"),
        ("probes-6.12-64k-va48.trace.xz", "enum"),
        ("run3-v6.dat.xz", "enum"),
    ],
)
def test_encoding_and_range_are_read_off_the_trace(trace, name, encoding):
    events = trace(name).events
    found = decode_notify(events)
    assert found.encoding == encoding
    calls = events.where(Kind.MEMORY_NOTIFY, Phase.ENTRY)
    assert found.has_range[calls].all()
    order = [NotifyAction(action).name for action in found.action[calls].tolist()]
    onlines = events.where(Kind.ONLINE_PAGES, Phase.ENTRY).size
    assert order[:2] == ["GOING_ONLINE", "ONLINE"]
    assert {action: order.count(action) for action in set(order)} == dict.fromkeys(
        ("GOING_ONLINE", "ONLINE", "GOING_OFFLINE", "OFFLINE"), onlines
    )
    first = events.where(Kind.ONLINE_PAGES, Phase.ENTRY)[0]
    assert found.start_pfn[calls[0]] == events.column("start_pfn")[0][first]
    assert found.nr_pages[calls[0]] == events.column("nr_pages")[0][first]


def test_without_an_online_or_offline_nothing_is_claimed():
    message = "mhp_notify: (memory_notify+0x0/0x38) action=1 w0=0x1 w1=0x2"
    found = decode_notify(
        ftrace.read(f"              sh-58      [001] d....     2.000000: {message}\n".encode()).events
    )
    assert found.encoding == ""
    assert found.action.tolist() == [NotifyAction.UNKNOWN]
    assert not found.has_range.any()
