"""ATT-01: writable and executable at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.cmdline import CommandLine
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.attributes.rows import hit_of_rows
from rules.finding import Claim, Impact, Severity
from rules.rule import NotApplicableError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.mapping import Bool
    from rules.finding import Hit

_MAX_ROWS = 1024
_SHARE = 16
"""Protected text is less than a sixteenth of the executable memory of a kernel that protects none."""


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
    Any write there can become code that the kernel runs. The kernel's own check (CONFIG_DEBUG_WX) reports
    the same.

    How it is detected:
    Rows that translate, are writable and lack PXN.

    When it is not a problem:
    In a dump taken before the kernel protected its text, or with rodata=off, the image itself is
    writable; if the command line is not known and no text is protected, this is taken to be so, and the finding is
    a suspicion. Old kernels have it for a moment while they load a module or a BPF program.

    What to do:
    Find the owner of the address (/proc/vmallocinfo, /proc/modules). Boot without rodata=off.
    """
    if command_line is not None and command_line.value("rodata") in {"off", "0", "n", "no", "false"}:
        raise NotApplicableError("rodata=off: the kernel was configured not to protect its text")
    executable = mapping.valid & ~mapping.has(Attr.PXN)
    rows = executable & ~mapping.has(Attr.RDONLY)
    if command_line is None and _is_never_protected(mapping, layout, rows, executable & ~rows):
        yield from hit_of_rows(
            mapping, layout, rows, "writable and executable, as with rodata=off", Claim.SUSPECTED, Severity.MEDIUM
        )
    else:
        yield from hit_of_rows(mapping, layout, rows, "writable and executable", Claim.PROVEN)


def _is_never_protected(mapping: Mapping, layout: KernelLayout, writable: Bool, protected: Bool) -> bool:
    """Whether nearly all text is writable, as with rodata=off, and nothing of the linear map, which never has text.

    The pages of the identity map and of the trampolines stay read-only (arch/arm64/mm/mmu.c map_entry_trampoline()).
    """
    regions = {layout.region_of(int(start)) for start in mapping.start[writable][:_MAX_ROWS].tolist()}
    left, kept = (int(mapping.size[rows].sum(dtype=np.uint64)) for rows in (writable, protected))
    return regions == {"other"} and kept * _SHARE < left
