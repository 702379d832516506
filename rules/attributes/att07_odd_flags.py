"""ATT-07: user access, missing access flag or shareability in kernel mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr, MemType
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from rules.attributes.rows import hit_of_rows
from rules.finding import Claim, Impact, Severity
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.finding import Hit


@rule(
    code="ATT-07",
    name="odd-flags",
    severity=Severity.CRITICAL,
    impact=Impact.SECURITY,
    references=("arch/arm64/include/asm/pgtable-prot.h PROT_DEFAULT, PAGE_KERNEL",),
)
def odd_flags(mapping: Mapping, layout: KernelLayout) -> Iterator[Hit]:
    """Kernel mappings with the user bit, or without the access flag or shareability.

    What it means:
    Kernel entries are made with AF and inner shareable set and never with the user bit. User access
    exposes kernel memory; a missing AF faults on first access; missing shareability breaks coherency
    between CPUs.

    How it is detected:
    The flags of every row that translates.

    When it is not a problem:
    With LPA2 no row has shareability bits: they are address bits there. nG marks kernel pages on
    machines with page-table isolation, and is not looked at. Rows marked F do not translate.

    What to do:
    Take a crash dump, find out who wrote the entries.
    """
    valid = mapping.valid
    yield from hit_of_rows(mapping, layout, valid & mapping.has(Attr.USER), "accessible from user space", Claim.PROVEN)
    clear = valid & ~mapping.has(Attr.AF)
    yield from hit_of_rows(mapping, layout, clear, "mapped without the access flag", Claim.PROVEN, Severity.MEDIUM)
    cached = valid & np.isin(mapping.memtype, (MemType.NORMAL, MemType.NORMAL_TAGGED))
    if (cached & mapping.has(Attr.SHARED)).any():  # none at all: LPA2
        lone = cached & ~mapping.has(Attr.SHARED)
        yield from hit_of_rows(mapping, layout, lone, "not shareable", Claim.PROVEN, Severity.HIGH)
