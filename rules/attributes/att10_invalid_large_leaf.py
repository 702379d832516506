"""ATT-10: blocks made invalid that the kernel does not recognise any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.dmesg import Dmesg, Kind
from parsers.expressions import expression
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.bugs import bug, describe_fixes
from rules.model.log import need_whole_log, quote_messages
from rules.model.memory.regions import LinearMap
from rules.model.memory.walk import PageWalk
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Message
    from parsers.mapping import Bool
    from rules.model.bugs import KnownBug

_LAST_ENTRY = expression(r"^\[[0-9a-f]{16}\] pgd=.*\b(?:pud|pmd)=([0-9a-f]{16})$")


@rule(
    code="ATT-10",
    name="invalid-large-leaf",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    references=(
        "Linux commits 15bfba1ad77f, f12b435de2f2 (v7.1; the first also in stable 6.18.24 and 7.0.1)",
        "Fixes: a166563e7ec3 (v6.18): before it no block of the linear map was made invalid",
    ),
)
def invalid_large_leaf(
    release: KernelRelease, *, linear_map: LinearMap | None, page_walk: PageWalk | None, dmesg: Dmesg | None
) -> Iterator[Hit]:
    """A block of the linear map is invalid, and the kernel mistakes it for a table or for valid.

    What it means:
    6.18 to 7.0 map the linear map with blocks on CPUs with BBML2, and change the permissions of blocks whole. A
    block that is made invalid no longer looks like a leaf to them: it is never made valid again, and the
    next access oopses. Older kernels make no block invalid at all: there the entry was damaged, by a stray write
    or by code that is not Linux', and the next access oopses as well.

    How it is detected:
    In a crash dump, entries above the last level of the linear map that are not empty and not valid; kernels with
    the fix mark those that they made themselves (PTE_PRESENT_INVALID, the bit of nG). In the log of a kernel that
    can have the bug, an oops whose last entry is a PUD or PMD that is not zero and has bit 0 clear (OOP-05 looks at
    those of all kernels). Text dumps do not show such entries.

    When it is not a problem:
    Entries of single pages, which are made invalid all the time (secretmem, KFENCE). A block may be invalid for a
    moment while memory is shared with a hypervisor. Vendors have taken a166563e7ec3 over into older kernels: there
    it is the bug, not damage.

    What to do:
    Update. Until then boot with debug_pagealloc=on, which maps the linear map with pages. On an older kernel look for
    what else was overwritten near the table, and for modules that change page tables.
    """
    entry = bug("invalid-large-leaf")
    possible = entry.possible_in(release)
    source = Evidence(release.path, release.raw, release.line)
    walked = None if page_walk is None else linear_map
    if walked is not None:
        rows = _unexplained(walked, entry, release)
        if rows.any():
            offsets = walked.where(rows)
            yield Hit(
                title="Blocks of the linear map are invalid",
                message=f"{offsets.total >> 10} KiB of the linear map lie under invalid entries; "
                f"{_why(entry, release)}.",
                claim=Claim.PROBABLE,
                pfns=walked.pfns(walked.pages(offsets)),
                vas=walked.va_ranges(offsets)[:64],
                evidence=(source, *walked.quote(rows)),
                key="dump",
            )
        if walked.unobserved:
            raise UndecidedError("parts of the linear map are not in the dump", "vmcore")
    if not possible:
        if walked is None:
            raise NotApplicableError(f"{release.raw} does not have the bug, and only a crash dump shows damage")
        return
    said = _oopses(dmesg)
    if said:
        yield Hit(
            title="An access to an invalid block of the linear map oopsed",
            message=f'The log shows "{said[0].text}": the last entry is not zero and not valid; '
            f"{describe_fixes(entry)}.",
            claim=Claim.PROBABLE,
            evidence=(source, *quote_messages(dmesg, said)),
            key="oops",
        )
    if walked is None:
        if dmesg is None:
            raise UndecidedError("a text dump does not show invalid blocks", "vmcore", Dmesg)
        if dmesg.boot.feature("BBM") is not None and not said:
            raise UndecidedError("the CPU has BBML2, and a text dump does not show invalid blocks", "vmcore")
        need_whole_log(dmesg)


def _unexplained(linear: LinearMap, entry: KnownBug, release: KernelRelease) -> Bool:
    """Entries for blocks and tables that are neither empty nor valid, without those that a fixed kernel marked.

    With page-table isolation every entry has the bit of the mark: then it is evidence only for kernels that are
    known to write it.
    """
    levels = np.isin(linear.level, linear.layout.granule.block_levels())
    invalid = np.asarray(levels & linear.has(Attr.PRESENT) & ~linear.valid)
    isolated = bool((linear.valid & linear.has(Attr.NG)).any())
    if entry.is_newer_than(release) or (isolated and entry.possible_in(release)):
        return invalid
    return np.asarray(invalid & ~linear.has(Attr.NG))


def _why(entry: KnownBug, release: KernelRelease) -> str:
    if entry.possible_in(release):
        return describe_fixes(entry)
    if not entry.is_newer_than(release):
        return f"{release.raw} marks those that it made invalid itself, and these it did not"
    taken = f", or {release.vendor} took a166563e7ec3 over" if release.is_vendor else ""
    return f"{release.raw} is too old to make any block invalid: they were damaged{taken}"


def _oopses(dmesg: Dmesg | None) -> tuple[Message, ...]:
    """Walks in the log that end in an entry that is not zero and not valid."""
    if dmesg is None:
        return ()
    found = []
    for message in dmesg.boot.of(Kind.CRASH):
        match = _LAST_ENTRY.match(message.text)
        if match and (last := int(match[1], 16)) and not last & 1:
            found.append(message)
    return tuple(found)
