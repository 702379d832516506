"""Known bugs of arm64 memory hotplug and page tables, which releases have them, and whether an oops is one of them.

Commits are Linus' tree; stable releases are those whose changelog carries the backport, and for what has a CVE
those of the pairs of vulnerable and fixed releases that the kernel's CVE team publishes (vulns.git,
cve/published/*/CVE-*.dyad).  A release string proves nothing: vendors backport and revert, so these entries say what
could be there, never what is.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from parsers.records import dataclass
from rules.finding import KnownBugClaim

if TYPE_CHECKING:
    from collections.abc import Mapping as Dict

    from parsers.uname import KernelRelease

__all__ = [
    "HVO_RELEASES",
    "KNOWN_BUGS",
    "Judgement",
    "KnownBug",
    "Version",
    "bug",
    "describe_fixes",
    "fixed_releases",
    "judge",
]

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class KnownBug:
    """A bug with the mainline releases that bracket it, and the stable releases that carry its fix."""

    key: str
    title: str
    introduced: Version
    """First mainline release with the bug."""
    fixed: Version | None
    """First mainline release with the fix; None where no fix is known."""
    commit: str
    """The commit that fixes it in Linus' tree, 12 digits; empty where no fix, or not its commit, is known."""
    rules: tuple[str, ...]
    """Rules that find the state which this bug leaves; none where it leaves no state that can be recognised."""
    stable: Dict[Version, int] = field(default_factory=dict)
    """First fixed patch level by stable branch."""
    backported: Dict[Version, int] = field(default_factory=dict)
    """First patch level with the bug, of stable branches older than it that took over what brought it."""
    cve: str = ""
    page_sizes: tuple[int, ...] = (4096, 16384, 65536)
    subject: str = ""
    """Of the fix, where its commit is not known."""

    @property
    def name(self) -> str:
        """How reports name it: the commit that fixes it, or its key."""
        return self.commit or self.key

    def possible_in(self, release: KernelRelease) -> bool:
        """Whether a kernel of that release can have the bug; a vendor's may have fixed it without saying so."""
        if self.is_newer_than(release) or (self.fixed and release.at_least(*self.fixed)):
            return False
        patch = self.stable.get(release.series)
        return patch is None or not release.at_least(*release.series, patch)

    def is_newer_than(self, release: KernelRelease) -> bool:
        """Whether the bug came after that release for certain; a vendor's may have backported it without saying so."""
        since = self.backported.get(release.series)
        if since is None:
            return release.series < self.introduced
        return release.at_least(*release.series, since) is False

    @property
    def since(self) -> str:
        """The first releases with the bug, in words."""
        backported = "".join(f", {a}.{b}.{patch}" for (a, b), patch in sorted(self.backported.items(), reverse=True))
        return f"{self.introduced[0]}.{self.introduced[1]}{backported}"


