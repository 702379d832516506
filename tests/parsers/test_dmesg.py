"""Kernel logs: facts of the boot, messages about memory, and everything that gets put before a message."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import dmesg as module
from parsers.dmesg import Kind, parse_dmesg
from parsers.errors import ArchitectureError, FormatError, WrongFormatError
from parsers.log_scan import looks_like_log
from tests.parsers.yardstick import best_of_three

HOST = Path(__file__).parents[2] / "fixtures/host"
DMESG = (HOST / "dimm-6.12/03-two-blocks-offline/dmesg").read_bytes()
SERIAL = (HOST / "pmem-6.12-vuln/serial.log").read_bytes()
BANNER = b"[    0.000000] Linux version 6.12.117 (root@vm) (gcc) #2 SMP\n"


def facts(log):
    boot = log.boot
    ranges = list(zip(boot.memory.node.tolist(), boot.memory.start.tolist(), boot.memory.last.tolist(), strict=True))
    texts = [(message.kind, message.text) for message in boot.messages]
    return boot.release.raw, boot.command_line.raw, boot.kaslr, ranges, texts


def test_capture():
    log = parse_dmesg(DMESG, "dmesg")
    boot = log.boot
    assert log.boots == (boot,)
    assert log.diagnostics == ()
    assert boot.release.raw == "6.12.117"
    assert (boot.release.line, boot.line) == (2, 2)
    assert boot.command_line.value("init_on_free") == "1"
    assert boot.kaslr is False
    assert boot.of(Kind.KASLR)[0].text == "KASLR disabled due to lack of seed"
    assert boot.memory.node.tolist() == [0] * 8
    assert (boot.memory.start[0], boot.memory.last[0]) == (0x04000000, 0x07FFFFFF)
    assert (boot.memory.start[-1], boot.memory.last[-1]) == (0x4FFE0000, 0x4FFFFFFF)
    assert [(zone.name, zone.start, zone.last) for zone in boot.zones] == [
        ("DMA", 0x04000000, 0x4FFFFFFF),
        ("DMA32", None, None),
        ("Normal", None, None),
        ("Device", None, None),
    ]
    assert boot.feature("spectre-bhb") == boot.cpu_features["Spectre-BHB"] == 62
    assert boot.feature("Memory Tagging") is None
    assert boot.of(Kind.ZONELISTS)[-1].time == 5.835077
    assert not boot.is_capture_kernel


@pytest.mark.parametrize(
    ("lines", "machine"),
    [
        (b"DMI: Memory slots populated: 1/1\n[    0.0] DMI: Acme R1, BIOS 1.2 01/02/2025", "Acme R1"),
        (b"Machine model: Acme,board (rev 2)", "Acme,board (rev 2)"),
        (b"Hardware name: linux,dummy-virt (DT)", "linux,dummy-virt"),
        (b"Hardware name: QEMU KVM Virtual Machine, BIOS 0.0.0 02/06/2015", "QEMU KVM Virtual Machine"),
        (b"DMI: " + b"x" * 5000, None),
        (b"Booting Linux on physical CPU", None),
    ],
)
def test_the_machine_is_what_the_log_calls_it(lines, machine):
    log = parse_dmesg(BANNER + b"[    0.000000] " + lines.replace(b"[    0.0]", b"[    0.000000]") + b"\n", "dmesg")
    assert log.boot.machine == machine


def test_every_boot_has_its_machine():
    first, second = (BANNER + b"[    0.000000] Machine model: " + name + b"\n" for name in (b"one", b"two"))
    assert [boot.machine for boot in parse_dmesg(first + second, "dmesg").boots] == ["one", "two"]
    assert parse_dmesg(DMESG, "dmesg").boot.machine == "QEMU QEMU Virtual Machine"


def test_lines_point_into_the_file():
    lines = DMESG.decode().splitlines()
    boot = parse_dmesg(DMESG, "dmesg").boot
    for message in boot.messages:
        assert lines[message.line - 1].rstrip().endswith(message.text)
    for line, start in zip(boot.memory.line, boot.memory.start, strict=True):
        assert f"[mem {start:#018x}-" in lines[line - 1]


def test_serial_console_with_firmware_output_and_an_oops():
    log = parse_dmesg(SERIAL, "serial.log")
    lines = SERIAL.split(b"\n")
    assert b"Linux version" in lines[log.boot.line - 1]
    assert "nokaslr" in log.boot.command_line
    assert log.boot.of(Kind.CRASH)[0].text.startswith("Unable to handle kernel paging request at virtual address")
    assert log.boot.memory.start.size == 8


PREFIXES = {
    "printk": "[{t:12.6f}] ",
    "priority": "<6>[{t:12.6f}] ",
    "caller": "[{t:12.6f}][    T1] ",
    "caller apart": "[{t:12.6f}] [   C0] ",
    "dmesg -x": "kern  :info  : [{t:12.6f}] ",
    "journalctl": "Nov 21 08:00:00 host-1.example kernel: ",
    "journalctl short-precise": "Nov 21 08:00:00.123456 host kernel: ",
    "journalctl short-monotonic": "[{t:12.6f}] host kernel: ",
    "journalctl short-iso": "2026-11-21T08:00:00+0000 host kernel: ",
    "syslog": "Nov  1 08:00:00 host kernel: [{t:12.6f}] ",
    "dmesg -T": "[Sat Nov 21 08:00:00 2026] ",
    "dmesg iso": "2026-11-21T08:00:00,123456+00:00 ",
    "/dev/kmsg": "6,12,0,-;",
    "mail": "> > [{t:12.6f}] ",
    "nothing": "",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_any_prefix_gives_the_same_facts(prefix):
    stamped = [line.split("] ", 1) for line in DMESG.decode().splitlines()]
    text = "".join(f"{prefix.format(t=float(stamp[1:]))}{rest}\n" for stamp, rest in stamped)
    log = parse_dmesg(text.encode(), "dmesg")
    assert facts(log) == facts(parse_dmesg(DMESG, "dmesg"))
    assert log.boot.messages[-1].time == (5.835077 if "{t" in prefix else None)


def test_line_ends_and_colours_give_the_same_facts():
    coloured = DMESG.replace(b"] ", b"] \x1b[0m\x1b[33m").replace(b"\n", b"\x1b[0m\r\n")
    assert facts(parse_dmesg(coloured, "dmesg")) == facts(parse_dmesg(DMESG, "dmesg"))


def _rows(data: bytes) -> list[tuple[str, str]]:
    """Time and message of each line."""
    return [
        (stamp.strip("[ "), text) for stamp, _, text in (line.partition("] ") for line in data.decode().splitlines())
    ]


def _shipped(key: str, before: str = "") -> bytes:
    return "".join(f"{before}{json.dumps({key: line.decode() + chr(10)})}\n" for line in DMESG.splitlines()).encode()


CONTAINERS = {
    "journalctl -o json-pretty": "".join(
        f'{{\n\t"_TRANSPORT" : "kernel",\n\t"MESSAGE" : {json.dumps(text)},\n\t"PRIORITY" : "4"\n}}\n'
        for _, text in _rows(DMESG)
    ).encode(),
    "journalctl -o json-sse": "".join(f'data: {{"MESSAGE":{json.dumps(t)}}}\n\n' for _, t in _rows(DMESG)).encode(),
    "journalctl -o json-seq": "".join(f'\x1e{{"MESSAGE":{json.dumps(t)}}}\n' for _, t in _rows(DMESG)).encode(),
    "journalctl -o export": "".join(
        f"_BOOT_ID=ab\n_TRANSPORT=kernel\nMESSAGE={t}\n\n" for _, t in _rows(DMESG)
    ).encode(),
    "journalctl -o verbose": "".join(
        f"Sat 2026-11-28 07:15:08.5 UTC [s=a;i=1]\n    _BOOT_ID=ab\n    MESSAGE={t}\n" for _, t in _rows(DMESG)
    ).encode(),
    "dmesg -J with callers, rewritten": json.dumps(
        {"dmesg": [{"pri": 4, "time": float(at), "caller": "T1", "msg": text} for at, text in _rows(DMESG)]}
    ).encode(),
    "docker": _shipped("log"),
    "fluentd": _shipped("message", "2026-11-28T07:15:08+00:00\tkern.host\t"),
    "get-console-output": json.dumps({"InstanceId": "i-0", "Output": DMESG.decode().replace("\n", "\r\n")}).encode(),
    "carriage returns alone": DMESG.replace(b"\n", b"\r"),
    "cat -v": DMESG.replace(b"] ", b"] ^[[0m^[[33m").replace(b"\n", b"^[[0m^M^M\n"),
    "colours without escape": DMESG.replace(b"] ", b"] [0m[33m").replace(b"\n", b"[0m\n"),
    "title of a terminal": b"\x1b]0;root@host: ~\x07" + DMESG,
    "a page of one line": b"<html><div>" + DMESG.replace(b"\n", b"<br/>") + b"</div></html>",
    "a page of blocks": b"<pre>" + b"".join(b"<div>%b</div>" % line for line in DMESG.splitlines()) + b"</pre>",
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_any_container_gives_the_same_facts(container: bytes) -> None:
    def values(data: bytes) -> tuple[object, ...]:
        boot = parse_dmesg(data, "log").boot
        texts = [message.text for message in boot.messages]
        return texts, boot.kaslr, boot.memory.start.tolist(), sorted(boot.cpu_features), boot.command_line.raw

    assert looks_like_log(container)
    assert values(container) == values(DMESG)


def test_log_that_runs_backwards_is_refused() -> None:
    with pytest.raises(WrongFormatError, match="newest first"):
        parse_dmesg(b"\n".join(reversed(DMESG.splitlines())) + b"\n", "log")
    assert parse_dmesg(DMESG * 3, "log").boots, "times that fall where a boot begins are in order"


MESSAGES = {
    Kind.HOTPLUG: [
        "Offlined Pages 32768",
        "Block size [0x8000000] unaligned hotplug range: start 0x80000000, size 0x1000",
        "Hotplug memory [0x80000000-0x90000000] exceeds maximum addressable range [0x40000000-0x80003fffffff]",
        "removing memory fails, because memory [0x0000000080000000-0x0000000087ffffff] is onlined",
        "Misaligned __add_pages start: 0x80000 end: 0x80fff",
        "memory add fail, invalid altmap",
        "Memory hotplug will waste 100 pages in each memory block",
        "Altmap not fully unmapped",
        "Cannot online node 1 due to NULL pgdat",
        "node 3 was absent from the node_possible_map",
        "failed to isolate pfn 80000",
        "migrating pfn 80000 failed ret:1",
        "page dumped because: unmovable page",
        "memory offlining [mem 0x080000000-0x087ffffff] failed due to signal backoff",
    ],
    Kind.ARM64_MEMORY: [
        "Boot memory [40000000 50000000] offlining attempted",
        "BUG: not creating mapping for 0x0000000080000000 at 0xffff800080000000 - outside kernel range",
    ],
    Kind.VMEMMAP: [
        "section already deactivated (0x80000 + 32768)",
        "sparse_init_nid: node[0] memory map backing failed. Some memory will not be available.",
        "kworker/0:1: vmemmap alloc failure: order:9, mode:0xcc0(GFP_KERNEL), nodemask=0",
        "bash: vmemmap alloc failure: order:9, mode:0xcc0(GFP_KERNEL), nodemask=0",
        "[fffffdffc2000000-fffffdffc21fffff] potential offnode page_structs",
    ],
    Kind.VIRTIO_MEM: ["virtio_mem virtio3: plugged size: 0x40000000"],
    Kind.DAX: ["kmem dax0.0: mapping0: 0x80000000-0x8fffffff could not reserve region", "dax0.0: bad"],
    Kind.ACPI_MEMORY: ["acpi PNP0C80:00: add_memory failed"],
    Kind.HUGETLB: ["HugeTLB: 28 KiB vmemmap can be freed for a 2.00 MiB page", "HugeTLB registered 2.00 MiB page size"],
    Kind.WX_CHECK: [
        "Checked W+X mappings: FAILED, 1 W+X pages found, 0 non-UXN pages found",
        "arm64/mm: Found insecure W+X mapping at address (____ptrval____)/0xffff800000000000",
    ],
    Kind.PROTECTION: ["Kernel memory protection disabled."],
    Kind.NUMA: ["NUMA: Faking a node at [mem 0x0000000004000000-0x000000004fffffff]"],
    Kind.KASLR: ["KASLR enabled"],
    Kind.CRASH: [
        "kernel BUG at arch/arm64/mm/mmu.c:421!",
        "[ffff0003ffe00000] pgd=18000000ffff7403, p4d=18000000ffff7403, pud=18000000ffff6403, pmd=00e8000199600704",
    ],
    Kind.BAD_PAGE: ["BUG: Bad page state in process kworker/u8:1  pfn:58d40", "page_type: f2(table)"],
    Kind.CALL_TRACE: [
        " free_hotplug_page_range+0xa8/0xd0",
        " free_empty_tables.part.0+0x1f0/0x2a0",
        "pc : __pgd_pgtable_alloc+0x60/0x70",
    ],
    Kind.MEMORY_FAILURE: ["Memory failure: 0x80123: recovery action for dirty LRU page: Recovered"],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in MESSAGES.items() for text in texts])
def test_messages_about_memory_are_kept_with_kind_line_and_time(kind, text):
    log = parse_dmesg(BANNER + f"[   12.500000] usb 1-1: new device\n[   13.250000] {text}\n".encode(), "dmesg")
    message = log.boot.messages[-1]
    assert (message.kind, message.line, message.time, message.text) == (kind, 3, 13.25, text)


@pytest.mark.parametrize(
    "text",
    ["usb 1-1: NUMA: no", "my KASLR enabled", "Started virtio_mem", "x Linux version 5.4.0", "daxter: hello", "node 1"],
)
def test_other_messages_are_not(text):
    log = parse_dmesg(BANNER + f"[   13.250000] {text}\n".encode(), "dmesg")
    assert [message.kind for message in log.boot.messages] == [Kind.BANNER]


def test_poisoned_pages():
    log = parse_dmesg(
        b"[    1.000000] Memory failure: 0x80123: recovery action for free buddy page: Recovered\n"
        b"[    2.000000] Memory failure: 0x99999: memory outside kernel control\n"
        b"[    3.000000] Memory failure: 0x80123: already hardware poisoned\n",
        "dmesg",
    )
    assert log.boot.poison.pfn.tolist() == [0x80123, 0x80123]
    assert log.boot.poison.line.tolist() == [1, 3]


def test_features_of_older_kernels_and_of_newer_hardware():
    log = parse_dmesg(
        b"[    0.1] x\n[    0.100000] CPU features: detected feature: Kernel page table isolation (KPTI)\n"
        b"[    0.100000] CPU features: detected: BBM Level 2 without TLB conflict abort\n"
        b"[    0.200000] CPU features: detected: BBM Level 2 without TLB conflict abort\n",
        "dmesg",
    )
    assert log.boot.feature("kpti") == 2
    assert log.boot.feature("bbm level 2") == 3


def test_last_boot_counts_and_the_others_are_reported():
    earlier = DMESG.replace(b"6.12.117", b"6.1.55").replace(b"KASLR disabled due to lack of seed", b"KASLR enabled")
    log = parse_dmesg(b"[   99.000000] Offlined Pages 1\n" + earlier + DMESG, "dmesg")
    assert [boot.release and boot.release.raw for boot in log.boots] == [None, "6.1.55", "6.12.117"]
    assert [boot.kaslr for boot in log.boots] == [None, True, False]
    assert log.boot is log.boots[-1]
    assert log.boot.line == 1 + DMESG.count(b"\n") + 2
    assert [(d.line, "3 boots" in d.message) for d in log.diagnostics] == [(log.boot.line, True)]


def test_log_of_the_kdump_kernel_says_nothing_about_the_kernel_that_died():
    kdump = DMESG.replace(b"console=ttyAMA0", b"elfcorehdr=0x4f000000 console=ttyAMA0")
    log = parse_dmesg(DMESG + kdump, "serial.log")
    assert log.boot is log.boots[0]
    assert log.boots[1].is_capture_kernel
    alone = parse_dmesg(kdump, "serial.log")
    assert alone.boot.is_capture_kernel
    assert "kdump" in alone.diagnostics[0].message


def test_log_that_lost_its_start_leaves_boot_facts_unknown():
    log = parse_dmesg(b"[ 9999.000001] usb 1-1: new device\n", "dmesg")
    assert (log.boot.release, log.boot.command_line, log.boot.kaslr) == (None, None, None)
    assert log.boot.memory.start.size == 0
    assert "boot messages are unavailable" in log.diagnostics[0].message


def test_a_damaged_command_line_is_unknown_and_the_rest_of_the_log_is_read():
    log = parse_dmesg(BANNER + b"[    0.000000] Kernel command line: rodata=\0ff\n", "d")
    assert log.boot.command_line is None
    assert log.boot.release is not None
    assert [(one.message, one.line) for one in log.diagnostics if "command line" in one.message] == [
        ("the kernel command line is damaged, so it is not known", BANNER.count(b"\n") + 1)
    ]


def test_empty_command_line_is_known():
    assert parse_dmesg(BANNER + b"[    0.000000] Kernel command line: \n", "d").boot.command_line.parameters == ()


def test_oops_alone_is_a_kernel_log():
    for sample in sorted((HOST / "samples").glob("oops-*.txt")):
        assert parse_dmesg(sample.read_bytes(), sample.name).boot.of(Kind.CRASH)


@pytest.mark.parametrize("data", [b"", b"\n", b"hello\n", b"\x7fELF\0\1", b"0x1-0x2 4K PTE\n", bytes(range(256)) * 50])
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_dmesg(data, "dmesg")


def test_binary_noise_of_a_serial_line_is_passed_over():
    assert parse_dmesg(b"\0\xff\xfe\n" + DMESG + b"\0\0\0", "serial.log").boot.kaslr is False


def test_last_messages_are_kept_of_too_many(monkeypatch):
    monkeypatch.setattr(module, "MAX_MESSAGES", 3)
    log = parse_dmesg(BANNER + b"".join(b"[    1.000000] Offlined Pages %d\n" % n for n in range(9)), "dmesg")
    assert [message.text for message in log.boot.messages] == [f"Offlined Pages {n}" for n in (6, 7, 8)]
    assert log.boot.messages[-1].line == 10
    assert "7 earlier messages" in log.diagnostics[0].message


def test_size_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(FormatError, match="read up to 100"):
        parse_dmesg(BANNER * 3, "dmesg")


def test_long_log_costs_about_what_a_loop_over_its_lines_costs():
    line = b"[%12.6f] systemd[1]: Started Session %d of user root, as sessions go.\n"
    data = DMESG + b"".join(line % (n / 10, n) for n in range(200_000))
    loop = best_of_three(lambda: [each.partition(b"] ")[2].startswith(b"x") for each in data.splitlines()])
    assert best_of_three(lambda: parse_dmesg(data, "dmesg")) < 10 * loop


@pytest.mark.parametrize(
    "line",
    [b"A" * 5_000_000, b"<" * 5_000_000, b" " * 5_000_000, b"a.b-" * 1_000_000, b"[0 " * 1_000_000, b"^M" * 1_000_000],
)
def test_long_lines_take_linear_time(line):
    log = parse_dmesg(BANNER + line + b"\n[    1.000000] KASLR enabled " + line + b"\n", "dmesg")
    assert log.boot.kaslr is True
    assert len(log.boot.messages[-1].text) < 5000


@given(
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 2**52), st.integers(0, 2**40)), min_size=1, max_size=20),
    st.sampled_from(sorted(PREFIXES)),
)
def test_boot_memory_parse_undoes_print(rows, prefix):
    text = BANNER.decode() + "".join(
        f"{PREFIXES[prefix].format(t=0.0)}  node {node:3}: [mem {start:#018x}-{start + size:#018x}]\n"
        for node, start, size in rows
    )
    memory = parse_dmesg(text.encode(), "dmesg").boot.memory
    columns = (memory.node.tolist(), memory.start.tolist(), memory.last.tolist())
    assert list(zip(*columns, strict=True)) == [(node, start, start + size) for node, start, size in rows]


@given(st.binary(max_size=120) | st.binary(max_size=80).map(lambda tail: b"[    0.000000] Linux version 6" + tail))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError, WrongFormatError):
        assert parse_dmesg(data, "dmesg").boots


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("hosta", "hostb"), "lines of 2 hosts (hosta, hostb)"),
        (("hosta", "HostA.example.org"), ""),
        (("localhost", "hosta"), ""),
        (("hosta", "hostb", "hostc", "hostd", "hoste"), "lines of 5 hosts (hosta, hostb, hostc, hostd and 1 more)"),
    ],
)
@pytest.mark.parametrize("stamp", ["Nov 27 10:11:12", "2026-11-27T10:11:12.548711+00:00", "<4>Nov  7 10:11:12"])
def test_lines_of_several_hosts_are_said(names: tuple[str, ...], said: str, stamp: str) -> None:
    lines = [f"{stamp} {name} kernel: [    1.000000] Offlined Pages 32768\n" for name in names]
    found = [one for one in parse_dmesg("".join(lines).encode(), "messages").diagnostics if "hosts" in one.message]
    assert [one.message.partition(":")[0] for one in found] == [said] * bool(said)
    assert [one.line for one in found] == [2] * bool(said)


def test_a_report_of_another_host_in_the_middle_of_a_long_log_is_seen() -> None:
    line = b"Nov 27 10:11:12 hosta kernel: [    1.000000] eth0: link up\n"
    report = b"Nov 27 10:11:12 hostb kernel: [    9.000000] Internal error: Oops: 96000006 [#1] SMP\n"
    log = line * 3000 + report + line * 3000
    with pytest.raises(WrongFormatError, match="hosts \\(hosta, hostb\\) take turns") as refused:
        parse_dmesg(log, "messages")
    assert refused.value.line == 3001


BOOTS = b"[    0.000000] Linux version 6.12.117 (a@b) #1 SMP\n"


@pytest.mark.parametrize(
    "prefix",
    [
        b"Nov 27 10:11:12 %b kernel: ",
        b"<4>1 2026-11-27T10:11:12.548711+00:00 %b kernel - - - ",
        b"2026-11-27T10:11:12.548711+00:00 %b kernel[7]: ",
        b"%b: ",
    ],
)
def test_hosts_whose_lines_take_turns_are_not_audited_as_one(prefix: bytes) -> None:
    line = b"[   12.000000] Offlined Pages 32768\n"
    one, two = prefix % b"node07", prefix % b"node08.example.org"
    with pytest.raises(WrongFormatError, match="2 hosts \\(node07, node08\\) take turns"):
        parse_dmesg((one + line + two + line) * 20, "messages")
    renamed = one + BOOTS + (one + line) * 20 + (two + line) * 20
    assert any("2 hosts" in each.message for each in parse_dmesg(renamed, "messages").diagnostics)
    assert len(parse_dmesg(renamed * 2, "messages").boots) == 2, "renamed in each boot: one machine"


@pytest.mark.parametrize("names", [(b"stdout: ", b"stderr: "), (b"info: ", b"warn: ")])
def test_streams_and_levels_are_not_hosts(names: tuple[bytes, bytes]) -> None:
    line = b"[   12.000000] Offlined Pages 32768\n"
    log = parse_dmesg((names[0] + line + names[1] + line) * 20, "log")
    assert not any("hosts" in each.message for each in log.diagnostics)


def test_a_few_lines_of_programs_are_not_hosts() -> None:
    line = b"[   12.000000] Offlined Pages 32768\n"
    stray = b"modprobe: " + line + b"insmod: " + line + b"modprobe: " + line
    assert parse_dmesg(line * 50 + stray + line * 50, "log").boots


def test_many_names_are_read_in_the_time_of_the_log() -> None:
    line = b"[   12.000000] Offlined Pages 32768\n"
    names = b"".join(b"h%d: %b" % (number, line) * 8 for number in range(3000))
    assert any("hosts" in each.message for each in parse_dmesg(names, "log").diagnostics)


def test_lines_of_several_boots_with_ever_shorter_uptimes_are_in_order() -> None:
    lines = [b"Nov %2d 10:11:12 h kernel: [%5d.000000] Offlined Pages 32768\n" % (n + 1, 9000 - n) for n in range(12)]
    assert parse_dmesg(b"".join(lines), "messages").boots


def test_consoles_are_not_hosts() -> None:
    line = b"[   12.000000] Offlined Pages 32768\n"
    log = (b"kernel: " + line + b"ttyS0: " + line + b"console: " + line) * 3
    assert not any("hosts" in each.message for each in parse_dmesg(log, "log").diagnostics)


@pytest.mark.parametrize(
    ("lines", "machine"),
    [
        (b" ksdioirqd: [<bf054120>] mxs_mmc_enable_sdio_irq+0x18/0xdc [mxs_mmc]", "a 32-bit machine"),
        (b"[<c0011a24>] (unwind_backtrace) from [<c000e0a4>] (show_stack+0x10/0x14)", "32-bit Arm"),
        (b" [<ffffffff81099a6c>] __might_sleep+0x13c/0x200", "x86-64 or RISC-V"),
        (b"Call Trace:\n  dump_stack_lvl+0x5d/0x80", "another architecture"),
    ],
)
def test_stack_of_another_architecture_is_refused(lines: bytes, machine: str) -> None:
    text = b"[    1.000000] BUG: sleeping function called from invalid context at mm/memory.c:3927\n" + lines + b"\n"
    with pytest.raises(ArchitectureError, match=f"the log of a kernel for {machine}, not for arm64"):
        parse_dmesg(text, "log")
    arm64 = b"[    2.000000] pc : memunmap_pages+0x1a8/0x2a8\n"
    assert parse_dmesg(text + arm64, "log").reports.reports, "the other kernel is a guest's, or quoted"
