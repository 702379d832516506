"""Whether all that the vmemmap area describes is known: a rule about devices cannot pass on what it cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.rule import UndecidedError

if TYPE_CHECKING:
    from rules.model.memory.regions import Vmemmap
    from rules.model.memory.sections import SectionTable

__all__ = ["need_devices"]


def need_devices(vmemmap: Vmemmap, sections: SectionTable) -> None:
    """UndecidedError where struct pages outside of RAM are mapped and nothing tells whose they are."""
    if sections.devices_known:
        return
    unexplained = vmemmap.pfns(vmemmap.pages_touched(vmemmap.mapped)) - sections.ram_sections
    if unexplained:
        raise UndecidedError(f"nothing tells what the struct pages of {unexplained.total} pages belong to", "iomem")