KNOWN_BUGS: tuple[KnownBug, ...] = (
    KnownBug(
        "partial-section-pmd",
        "a PMD block maps the struct pages of a partly populated section",
        (5, 3),
        (6, 14),
        "d4234d131b0a",
        ("VMM-01", "VMM-02", "VMM-03"),
        {(6, 12): 20, (6, 1): 132, (6, 6): 84, (6, 13): 8},
        page_sizes=(4096,),
    ),
    KnownBug(
        "vmemmap-check-pmd",
        "vmemmap_populate() mistakes a table for a block and leaves holes under it",
        (5, 0),
        (6, 14),
        "9ab2601dc4c1",
        ("VMM-08",),
        page_sizes=(4096,),
    ),
    KnownBug(
        "leaf-straddle",
        "removing a block tears out a linear-map leaf that reaches beyond it",
        (5, 7),
        (7, 1),
        "95a58852b0e5",
        ("LIN-02", "LIN-03"),
    ),
    KnownBug(
        "cont-tlb-shatter",
        "hot-remove flushes the TLB inside of a contiguous run",
        (5, 7),
        (7, 1),
        "48478b9f7913",
        ("CNT-04",),
        {(7, 0): 4, (6, 12): 86, (6, 1): 176},  # 7.0.4 has it by its code; earlier 7.0 were not looked at
    ),
    KnownBug(
        "pgtable-dtor",
        "hot-remove frees table pages without their destructor",
        (6, 16),
        (7, 1),
        "c594b83457cc",
        ("TBL-04",),
        {(7, 0): 13},  # by their code 7.0.13 has it and 7.0.10 does not
    ),
    KnownBug(
        "table-oom-bug",
        "hot-add panics when a page-table page cannot be allocated",
        (5, 0),
        (6, 19),
        "bfc184cb1ba7",
        ("LIN-09",),
    ),
    KnownBug(
        "invalid-large-leaf",
        "a block leaf made invalid is not recognised as one (BBML2 machines)",
        (6, 18),
        (7, 1),
        "15bfba1ad77f",
        ("ATT-10",),
        {(6, 18): 24, (7, 0): 1},
    ),
    KnownBug(
        "usage-race",
        "mem_section usage is freed under pfn_valid()",
        (5, 3),
        (6, 8),
        "5ec8e8ea8b77",
        ("SEC-07",),
        {(5, 10): 210, (5, 15): 149, (6, 1): 76, (6, 6): 15, (6, 7): 3},
        cve="CVE-2023-52489",
    ),
    KnownBug(
        "usage-null",
        "pfn_section_valid() follows a NULL usage",
        (6, 8),
        (6, 10),
        "82f0b6f041fa",
        ("SEC-07",),
        {(5, 10): 222, (5, 15): 163, (6, 1): 100, (6, 6): 41, (6, 9): 10},
        backported={(5, 10): 210, (5, 15): 149, (6, 1): 76, (6, 6): 15, (6, 7): 3},  # with the fix of usage-race
        cve="CVE-2024-41055",
    ),
    KnownBug(
        "hvo-live-remap",
        "HugeTLB vmemmap optimisation remaps live struct pages without break-before-make",
        (5, 19),
        (6, 3),
        "060a2c92d1b6",
        ("HVO-01",),
        {(6, 1): 16, (6, 2): 3},
    ),
    KnownBug(
        "dax-dedup",
        "device-dax deduplicates struct pages on an architecture that did not ask for it",
        (5, 19),
        (6, 4),
        "87a7ae75d738",
        ("HVO-03",),
        {(6, 1): 184, (6, 3): 5},
        cve="CVE-2023-53706",
    ),
    KnownBug(
        "mom-error-path",
        "a failed hot-add frees self-hosted struct pages as if they were RAM",
        (5, 13),
        (6, 7),
        "f42ce5f087eb",
        ("MOM-06",),
        {(6, 1): 72},
        page_sizes=(4096,),
    ),
    KnownBug(
        "mom-lock",
        "self-hosted struct pages are set up without the hotplug lock",
        (5, 13),
        (6, 7),
        "001002e73712",
        (),
        {(6, 1): 72},
        page_sizes=(4096,),
    ),
    KnownBug(
        "mom-altmap",
        "a wrong altmap is passed in the error path of hot-add",
        (6, 8),
        (7, 2),
        "",
        ("MOM-06",),
        {(7, 1): 7, (6, 12): 97},
        # by their code 7.1.7 has it and 7.1.3 does not
        page_sizes=(4096,),
        subject="mm/memory_hotplug: fix incorrect altmap passing in error path",
    ),
    KnownBug(
        "mte-hotplug",
        "hot-added RAM is mapped untagged on MTE machines",
        (5, 10),
        (5, 12),
        "d15dfd31384b",
        ("ATT-05",),
        {(5, 10): 24},
    ),
    KnownBug(
        "max-pfn",
        "adding memory at a lower address lowers max_pfn",
        (5, 16),
        (6, 15),
        "89f43e1ce6f6",
        ("SEC-12",),
        {(6, 12): 24, (6, 1): 135},
        backported={(5, 10): 80},  # with 8fac67ca236b
    ),
    KnownBug(
        "nomap-mapped",
        "the edge pages of no-map memory are mapped",
        (4, 14),
        (7, 2),
        "7ace06a01efa",
        ("LIN-07",),
        {(6, 12): 117},
    ),
    KnownBug(
        "ptdump-hotremove",
        "the W+X check walks tables while hot-remove frees them",
        (5, 7),
        (6, 17),
        "59305202c67f",
        (),
        {(5, 10): 241, (5, 15): 190, (6, 1): 149, (6, 6): 103, (6, 12): 43, (6, 15): 11, (6, 16): 2},
        cve="CVE-2025-38681",
    ),
    KnownBug(
        "shared-basepage",
        "a vmemmap base page shared by two units is freed with the first",
        (5, 7),
        None,
        "",
        ("VMM-06",),
        page_sizes=(16384, 65536),
    ),
)

