"""What a crash dump adds to the evidence: exact tables, and the texts that other captures have as files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.dmesg import Dmesg
from parsers.iomem import Iomem
from parsers.layout import Precision
from parsers.memory_blocks import BlockState, MemoryBlocks
from parsers.vmcore.moment import Flux
from parsers.vmcore.rows import RECORDS, BlockRows
from rules.facts import what_it_is
from rules.model.memory.resources import Resources
from rules.model.memory.walk import PageWalk
from rules.model.oops import Oopses

if TYPE_CHECKING:
    from parsers.vmcore.extract import VmcoreFacts
    from rules.model.captured import Captured
    from rules.model.layout.builder import LayoutBuilder

__all__ = ["exact_facts", "layout_of_dump", "unreadable_facts", "with_vmcore"]

_MADE_OF = ((Iomem, Resources), (Dmesg, Oopses), (BlockRows, MemoryBlocks))
"""Facts that are made of one other."""

_STATES = {
    "online": BlockState.ONLINE,
    "offline": BlockState.OFFLINE,
    "going-offline": BlockState.GOING_OFFLINE,
}


def with_vmcore(captured: Captured, vmcore: VmcoreFacts) -> Captured:
    """The evidence, with everything that was not captured otherwise taken from the dump."""
    texts = vmcore.texts
    found: dict[str, Any] = {
        "iomem": vmcore.iomem,
        "blocks": None if vmcore.blocks is None else _memory_blocks(vmcore, vmcore.blocks),
        "release": texts.kernel_release,
        "config": texts.kconfig,
        "command_line": texts.command_line,
        "dmesg": texts.log,
    }
    if texts.log is not None and captured.dmesg is not None:
        found["logs"] = (captured.dmesg, *captured.logs)  # what lies beside the dump counts as well
    # What the dump says of itself is of the same moment as its page tables, so it comes first.
    return replace(captured, **{name: value for name, value in found.items() if value is not None})


def unreadable_facts(vmcore: VmcoreFacts) -> dict[type, str]:
    """Why a fact that the dump should give is missing, by type: it is damaged, or its memory is not in the dump."""
    whence = "/proc/kcore" if vmcore.kind == "kcore" else "the crash dump"
    why = {kind: f"{what_it_is(kind)} cannot be read from {whence}: {text}" for kind, text in vmcore.unreadable.items()}
    return why | {made: why[kind] for kind, made in _MADE_OF if kind in why}


def _memory_blocks(vmcore: VmcoreFacts, rows: BlockRows) -> MemoryBlocks | None:
    """Memory blocks in the shape that sysfs gives them."""
    if vmcore.sections is None:
        return None
    state = [_STATES.get(word, BlockState.UNKNOWN) for word in rows.state]
    number = (rows.start_section_nr // np.uint64(rows.sections_per_block)).astype(np.int64)
    return MemoryBlocks(
        path=vmcore.path,
        block=number,
        state=np.array(state, dtype=np.uint8),
        state_word=rows.state,
        valid_zones=rows.zone,
        removable=np.full(number.size, -1, dtype=np.int8),
        phys_index=number,
        phys_device=np.full(number.size, -1, dtype=np.int64),
        node=rows.nid,
        line=None,
        block_size_bytes=rows.sections_per_block << vmcore.sections.section_size_bits,
        auto_online_blocks=None,
    )


def exact_facts(vmcore: VmcoreFacts) -> dict[type, Any]:
    """Facts that only a crash dump has, by type."""
    walk, mapping = vmcore.walk, vmcore.mapping
    facts: dict[type, Any] = {}
    if vmcore.flux is not None and (vmcore.flux.start.size or vmcore.flux.matters):
        facts[Flux] = vmcore.flux
    if mapping.tables is not None:
        facts[PageWalk] = PageWalk(
            vmcore.path,
            mapping.tables,
            walk.table_descriptor,
            walk.repeated,
            walk.faults,
            walk.diagnostics,
            lambda va: list(vmcore.explain(va)),
        )
    for record in RECORDS:
        rows = getattr(vmcore, record.attribute)
        if rows is not None:
            facts[record.fact] = rows
    return facts


def layout_of_dump(builder: LayoutBuilder, vmcore: VmcoreFacts) -> None:
    """The layout that the dump's VMCOREINFO gives, and what follows from it."""
    builder.vmcoreinfo(vmcore.vmcoreinfo)
    addresses, source = vmcore.addresses, "VMCOREINFO"
    builder.add("va_bits_actual", addresses.va_actual, source, Precision.EXACT)
    builder.add("page_offset", addresses.page_offset, source, Precision.EXACT)
    builder.add("linear_end", addresses.linear_end, source, Precision.EXACT)
    if vmcore.sections is not None:
        builder.add("section_size_bits", vmcore.sections.section_size_bits, "the section table", Precision.EXACT)
    if vmcore.blocks is not None and vmcore.sections is not None:
        size = vmcore.blocks.sections_per_block << vmcore.sections.section_size_bits
        builder.add("block_size", size, "memory blocks of the dump", Precision.EXACT)
