"""Which known bugs the kernel of a report has: by its code, the state it left, a trace of what it does, or its release.

Code says most, a release least: vendors backport and revert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parsers.arm64 import PTE
from parsers.expressions import expression
from parsers.image.code import KernelCode
from parsers.layout import KernelLayout
from parsers.records import dataclass
from parsers.uname import KernelRelease
from rules.finding import Claim
from rules.model.bugs import KNOWN_BUGS, describe_fixes
from rules.model.code import shown_by_code
from rules.model.memory.regions import Vmemmap
from rules.model.memory.sections import SectionTable
from rules.model.replay.timeline import Timeline

if TYPE_CHECKING:
    from analyzer.audit import Report
    from rules.finding import Finding
    from rules.model.bugs import KnownBug

__all__ = ["BugState", "bug_name", "bugs_of"]

_HEX = expression(r"[0-9a-f]{8,40}")
_SHOWN_BY_STATE: dict[str, tuple[str, ...]] = {
    "partial-section-pmd": ("VMM-01",),
    "vmemmap-check-pmd": ("VMM-08",),
    "nomap-mapped": ("LIN-07",),
    "hvo-live-remap": ("HVO-01",),
    "dax-dedup": ("HVO-03",),
    "max-pfn": ("SEC-12",),
    "mte-hotplug": ("ATT-05",),
    "shared-basepage": ("VMM-06",),
    "pgtable-dtor": ("TBL-04",),
    "table-oom-bug": ("LIN-09",),
    "invalid-large-leaf": ("ATT-10",),
}
"""Rules whose finding shows that the kernel has the bug, whatever its release says."""
_SHOWN_BY_TRACE: dict[str, tuple[str, ...]] = {
    "partial-section-pmd": ("TRC-08",),
    "hvo-live-remap": ("HVO-06",),
    "mom-error-path": ("MOM-06",),
    "shared-basepage": ("TRC-07",),
}
_DIED_OF: dict[str, tuple[str, ...]] = {"partial-section-pmd": ("OOP-01",), "shared-basepage": ("OOP-02",)}
"""Rules whose finding is how a kernel dies of the bug; of others it dies in the same way."""
_SHOWN_FIXED: dict[str, tuple[str, ...]] = {"leaf-straddle": ("LIN-04", "OOP-14")}
"""Rules whose finding is the fix at work: the kernel refused what it would have torn."""


@dataclass(frozen=True, slots=True)
class BugState:
    """One known bug in one kernel."""

    bug: KnownBug
    state: str
    """``present``, ``fixed`` or ``unknown``."""
    by: str
    """``code``, ``state``, ``trace`` or ``release``."""
    evidence: str

    @property
    def shown_by(self) -> tuple[str, ...]:
        """Rules whose finding shows the bug or how a kernel dies of it, beside those that find what it leaves."""
        tables = (_SHOWN_BY_STATE, _SHOWN_BY_TRACE, _DIED_OF)
        return tuple(code for table in tables for code in table.get(self.bug.key, ()))

    def as_dict(self) -> dict[str, Any]:
        """As in ``ptaudit.report/2``."""
        return {
            "bug": bug_name(self.bug),
            "key": self.bug.key,
            "title": self.bug.title,
            "state": self.state,
            "by": self.by,
            "evidence": self.evidence,
            "rules": list(self.bug.rules),
            "fixes": describe_fixes(self.bug),
        }


def bug_name(bug: KnownBug) -> str:
    """The commit that fixes it, or else the name in the table."""
    return bug.commit if _HEX.fullmatch(bug.commit) else bug.key


def bugs_of(report: Report) -> list[BugState]:
    """The known bugs that concern a kernel of this page size; none where neither release nor page size is known."""
    release, layout = report.facts.get(KernelRelease), report.facts.get(KernelLayout)
    page_size = layout.get("page_size") if layout is not None else None
    if release is None and page_size is None:
        return []
    concerned = (bug for bug in KNOWN_BUGS if page_size is None or page_size in bug.page_sizes)
    found: dict[str, list[Finding]] = {}
    for verdict in report.verdicts:
        found[verdict.rule.code] = [one for one in verdict.findings if one.hit.claim is not Claim.SUSPECTED]
    return [_state(bug, found, report, release) for bug in concerned]


def _state(bug: KnownBug, found: dict[str, list[Finding]], report: Report, release: KernelRelease | None) -> BugState:
    code = report.facts.get(KernelCode)
    if code is not None and (release is None or not bug.is_newer_than(release)):
        shown_fix = shown_by_code(bug.key, code)
        if shown_fix is not None:
            return BugState(bug, shown_fix.state, "code", shown_fix.evidence)
    for state, by, table in (
        ("present", "state", _SHOWN_BY_STATE),
        ("present", "trace", _SHOWN_BY_TRACE),
        ("fixed", "state", _SHOWN_FIXED),
    ):
        shown = [one for code in table.get(bug.key, ()) for one in found.get(code, [])]
        if shown:
            return BugState(bug, state, by, f"{shown[0].rule.code}: {shown[0].hit.title}")
    seen = _traced(bug, report) or _torn(bug, found, report)
    return seen if seen is not None else _by_release(bug, release)


def _traced(bug: KnownBug, report: Report) -> BugState | None:
    """What a replayed trace shows of how the kernel populates parts of a section."""
    timeline = report.facts.get(Timeline)
    if bug.key != "partial-section-pmd" or timeline is None or timeline.behaviour.source != "the trace":
        return None
    whole = timeline.behaviour.whole_sections_only
    if whole is None:
        return None
    words = "base pages" if whole else "a block"
    return BugState(bug, "fixed" if whole else "present", "trace", f"the trace shows {words} for part of a section")


def _torn(bug: KnownBug, found: dict[str, list[Finding]], report: Report) -> BugState | None:
    """A whole block of struct pages gone under part of a section: only a kernel that shares blocks tears one so."""
    vmemmap, sections = report.facts.get(Vmemmap), report.facts.get(SectionTable)
    if (
        bug.key != "partial-section-pmd"
        or vmemmap is None
        or sections is None
        or not vmemmap.layout.knows("phys_offset")
    ):
        return None
    for one in found.get("VMM-02", []):
        rows = vmemmap.rows_at(vmemmap.of_pfns(one.hit.pfns))
        block = rows.size and bool((vmemmap.hole[rows] & (vmemmap.level[rows] < PTE)).all())
        whole = one.hit.pfns.divide(sections.pages_per_section, outward=True).scale(sections.pages_per_section)
        if block and whole - sections.valid:
            return BugState(bug, "present", "state", f"{one.rule.code}: a block was torn out under part of a section")
    return None


def _by_release(bug: KnownBug, release: KernelRelease | None) -> BugState:
    if release is None:
        return BugState(bug, "unknown", "release", "the release is not known")
    if not bug.possible_in(release):
        newer = bug.is_newer_than(release)
        why = f"older than the bug ({bug.since})" if newer else f"{describe_fixes(bug)}"
        return BugState(bug, "fixed", "release", f"{release.raw}: {why}")
    if release.is_vendor and bug.fixed is not None:
        vendor = release.vendor or "the vendor"
        return BugState(bug, "unknown", "release", f"{release.raw}: {vendor} may have added the fix without saying so")
    return BugState(bug, "present", "release", f"{release.raw} lacks the fix: {describe_fixes(bug)}")
