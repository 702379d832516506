"""ATT-01: writable and executable at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from parsers.cmdline import CommandLine
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.attributes.rows import hit_of_rows
from rules.finding import Claim, Impact, Severity
from rules.rule import NotApplicableError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.finding import Hit


@rule(
    code="ATT-01",
    name="writable-executable",
    severity=Severity.HIGH,
    impact=Impact.SECURITY,
    references=("arch/arm64/mm/ptdump.c note_prot_wx(): the kernel's own W+X check",),
)
def writable_executable(mapping: Mapping, layout: KernelLayout, *, command_line: CommandLine | None) -> Iterator[Hit]:
    """Kernel memory is writable and executable.

    What it means:
    Whoever can write there can run code in the kernel. The kernel's own check (CONFIG_DEBUG_WX) reports
    the same.

    How it is detected:
    Rows that translate, are writable and lack PXN.

    When it is not a problem:
    In a dump taken before the kernel protected its text, or with rodata=off, the image itself is
    writable. Old kernels have it for a moment while they load a module or a BPF program.

    What to do:
    Find the owner of the address (/proc/vmallocinfo, /proc/modules). Boot without rodata=off.
    """
    if command_line is not None and command_line.value("rodata") in {"off", "0", "n", "no", "false"}:
        raise NotApplicableError("rodata=off: the kernel was configured not to protect its text")
    rows = mapping.valid & ~mapping.has(Attr.RDONLY) & ~mapping.has(Attr.PXN)
    yield from hit_of_rows(mapping, layout, rows, "writable and executable", Claim.PROVEN)
