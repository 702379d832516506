"""WIT-01: the trace and the captured state contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.ranges import Ranges
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.state import NO, YES
from rules.model.replay.timeline import Timeline
from rules.rule import UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.memory.regions import RegionMap


@rule(
    code="WIT-01",
    name="trace-against-tables",
    severity=Severity.MEDIUM,
    impact=Impact.INFORMATIONAL,
    references=("Replay through arch/arm64/mm/mmu.c vmemmap_populate(), vmemmap_free(), arch_add_memory()",),
)
def trace_against_tables(
    timeline: Timeline,
    *,
    section_table: SectionTable | None,
    vmemmap: Vmemmap | None,
    linear_map: LinearMap | None,
) -> Iterator[Hit]:
    """The state that the traced operations led to is not the state that was captured.

    What it means:
    Page tables, section table and trace are three independent witnesses. Where they disagree, one of them is of
    another moment or machine, events are missing, or the kernel did something that was not traced.

    How it is detected:
    The replayed state of every traced subsection (valid, struct pages mapped, linear map) is compared with the
    section table and the page tables.

    When it is not a problem:
    A trace that was saved earlier or later than the page tables. Lost events make the comparison undecided.

    What to do:
    Save trace and page tables at the same moment. If they were, report the operation named last for that range.
    """
    if timeline.undecided:
        raise UndecidedError("the trace lost events: " + timeline.undecided[0].message, Timeline)
    if section_table is None and vmemmap is None:
        raise UndecidedError("there is nothing to compare the trace with", Vmemmap, SectionTable)
    state = timeline.state
    valid, removed = timeline.where(state.valid == YES), timeline.where(state.valid == NO)
    if section_table is not None:
        yield from _differing(
            "valid memory", "section table", valid - section_table.possible, removed & section_table.valid
        )
    for region, column in ((vmemmap, state.mapped), (linear_map, state.linear)):
        if region is None:
            continue
        # Struct pages of removed memory share their leaf with others: only those of valid memory are compared.
        seen = valid & region.pfns(region.pages_observed)
        mapped = region.pfns(region.pages_mapped)
        lost = timeline.unmapped if region is vmemmap else timeline.where(column == NO)
        there, gone = timeline.where(column == YES) & seen, lost & seen
        what = "struct pages" if region is vmemmap else "linear map"
        yield from _differing(what, "page tables", there - mapped, gone & mapped, region)


def _differing(what: str, other: str, lacking: Ranges, extra: Ranges, region: RegionMap | None = None) -> Iterator[Hit]:
    """A hit for what the trace has and the other has not, and one for the reverse."""
    for pfns, who in ((lacking, f"mapped or present according to the trace, not according to the {other}"),
                      (extra, f"gone according to the trace, present according to the {other}")):  # fmt: skip
        if pfns:
            evidence: tuple[Evidence, ...] = ()
            if region is not None:
                evidence = region.quote_at(region.offsets(pfns.shift(-region.layout.start_pfn)))
            yield Hit(
                title=f"Trace and {other} disagree about the {what}",
                message=f"{pfns.total} pages: {who}.",
                claim=Claim.PROBABLE,
                pfns=pfns,
                evidence=evidence,
                key=f"{what} {who}",
            )
