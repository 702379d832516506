"""trace.dat holds the same events as the text of the same buffer, in every variant of the container."""

from __future__ import annotations

import contextlib
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers import ftrace
from parsers.errors import FormatError, InputError
from parsers.ftrace import tracedat
from parsers.ftrace.events import Phase
from parsers.ftrace.functions import Kind

from .conftest import fixture_bytes, rows
from .writer import Writer


def test_same_events_as_the_text_of_the_same_buffer(trace):
    binary, text = trace("pmem.dat"), trace("pmem.trace")
    assert rows(binary) == rows(text)
    # Text has microseconds, rounded.
    assert int(np.abs(binary.events.time_ns - text.events.time_ns).max()) <= 500
    for column in ("comm", "symbol", "caller", "name"):
        ours = [binary.strings[int(i)] for i in getattr(binary.events, column)]
        assert ours == [text.strings[int(i)] for i in getattr(text.events, column)], column
    for row in range(len(text)):
        assert binary.stacks[int(binary.events.stack[row])] == text.stacks[int(text.events.stack[row])]
    assert binary.nr_scanned == text.buffers[0].entries == 42
    assert binary.release == "6.12.117"
    assert binary.buffers[0].clock == "local"
    assert (binary.events.line == 0).all()
    assert "vmemmap_free: (vmemmap_free)" in binary.quote(int(binary.events.where(Kind.VMEMMAP_FREE)[0]))


def test_same_events_as_trace_cmd_report(trace):
    for binary, text in (("pmem.dat", "pmem.report.xz"), ("run3-v6.dat.xz", "run3-report-v6.txt")):
        assert rows(trace(binary)) == rows(trace(text))
    report, binary = trace("run3-v6.report-t.txt"), trace("run3-v6.dat.xz")
    assert report.events.time_ns.tolist() == binary.events.time_ns.tolist()
    assert binary.nr_scanned == fixture_bytes("run3-report-v6.txt").count(b"\n") - 1


def test_reports_callers_are_the_addresses_of_the_binarys_symbols(trace):
    report, binary = trace("pmem.report.xz"), trace("pmem.dat")
    for row in range(len(binary)):
        assert report.stacks[int(report.events.stack[row])] == binary.stacks[int(binary.events.stack[row])]
        assert (report.events.caller[row] >= 0) == (binary.events.caller[row] >= 0)


VARIANTS = [
    pytest.param(
        {"version": version, "order": order, "long_size": long, "page_size": page, "compression": compression}, id=name
    )
    for name, version, order, long, page, compression in [
        ("v6", 6, "<", 8, 4096, "none"),
        ("v7-none", 7, "<", 8, 4096, "none"),
        ("v7-zlib", 7, "<", 8, 4096, "zlib"),
        ("v7-zstd", 7, "<", 8, 4096, "zstd"),
        ("v7-zstd-64K-pages", 7, "<", 8, 65536, "zstd"),
        ("v6-64K-pages", 6, "<", 8, 65536, "none"),
        ("v6-big-endian", 6, ">", 8, 4096, "none"),
        ("v7-big-endian", 7, ">", 8, 16384, "zlib"),
        ("v6-32-bit", 6, "<", 4, 4096, "none"),
    ]
]


def some_events(writer: Writer, seed: int, count: int = 600) -> tuple[list, list]:
    """Two CPUs full of noise with events in between, and what is to be read from them."""
    random.seed(seed)
    cpus, expected = [[], []], []
    now = 5_000_000_000
    for number in range(count):
        cpu = random.randrange(2)
        now += random.choice((1, 900, 1 << 20, 1 << 28, 1 << 31))
        if number % 3:
            cpus[cpu].append(writer.noise(now))
        else:
            pfn, nid = random.getrandbits(40), random.choice((-1, 0, 3))
            zone = random.choice((b"Movable", b"Device", b"Normal" * 30))
            cpus[cpu].append(writer.online(now, 58, pfn, nid, zone))
            expected.append((now, cpu, pfn, nid, zone.decode()))
    return cpus, expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_container(variant):
    writer = Writer(**variant)
    cpus, expected = some_events(writer, 1)
    writer.instances = {"": cpus}
    found = ftrace.read(writer.build())
    events = found.events
    names = [found.strings[int(i)] for i in events.text("zone_name")]
    got = list(
        zip(
            events.time_ns.tolist(),
            events.cpu.tolist(),
            events.column("start_pfn")[0].tolist(),
            events.signed("nid")[0].tolist(),
            names,
            strict=True,
        )
    )
    assert got == expected
    assert found.nr_scanned == 600
    assert found.buffers[0].clock == "mono"
    assert (events.kind == Kind.ONLINE_PAGES).all()
    assert (events.phase == Phase.ENTRY).all()
    assert {found.strings[int(i)] for i in events.comm} == {"we ird-1 [00"}
    assert {found.strings[int(i)] for i in events.symbol} == {"online_pages"}
    assert not found.diagnostics


