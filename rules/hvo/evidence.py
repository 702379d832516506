"""Whether this kernel has HugeTLB vmemmap optimisation, and whether it is switched on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rules.finding import Evidence

if TYPE_CHECKING:
    from parsers.arm64 import Granule
    from parsers.cmdline import CommandLine
from parsers.kconfig import Kconfig

__all__ = ["HvoEvidence", "huge_page_sizes"]

# CONFIG_HUGETLB_PAGE_FREE_VMEMMAP until 5.18, then CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP (mm/Kconfig, fs/Kconfig).
_OPTIONS = ("CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP", "CONFIG_HUGETLB_PAGE_FREE_VMEMMAP")
_PARAMETERS = ("hugetlb_free_vmemmap",)


@dataclass(frozen=True)
class HvoEvidence:
    """``built_in`` and ``enabled`` are None where nothing tells."""

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
            built_in = option is not None
            if option is not None:
                evidence.append(Evidence(config.path, f"{option}=y", config.line(option)))
                enabled = bool(config.is_enabled(f"{option}_DEFAULT_ON"))
        value = command_line.value(_PARAMETERS[0]) if command_line is not None else None
        if value is not None and command_line is not None:
            enabled = value.lower() in {"on", "1", "y", "true"}
            evidence.append(Evidence(command_line.path, f"{_PARAMETERS[0]}={value}", command_line.line))
        elif command_line is not None and enabled is None and built_in is not None:
            enabled = False
        return cls(built_in, enabled, tuple(evidence))


def huge_page_sizes(granule: Granule) -> tuple[int, ...]:
    """HugeTLB sizes of a granule whose struct pages fill more than a page, in bytes."""
    sizes = (
        granule.cont_span(3),
        granule.span(2),
        granule.cont_span(2),
        *((granule.span(1),) if granule.page_shift == 12 else ()),
    )
    return tuple(size for size in sizes if size // granule.page_size * 64 > granule.page_size)
