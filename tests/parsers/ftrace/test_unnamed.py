"""Probes that name no argument: the signature of the kernel's release does."""

from __future__ import annotations

import re
from itertools import count

import pytest

from parsers import ftrace
from parsers.ftrace.functions import Kind
from parsers.ftrace.health import UNNAMED
from parsers.ftrace.unnamed import name_arguments

from .conftest import fixture_bytes, rows

LINE = "           sh-58      [001] d....     {}.000000: {}\n"


def unnamed(text: str) -> str:
    """A trace as the same probes would have written it without names for the events and their arguments."""

    def without_names(match: re.Match[str]) -> str:
        number = count(1)
        arguments = re.sub(r"\b\w+=", lambda _: f"arg{next(number)}=", match[4])
        return f": {'r' if match[1].endswith('_ret') else 'p'}_{match[3]}_0: ({match[2] or ''}{match[3]}{arguments}"

    return re.sub(r": (\w+): \(([^()\n]*<- )?(\w+)((?:\+0x0/0x\w+)?\)[^\n]*)", without_names, text)


def read(*messages: str) -> ftrace.Trace:
    return ftrace.read("".join(LINE.format(i + 1, message) for i, message in enumerate(messages)).encode())


def said(trace) -> tuple[Kind, ...]:
    return next((issue.kinds for issue in trace.health if issue.code == UNNAMED), ())


def without(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key != "name"} for row in found]


def test_a_capture_without_names_reads_like_the_one_with_them():
    text = fixture_bytes("pmem.trace").decode()
    bare = ftrace.read(unnamed(text).encode())
    assert all(set(row["args"]) <= {"arg1", "arg2", "arg3", "arg4"} for row in rows(bare))
    named, original = name_arguments(bare, (6, 12, 117)), ftrace.read(text.encode())
    assert without(rows(named)) == without(rows(original))
    assert [issue.code for issue in named.health] == [issue.code for issue in original.health]
    assert not said(named)


def test_without_a_release_it_is_reported():
    trace = ftrace.read(unnamed(fixture_bytes("pmem.trace").decode()).encode())
    assert name_arguments(trace, None) is trace
    assert {Kind.ARCH_ADD_MEMORY, Kind.VMEMMAP_FREE} <= set(said(trace))
    assert next(issue for issue in trace.health if issue.code == UNNAMED).undecided


@pytest.mark.parametrize(
    ("release", "arguments", "expected"),
    [
        ((5, 10, 209), "arg1=0x0 arg2=0x80000000 arg3=0x8000000 arg4=0x0", {"start": 0x80000000, "size": 0x8000000}),
        ((6, 12, 1), "arg1=0x80000000 arg2=0x8000000 arg3=0x0", {"start": 0x80000000, "size": 0x8000000}),
        ((6, 12, 1), "arg1=0x0 arg2=0x80000000 arg3=0x8000000 arg4=0x0", None),  # the registers of an older kernel
        ((5, 10, 209), "arg1=0x80000000 arg2=0x8000000 arg3=0x0", None),
        ((6, 12, 1), "arg1=0x80000000", None),  # no range
        ((6, 12, 1), "arg1=0x8000000 arg2=0xffff000080000000", None),  # no size is an address
    ],
)
def test_the_signature_of_the_release_decides(release, arguments, expected):
    trace = read(f"p_arch_remove_memory_0: (arch_remove_memory+0x0/0x150) {arguments}")
    found = name_arguments(trace, release)
    columns = rows(found)[0]["args"]
    if expected is None:
        assert set(columns) <= {"arg1", "arg2", "arg3", "arg4"}
        assert said(found) == (Kind.ARCH_REMOVE_MEMORY,)
    else:
        assert {name: columns[name] for name in expected} == expected
        assert not said(found)


def test_a_section_before_6_12_begins_after_its_pointer():
    message = (
        "p_sparse_remove_section_0: (sparse_remove_section+0x0/0x90) arg1={} arg2=0x80000 arg3=0x8000 arg4=0 arg5=0"
    )
    found = name_arguments(read(message.format("0xffff00007fb0e000")), (6, 1, 100))
    assert rows(found)[0]["args"]["start_pfn"] == 0x80000
    assert said(name_arguments(read(message.format("0x80000")), (6, 1, 100))) == (Kind.SPARSE_REMOVE_SECTION,)


def test_nodes_and_results_are_ints_in_the_lower_half_of_a_register():
    found = name_arguments(
        read(
            "p_arch_add_memory_0: (arch_add_memory+0x0/0x150) arg1=0xffffffff arg2=0x80000000 arg3=0x8000000",
            "r_arch_add_memory_0: (add_memory_resource+0x8/0x9 <- arch_add_memory) arg1=0xfffffff4",
        ),
        (6, 12, 1),
    )
    assert found.events.signed("nid")[0].tolist() == [-1, 0]
    assert found.events.signed("ret")[0].tolist() == [0, -12]


def test_other_folders_are_not_taken_for_results():
    returned = "r_online_pages_0: (device_online+0x8/0x9 <- online_pages) arg1=0x80000"
    assert said(name_arguments(read(returned), (6, 12, 1))) == (Kind.ONLINE_PAGES,)
