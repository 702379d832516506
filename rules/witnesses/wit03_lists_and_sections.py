"""WIT-03: /proc/iomem and sysfs list other memory than the kernel's section table holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import ListedSections
from rules.rule import NotApplicableError, UndecidedError, rule
from rules.trace.anomalies import places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ranges import Ranges


@rule(
    code="WIT-03",
    name="lists-against-sections",
    severity=Severity.MEDIUM,
    impact=Impact.INFORMATIONAL,
    references=("include/linux/mmzone.h struct mem_section; kernel/resource.c; drivers/base/memory.c",),
)
def lists_against_sections(sections: SectionTable, *, listed_sections: ListedSections | None) -> Iterator[Hit]:
    """The memory that /proc/iomem and sysfs list is not the memory that mem_section holds.

    What it means:
    Resources, memory blocks and sections are kept by different parts of the kernel and change together. Where they
    differ an operation stopped half-way, or they were captured at different moments.

    How it is detected:
    Valid and online page frames as they follow from /proc/iomem and the memory blocks are compared with the flags and
    subsection maps in the crash dump.

    When it is not a problem:
    Lists that were read before hotplug went on: the trace or the log shows it.

    What to do:
    Take the crash dump as the truth; SEC rules and VMM-14 say what an operation left behind.
    """
    if listed_sections is None:
        raise NotApplicableError("there is no /proc/iomem beside a crash dump")
    table = listed_sections.table
    unknown = sections.possible - sections.valid
    yield from _differing("valid", "the lists", table.source, table.valid - sections.possible)
    yield from _differing("valid", "the section table", sections.source, sections.valid - table.possible)
    if not table.blocks_known:
        raise UndecidedError("which memory is online was not read from sysfs", "memory blocks")
    yield from _differing("online", "the lists", table.source, table.online - sections.online - unknown)
    yield from _differing("online", "the section table", sections.source, sections.online - table.online)


def _differing(what: str, who: str, source: str, pfns: Ranges) -> Iterator[Hit]:
    if pfns:
        yield Hit(
            title=f"Memory is {what} in {who} only",
            message=f"{pfns.total} pages ({places(pfns)}) are {what} in {who} and not in the other.",
            claim=Claim.PROBABLE,
            pfns=pfns,
            evidence=(Evidence(source, f"{what}: {places(pfns)}"),),
            key=f"{what} {who}",
        )
