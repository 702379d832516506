"""ATT-02: kernel memory that user space may execute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import Attr
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.attributes.rows import hit_of_rows
from rules.finding import Claim, Impact, Severity
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.finding import Hit


@rule(
    code="ATT-02",
    name="kernel-memory-not-uxn",
    severity=Severity.HIGH,
    impact=Impact.SECURITY,
    references=("arch/arm64/mm/ptdump.c note_prot_uxn()",),
)
def user_executable(mapping: Mapping, layout: KernelLayout) -> Iterator[Hit]:
    """Kernel memory lacks UXN.

    What it means:
    Every kernel mapping forbids execution at EL0. One that does not weakens the separation of user
    space and kernel, and indicates that something other than the kernel wrote the entry.

    How it is detected:
    Rows that translate and lack UXN.

    When it is not a problem:
    Never on a kernel that booted normally; the kernel's own W+X check counts the same pages.

    What to do:
    Find the owner of the address (/proc/vmallocinfo, /proc/modules).
    """
    rows = mapping.valid & ~mapping.has(Attr.UXN)
    yield from hit_of_rows(mapping, layout, rows, "executable by user space (no UXN)", Claim.PROVEN)
