"""ENV-01: known bugs that this release may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import KNOWN_BUGS, describe_fixes
from rules.rule import NotApplicableError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ENV-01",
    name="known-bugs",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("Each bug names its commit and the stable releases that carry the fix",),
)
def known_bugs(release: KernelRelease, layout: KernelLayout) -> Iterator[Hit]:
    """Bugs of memory hotplug and page tables that a kernel of this release can have.

    What it means:
    The release is in the range of these bugs. Whether this kernel has them
    shows in its state, which the other rules examine.

    How it is detected:
    The release is compared with the table of known bugs and their fixes.

    When it is not a problem:
    Vendors fix bugs without changing the release, and revert fixes: this is never proof, in neither direction.

    What to do:
    Plan an update to a release that has the fixes. Until then avoid the operations that the bugs need.
    """
    if release.arch not in {"", "aarch64"}:
        raise NotApplicableError(f"the machine is {release.arch}")
    page_size = layout.get("page_size") or 4096
    possible = [entry for entry in KNOWN_BUGS if entry.possible_in(release) and page_size in entry.page_sizes]
    if not possible:
        return
    vendor = f" {release.vendor} kernels may have fixed them without showing it." if release.is_vendor else ""
    listed = "; ".join(
        f"{entry.title} ({'; '.join(filter(None, ('/'.join(entry.rules), entry.cve, describe_fixes(entry))))})"
        for entry in possible
    )
    yield Hit(
        title=f"{len(possible)} known bugs are possible in {release.raw}",
        message=f"{listed}.{vendor}",
        claim=Claim.SUSPECTED,
        evidence=(Evidence(release.path, release.raw, release.line),),
        key=",".join(entry.key for entry in possible),
    )
