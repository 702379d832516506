"""ENV-03: online memory without KASAN shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.kconfig import Kconfig
from parsers.mapping import Mapping
from parsers.ranges import Ranges
from rules.finding import Claim, Hit, Impact, Severity, VaRange
from rules.model.memory.regions import LinearMap, cut
from rules.model.memory.sections import SectionTable
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCALES = {"CONFIG_KASAN_GENERIC": 3, "CONFIG_KASAN_SW_TAGS": 4}


@rule(
    code="ENV-03",
    name="kasan-shadow",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=("mm/kasan/shadow.c kasan_mem_notifier(): shadow is allocated on MEM_GOING_ONLINE (v4.19 to 6.12)",),
)
def kasan_shadow(mapping: Mapping, linear: LinearMap, sections: SectionTable, config: Kconfig) -> Iterator[Hit]:
    """Online memory whose KASAN shadow is not mapped.

    What it means:
    Instrumented code reads the shadow before each access. Without it the first access to this memory oopses.

    How it is detected:
    The shadow address of every online page is computed from CONFIG_KASAN_SHADOW_OFFSET and looked up.

    When it is not a problem:
    Hardware tags have no shadow. Device memory and self-hosted struct pages use the shared zero shadow,
    which is mapped.

    What to do:
    Offline the memory if that still works; otherwise take a crash dump and reboot.
    """
    scale = next((bits for name, bits in _SCALES.items() if config.is_enabled(name)), None)
    if scale is None and any(marker.name.startswith("Kasan") for marker in mapping.markers):
        raise UndecidedError("the configuration does not name KASAN, whose shadow the dump has: it may be cut", Kconfig)
    if scale is None:
        raise NotApplicableError("the kernel is built without KASAN shadow")
    offset = config.integer("CONFIG_KASAN_SHADOW_OFFSET")
    if offset is None:
        raise UndecidedError("CONFIG_KASAN_SHADOW_OFFSET is not known", Kconfig)
    layout = linear.layout
    base = ((layout.page_offset >> scale) + offset) & (2**64 - 1)
    size = (layout.linear_end - layout.page_offset) >> scale
    rows, start, end, observed = cut(mapping, base, (layout.linear_start - layout.page_offset) >> scale, size)
    if not observed:
        raise UndecidedError("the dump does not reach the KASAN shadow", Mapping)
    shadow = Ranges.of(start[mapping.valid[rows]], end[mapping.valid[rows]])
    bytes_per_page = layout.page_size >> scale
    live = (sections.online & sections.ram).shift(-layout.start_pfn)
    missing = live & (observed - shadow).divide(bytes_per_page, outward=True)
    if not missing:
        sections.need_whole_lists()
        if not sections.blocks_known and sections.ram:
            raise UndecidedError("which memory is online is not known", "memory blocks")
    if missing:
        where = missing.scale(bytes_per_page)
        yield Hit(
            title="Online memory has no KASAN shadow",
            message=f"{missing.total} online pages have no shadow mapped.",
            claim=Claim.PROBABLE,
            pfns=missing.shift(layout.start_pfn),
            vas=tuple(VaRange(base + lo, base + hi, "kasan shadow") for lo, hi in where.tuples()[:16]),
            evidence=linear.quote_at(linear.offsets(missing)),
        )