@pytest.mark.parametrize("version", [6, 7])
def test_instances_are_buffers_of_their_own(version):
    writer = Writer(version=version)
    one, two = some_events(writer, 1), some_events(writer, 2)
    writer.instances = {"": one[0], "mhp": two[0]}
    found = ftrace.read(writer.build())
    assert [buffer.name for buffer in found.buffers] == ["", "mhp"]
    for number, (_, expected) in enumerate((one, two)):
        mine = found.events.time_ns[found.events.buffer == number]
        assert mine.tolist() == [time for time, *_ in expected]
    assert (np.diff(found.events.time_ns) >= 0).all()


def test_lost_events_are_gaps_between_pages():
    writer = Writer(missed=7)
    cpus, _ = some_events(writer, 3)
    writer.instances = {"": cpus}
    found = ftrace.read(writer.build())
    assert found.gaps
    assert {gap.count for gap in found.gaps} == {7}
    assert all(gap.start_ns < gap.end_ns for gap in found.gaps)
    issues = [issue for issue in found.health if issue.code == "lost-events"]
    assert len(issues) == len(found.gaps)
    assert all(issue.undecided for issue in issues)


def test_overruns_are_known_from_the_statistics():
    writer = Writer(cpu_stats=["CPU: 0\nentries: 600\noverrun: 42\ncommit overrun: 0\ndropped events: 1\n"])
    writer.instances = {"": some_events(writer, 4)[0]}
    found = ftrace.read(writer.build())
    assert (found.buffers[0].entries, found.buffers[0].written) == (600, 643)
    assert "overwritten" in {issue.code for issue in found.health}


def test_parts_of_a_file_are_read_with_the_same_result(monkeypatch):
    writer = Writer(compression="zstd")
    writer.instances = {"": some_events(writer, 5)[0]}
    whole = ftrace.read(writer.build())
    monkeypatch.setattr(tracedat, "_PART", 4096)
    assert rows(ftrace.read(writer.build())) == rows(whole)


def small_file(**variant: object) -> bytes:
    writer = Writer(**variant)
    writer.instances = {"": some_events(writer, 6, 60)[0]}
    return writer.build()


@pytest.mark.parametrize("variant", [{"version": 6}, {"version": 7}, {"version": 7, "compression": "zlib"}])
def test_a_file_that_was_cut_short(variant):
    data = small_file(**variant)
    seen = set()
    for end in range(0, len(data), 97):
        try:
            ftrace.read(data[:end])
        except FormatError as error:
            seen.add(str(error))
        except InputError:
            pass
    assert all(seen)
    assert len(seen) > 3


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_gives_errors_of_our_own_or_events(data):
    variant = data.draw(st.sampled_from([{"version": 6}, {"version": 7}, {"version": 7, "compression": "zstd"}]))
    raw = bytearray(small_file(**variant))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        width = data.draw(st.sampled_from([1, 4, 8]))
        raw[at : at + width] = data.draw(st.sampled_from([b"\xff", b"\0", b"\x7f", b"\1"])) * width
    with contextlib.suppress(InputError):
        ftrace.read(bytes(raw))


def test_a_decompression_bomb_is_refused():
    data = small_file(version=7, compression="zlib")
    # The first section follows the head: 16 bytes, then the compressed and the announced size.
    section = data.index(b"zlib\x001\0") + 7 + 8 + 16
    bomb = data[: section + 4] + struct.pack("<I", 0xFFFF_FFFF) + data[section + 8 :]
    with pytest.raises(FormatError, match="out of all proportion"):
        ftrace.read(bomb)


def test_an_announced_size_that_is_wrong_is_refused():
    data = small_file(version=7, compression="zlib")
    section = data.index(b"zlib\x001\0") + 7 + 8 + 16
    (size,) = struct.unpack_from("<I", data, section + 4)
    wrong = data[: section + 4] + struct.pack("<I", size + 1) + data[section + 8 :]
    with pytest.raises(FormatError, match="are announced"):
        ftrace.read(wrong)


def test_option_sections_in_a_circle_are_refused():
    data = small_file(version=7)
    (first,) = struct.unpack_from("<Q", data, data.index(b"none\x001\0") + 7)
    end = len(data) - 8
    with pytest.raises(FormatError, match="circle"):
        ftrace.read(data[:end] + struct.pack("<Q", first))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x17\x08\x44tracing", "version"),
        (b"\x17\x08\x44tracing5\0\0\x08\0\x10\0\0", "version '5'"),
        (b"\x17\x08\x44tracing6\0\7\x08\0\x10\0\0", "byte order 7"),
        (b"\x17\x08\x44tracing6\0\0\x08\0\x10\0\0", "header_page"),
        (b"\x17\x08\x44nothing", "no trace.dat"),
    ],
)
def test_a_head_that_is_wrong(data, message):
    with pytest.raises(FormatError, match=message):
        ftrace.read(data)


def test_unknown_compression_is_named():
    data = small_file(version=7, compression="zlib").replace(b"zlib\x001\0", b"lzma\x001\0")
    with pytest.raises(FormatError, match="lzma"):
        ftrace.read(data)
