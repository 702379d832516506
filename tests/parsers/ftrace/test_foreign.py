"""What other tracers print is named and refused, whatever it looks like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parsers import ftrace
from parsers.errors import FormatError
from parsers.kinds import kind_of_content

from .conftest import FIXTURES, fixture_bytes

# The calls of fixtures/ftrace/pmem.trace in the layouts of the tracers.
PRINTED = {
    "perf trace": """\
     0.000 ndctl/81 probe:arch_add_memory(__probe_ip: -140735340701696, nid: 0, start: 2147483648, size: 33554432)
     1.217 ndctl/81 probe:sparse_add_section(__probe_ip: -140735338247952, nid: 0, pfn: 524288, nr_pages: 8192)
     1.819 ndctl/81 probe:vmemmap_populate_ret(__probe_ip: -140735340702776, ret: 0)
""",
    "bpftrace, columns": """\
Attaching 7 probes...
2.556945 81     ndctl            arch_add_memory              nid=0 start=0x80000000 size=0x2000000
2.558162 81     ndctl            sparse_add_section           nid=0 pfn=0x80000 nr_pages=8192 altmap=0x0
2.558764 81     ndctl            vmemmap_populate_ret         ret=0
""",
    "bpftrace, brackets": """\
Attaching 7 probes...
[2.556945] ndctl arch_add_memory(nid=0, start=0x80000000, size=0x2000000)
[2.558162] ndctl sparse_add_section(nid=0, pfn=0x80000, nr_pages=8192, altmap=0x0)
[2.558764] ndctl vmemmap_populate_ret(ret=0)
""",
    "babeltrace": """\
[13:12:02.556945000] (+0.000000000) host01 arch_add_memory: { cpu_id = 1 }, { ip = 0xFFFF800080029800, nid = 0 }
[13:12:02.558162000] (+0.000000000) host01 sparse_add_section: { cpu_id = 1 }, { ip = 0xFFFF8000802808F0, nid = 0 }
[13:12:02.558764000] (+0.000000000) host01 vmemmap_populate_ret: { cpu_id = 1 }, { ip = 0xFFFF8000800293C8, ret = 0 }
""",
}
LOG = """\
[    2.556945] Offlined Pages 32768
[    2.558162] removing memory fails, because memory [mem 0x80000000-0x87ffffff] is onlined
[    2.558764] arch_add_memory(start=0x80000000, size=0x2000000) failed
"""


@pytest.mark.parametrize("tracer", PRINTED)
def test_output_of_another_tracer_is_refused_with_what_to_do(tracer):
    data = PRINTED[tracer].encode()
    kind = kind_of_content(data)
    assert kind is not None
    assert kind.name == "trace"
    with pytest.raises(FormatError, match="ptaudit probes"):
        ftrace.read(data)


def test_a_log_that_names_one_call_is_still_a_log():
    assert not ftrace.looks_like(LOG.encode())
    assert ftrace.read(LOG.encode()).format == "dmesg"


SAID = (
    *("Offlined Pages 32768", "Built 1 zonelists, mobility grouping on", "memory offlining failed"),
    *("offlining of memory", "online_pages [mem 0x80000000-0x87ffffff] failed", "Hotplug memory [0x0-0x1]"),
    *("hot-add", "hotadd", "hot-remove", "hotremove", "hot-unplug", "hotunplug", "removing memory", "add_memory"),
    *("memory_hotplug", "memmap_on_memory", "PNP0C80", "virtio_mem", "kmem dax", "dax0.0: mapping0", "DAX1.0"),
    *("Fallback order for Node 0", "page dumped because: unmovable page"),
)


def test_every_message_of_hotplug_is_found_in_either_case():
    other = "usb 1-1: new device, dax of no number, hot plate"
    texts = [text for one in SAID for text in (one, other, one.upper(), one.lower())]
    lines = [f"[{n:5}.000000] {text}\n" for n, text in enumerate(texts)]
    read = ftrace.read("".join(lines).encode())
    assert read.events.line.tolist() == [n + 1 for n, text in enumerate(texts) if text != other]


@pytest.mark.parametrize(
    "name", sorted(path.name for path in FIXTURES.iterdir() if path.suffix in (".txt", ".trace", ".xz"))
)
def test_no_trace_of_the_kernel_is_taken_for_it(name):
    if not name.endswith(".dat.xz"):
        ftrace.read(fixture_bytes(name), path=name)


def test_a_trace_without_hotplug_is_said_to_have_none():
    text = "# tracer: nop\n#\n           sh-58      [001] d....     2.500000: sched_switch: prev_comm=sh\n"
    (said,) = ftrace.read(text.encode(), path="trace").diagnostics
    assert str(said) == "trace: no event of memory hotplug is in the trace"


def chrome(text: str) -> bytes:
    return json.dumps({"traceEvents": [], "systemTraceEvents": text}).encode()


@pytest.mark.parametrize("as_file", [True, False])
def test_text_of_ftrace_in_the_json_of_chrome_is_read(tmp_path: Path, as_file: bool) -> None:
    (tmp_path / "t.json").write_bytes(chrome(fixture_bytes("pmem.trace").decode()))
    found = ftrace.read(tmp_path / "t.json" if as_file else (tmp_path / "t.json").read_bytes())
    plain = ftrace.read(fixture_bytes("pmem.trace"))
    assert len(found) == len(plain) > 0
    assert (found.events.time_ns == plain.events.time_ns).all()


@pytest.mark.parametrize(
    "data",
    [
        b'{"traceEvents": [{"name": "x", "ph": "X", "ts": 1}]}',
        b'[{"name": "x", "ph": "X", "ts": 1, "pid": 1}]',
        b'{"traceEvents": [], "systemTraceEvents": "# tracer',
    ],
)
def test_json_of_chrome_without_the_text_of_ftrace_is_refused_by_name(data: bytes) -> None:
    kind = kind_of_content(data)
    assert kind is not None
    assert kind.name == "trace"
    with pytest.raises(FormatError, match="systemTraceEvents"):
        ftrace.read(data, path="t.json")