HVO_RELEASES: tuple[Version, Version] = ((5, 19), (6, 3))
"""arm64 selected ARCH_WANT_HUGETLB_PAGE_OPTIMIZE_VMEMMAP from 1e63ac088f20 until 060a2c92d1b6."""


def bug(name: str) -> KnownBug:
    """The entry of that key, or of the bug that this commit (its first 12 digits) fixes; KeyError if there is none."""
    for entry in KNOWN_BUGS:
        if name in {entry.key, entry.commit} and name:
            return entry
    raise KeyError(name)


def fixed_releases(entry: KnownBug) -> tuple[str, ...]:
    """The first releases with the fix, mainline first; none where no fix is known."""
    if entry.fixed is None:
        return ()
    stable = sorted(entry.stable.items(), reverse=True)
    return (f"{entry.fixed[0]}.{entry.fixed[1]}", *(f"{a}.{b}.{patch}" for (a, b), patch in stable))


def describe_fixes(entry: KnownBug) -> str:
    """The releases with the fix, in words."""
    if entry.fixed is None:
        return "no fix is known"
    return f"fixed in {', '.join(fixed_releases(entry))} ({entry.commit or entry.subject})"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One bug against one oops."""

    bug: KnownBug
    supports: tuple[str, ...]
    contradicts: tuple[str, ...]
    excluded: bool
    """The bug cannot be in this kernel, whatever it looks like."""

    def as_known(self) -> KnownBugClaim:
        """The same as fields of a finding."""
        return KnownBugClaim(
            commit=self.bug.commit or self.bug.subject,
            title=self.bug.title,
            supports=self.supports,
            contradicts=self.contradicts,
            excluded=self.excluded,
            fixed_in=fixed_releases(self.bug),
        )

    def __str__(self) -> str:
        text = f'Is it the known bug "{self.bug.title}"? For it: {"; ".join(self.supports) or "nothing"}.'
        text += f" Against it: {'; '.join(self.contradicts) or 'nothing'}."
        fixes = describe_fixes(self.bug)
        return f"{text} The bug is {fixes}." if self.bug.fixed else f"{text} {fixes[0].upper()}{fixes[1:]}."


def judge(
    key: str,
    release: KernelRelease | None,
    page_size: int | None,
    supports: tuple[str, ...] = (),
    contradicts: tuple[str, ...] = (),
) -> Judgement:
    """The bug of that key; what the release and the page size say is added to what the oops says."""
    entry = bug(key)
    fits, against = list(supports), list(contradicts)
    excluded = False
    if page_size is not None:
        excluded = page_size not in entry.page_sizes
        (against if excluded else fits).append(f"the kernel has {page_size >> 10}K pages")
    if release is None:
        against.append("the release is not known")
    elif entry.is_newer_than(release):
        excluded = True
        against.append(f"{release.raw} is older than the bug ({entry.since})")
    else:
        _judge_fix(entry, release, fits, against)
    return Judgement(entry, tuple(fits), tuple(against), excluded)


def _judge_fix(entry: KnownBug, release: KernelRelease, fits: list[str], against: list[str]) -> None:
    patch = entry.stable.get(release.series)
    wanted = [(*entry.fixed, 0)] if entry.fixed else []
    wanted += [(*release.series, patch)] if patch is not None else []
    answers = [release.at_least(*version) for version in wanted]
    if any(answers):
        against.append(f"{release.raw} has the fix, unless it was reverted")
    elif None in answers:
        vendor = release.vendor or "its vendor"
        fits.append(f"{release.raw} can have it: whether {vendor} added the fix, the release does not say")
    else:
        fits.append(f"{release.raw} does not have the fix")
