"""ENV-01: known bugs that this kernel has, or that its release may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.image.code import KernelCode
from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import KNOWN_BUGS, KnownBug, describe_fixes
from rules.model.code import shown_by_code
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@rule(
    code="ENV-01",
    name="known-bugs",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("Each bug names its commit and the stable releases that carry the fix",),
)
def known_bugs(release: KernelRelease, layout: KernelLayout, *, code: KernelCode | None) -> Iterator[Hit]:
    """Bugs of memory hotplug and page tables that this kernel has, or that a kernel of its release can have.

    What it means:
    Where the kernel's code was read, it shows which fixes are in. For the other bugs the release is all there is.
    Whether a bug did harm, the state shows, and the other rules look at that.

    How it is detected:
    The code of a crash dump's kernel, or of an image, is compared with what each fix changes: calls, instructions.
    Where that does not decide, the release is compared with the table of known bugs and their fixes.

    When it is not a problem:
    The release alone proves neither a bug nor its fix: vendors fix bugs without changing the release,
    and revert fixes.

    What to do:
    Plan an update to a release that has the fixes. Until then avoid what triggers them, which
    `ptaudit explain` says of each rule in brackets: mostly removing memory (destroying a namespace, unplugging a
    DIMM).
    """
    page_size = layout.get("page_size") or 4096
    concerned = [entry for entry in KNOWN_BUGS if page_size in entry.page_sizes and not entry.is_newer_than(release)]
    shown = {entry.key: shown_by_code(entry.key, code) for entry in concerned} if code is not None else {}
    by_code = {key: one for key, one in shown.items() if one is not None}
    has = [entry for entry in concerned if entry.key in by_code and not by_code[entry.key].fixed]
    may_have = [entry for entry in concerned if entry.key not in by_code and entry.possible_in(release)]
    if not has and not may_have:
        return
    parts = [_listed("It has, by its code", has)] if has else []
    parts += [_listed("It may have, by its release" if by_code else "By its release", may_have)] if may_have else []
    fixed = [entry.name for entry in concerned if entry.key in by_code and by_code[entry.key].fixed]
    parts += [f"Fixed, by its code: {', '.join(fixed)}."] if fixed else []
    parts += (
        [f"{release.vendor} kernels may have fixed them without showing it."] if may_have and release.vendor else []
    )
    counts = [f"has {_bugs(has)}"] if has else []
    counts += [f"may have {f'{len(may_have)} more' if has else _bugs(may_have)}"] if may_have else []
    quotes = [Evidence(code.path, by_code[entry.key].evidence) for entry in has] if code is not None else []
    yield Hit(
        title=f"{release.raw} {' and '.join(counts)}",
        message=" ".join(parts),
        claim=Claim.PROVEN if not may_have else Claim.SUSPECTED,
        evidence=(Evidence(release.path, release.raw, release.line), *quotes),
        key=",".join(entry.key for entry in concerned if entry in has or entry in may_have),
    )


def _bugs(bugs: Sequence[KnownBug]) -> str:
    return f"{len(bugs)} known bug{'' if len(bugs) == 1 else 's'}"


def _listed(what: str, bugs: Sequence[KnownBug]) -> str:
    listed = "; ".join(
        f"{entry.title} ({'; '.join(filter(None, ('/'.join(entry.rules), entry.cve, describe_fixes(entry))))})"
        for entry in bugs
    )
    return f"{what}: {listed}."
