"""Whether this kernel has HugeTLB vmemmap optimisation, and whether it is switched on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.arm64 import PMD
from parsers.records import dataclass
from rules.finding import Evidence

if TYPE_CHECKING:
    from parsers.arm64 import Granule
    from parsers.cmdline import CommandLine
    from parsers.kconfig import Kconfig
    from parsers.layout import KernelLayout
    from parsers.mapping import I64

__all__ = ["HvoEvidence", "huge_page_sizes", "into_memmap", "memmap_bytes"]

# CONFIG_HUGETLB_PAGE_FREE_VMEMMAP until 5.18, then CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP (mm/Kconfig, fs/Kconfig).
_OPTIONS = ("CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP", "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP")
_PARAMETER = "hugetlb_free_vmemmap"


@dataclass(frozen=True)
class HvoEvidence:
    """``built_in`` and ``enabled`` are None where they are unknown."""

    built_in: bool | None
    enabled: bool | None
    evidence: tuple[Evidence, ...]

    @classmethod
    def of(cls, config: Kconfig | None, command_line: CommandLine | None) -> HvoEvidence:
        """What configuration and command line say."""
        built_in: bool | None = None
        enabled: bool | None = None
        evidence: list[Evidence] = []
        if config is not None:
            option = next((name for name in _OPTIONS if config.is_enabled(name)), None)
            asked = command_line is not None and _PARAMETER in command_line
            denied = any(config.get(name) == "n" for name in _OPTIONS)
            # Without its head, or without what the command line asks for, it may be part of one.
            whole = config.complete and config.arch != "" and not asked
            built_in = True if option is not None else False if denied or whole else None
            if option is not None:
                evidence.append(Evidence(config.path, f"{option}=y", config.line(option)))
                # What is off by default the command line may switch on.
                enabled = config.is_enabled(f"{option}_DEFAULT_ON") or (
                    None if command_line is None or not command_line.complete else False
                )
        if command_line is not None and (value := command_line.value(_PARAMETER)) is not None:
            enabled = value.lower() in {"on", "1", "y", "true"}
            evidence.append(Evidence(command_line.path, f"{_PARAMETER}={value}", command_line.line))
        return cls(built_in, enabled, tuple(evidence))


def huge_page_sizes(granule: Granule) -> tuple[int, ...]:
    """HugeTLB sizes of a granule whose struct pages fill more than a page, in bytes: not those of contiguous pages."""
    return granule.cont_span(PMD), *(granule.span(level) for level in granule.block_levels())


def memmap_bytes(layout: KernelLayout, size: int) -> int:
    """Bytes of the struct pages of ``size`` bytes of memory."""
    return size // layout.page_size * layout.struct_page_size


def into_memmap(layout: KernelLayout, offsets: I64, size: int) -> I64:
    """How many bytes after the first struct page of a huge page of ``size`` bytes offsets in the vmemmap area lie.

    Huge pages are aligned physically; PHYS_OFFSET need not be a multiple of the largest (16 GiB with 64K pages).
    LayoutError if it is not known.
    """
    return (offsets + layout.start_pfn * layout.struct_page_size) % memmap_bytes(layout, size)
