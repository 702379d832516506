"""What is missing for the undecided rules, as commands that collect it into the files that an audit understands."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from parsers.cmdline import CommandLine
from parsers.dmesg import Dmesg
from parsers.hugepages import HugePages
from parsers.iomem import Iomem
from parsers.kconfig import Kconfig
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.meminfo import Meminfo
from parsers.memmap_on_memory import MemmapOnMemory
from parsers.memory_blocks import MemoryBlocks
from parsers.uname import KernelRelease
from parsers.zoneinfo import Zoneinfo
from rules.engine import Outcome
from rules.facts import how_to_collect
from rules.model.memory.snapshots import Earlier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report

__all__ = ["COMMANDS", "send_back"]

WIDTH = 100
DIRECTORY = "ptaudit-more"
ALL_AT_ONCE = "Or everything at once: ptaudit collect --print-script > collect.sh; on the host: sh collect.sh"

_MEMORY = "/sys/devices/system/memory"
_BOOT_LOG = "journalctl -k -b -o short-monotonic 2>/dev/null || dmesg"

COMMANDS: dict[type, tuple[str, str]] = {
    MemoryBlocks: (
        "memory_blocks",
        rf"find {_MEMORY} \( -name block_size_bytes -o -name state -o -name valid_zones \) -exec grep -H . {{}} +",
    ),
    Iomem: ("iomem", "cat /proc/iomem"),
    Mapping: ("kernel_page_tables", "cat /sys/kernel/debug/kernel_page_tables"),
    KernelRelease: ("uname", "uname -a"),
    Kconfig: ("config", 'zcat /proc/config.gz 2>/dev/null || cat "/boot/config-$(uname -r)"'),
    CommandLine: ("cmdline", "cat /proc/cmdline"),
    Dmesg: ("dmesg", _BOOT_LOG),
    Zoneinfo: ("zoneinfo", "cat /proc/zoneinfo"),
    Meminfo: ("meminfo", "cat /proc/meminfo"),
    HugePages: ("hugepages", "grep -H . /sys/kernel/mm/hugepages/*/* /proc/sys/vm/hugetlb_optimize_vmemmap"),
    MemmapOnMemory: ("memmap_on_memory", "cat /sys/module/memory_hotplug/parameters/memmap_on_memory"),
}
"""The file name in a capture and the command that fills it, in the order in which they are best collected."""

_NOTES: dict[str, str] = {
    step: note
    for kind, note in (
        (Earlier, "a second capture, after the next time that memory is plugged or unplugged, in its own directory"),
        (KernelLayout, "the VMCOREINFO note of the kernel: sh collect.sh reads it, and a crash dump has it"),
        ("vmcore", "a crash dump: /proc/vmcore, or dump-guest-memory from the hypervisor"),
    )
    for step in how_to_collect(kind)
}
"""Steps that are no single command."""


def send_back(report: Report) -> list[str]:
    """The lines of a block for the shell, with the rules that each line is for; empty if nothing is undecided."""
    wanted: dict[str, list[str]] = {}
    for verdict in report.verdicts:
        if verdict.outcome is Outcome.UNDECIDED:
            for step in verdict.collect:
                wanted.setdefault(step, []).append(verdict.rule.code)
    if not wanted:
        return []
    files = [(name, command, rules) for name, command, rules in _files(wanted) if rules]
    others = [step for step in wanted if not any(step in how_to_collect(kind) for kind in COMMANDS)]
    lines = ["Send this back:"]
    if files:
        lines += [f"  mkdir -p {DIRECTORY} && cd {DIRECTORY}    # as root, on the host", *_block(files)]
        lines += [f"  tar -czf ../{DIRECTORY}.tar.gz ."]
    for step in others:
        note = f"# {'also ' if files else ''}{_NOTES.get(step, step)} ({_few(wanted[step])})"
        lines += textwrap.wrap(note, WIDTH, initial_indent="  ", subsequent_indent="  #   ")
    return [*lines, *([ALL_AT_ONCE] if files else [])]


def _files(wanted: dict[str, list[str]]) -> Iterator[tuple[str, str, list[str]]]:
    """Each file with its command and the rules that lack it."""
    for kind, (name, command) in COMMANDS.items():
        rules = [code for step in how_to_collect(kind) for code in wanted.get(step, [])]
        yield name, command, rules


def _block(files: list[tuple[str, str, list[str]]]) -> Iterator[str]:
    for name, command, rules in files:
        grouped = f"{{ {command}; }}" if "||" in command else command
        yield from _wrapped(f"{grouped} > {name}", f"for {_few(rules)}")


def _wrapped(command: str, comment: str) -> list[str]:
    """The command, never broken, with its comment beside it or above."""
    line = f"  {command}"
    if len(line) + len(comment) + 4 <= WIDTH:
        return [f"{line}    # {comment}"]
    return [*textwrap.wrap(f"# {comment}", WIDTH, initial_indent="  ", subsequent_indent="  # "), line]


def _few(rules: list[str]) -> str:
    codes = list(dict.fromkeys(rules))
    return ", ".join(codes[:6]) + (f" and {len(codes) - 6} more" if len(codes) > 6 else "")
