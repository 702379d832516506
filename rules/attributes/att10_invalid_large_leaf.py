"""ATT-10: blocks made invalid that the kernel does not recognise any more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.dmesg import Dmesg, Kind
from parsers.uname import KernelRelease
from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.coverage import LinearMap
from rules.model.kernels import bug, describe_fixes
from rules.model.messages import need_whole_log, quote_messages
from rules.model.walk import PageWalk
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.dmesg import Message
    from parsers.mapping import Bool

_LAST_ENTRY = re.compile(r"^\[[0-9a-f]{16}\] pgd=.*\b(?:pud|pmd)=([0-9a-f]{16})$")


@rule(
    code="ATT-10",
    name="invalid-large-leaf",
    severity=Severity.CRITICAL,
    impact=Impact.CORRUPTION,
    needs=(KernelRelease,),
    uses=(LinearMap, PageWalk, Dmesg),
    references=(
        "Linux commits 15bfba1ad77f, f12b435de2f2 (v7.1, stable 6.18.y and 7.0.y)",
        "Fixes: a166563e7ec3 (v6.18)",
    ),
)
def invalid_large_leaf(
    release: KernelRelease, *, linear_map: LinearMap | None, page_walk: PageWalk | None, dmesg: Dmesg | None
) -> Iterator[Hit]:
    """A block of the linear map was made invalid, and the kernel takes it for a table or for valid.

    What it means:
    6.18 to 7.0 map the linear map with blocks on CPUs with BBML2, and change the permissions of blocks whole. A
    block that is made invalid no longer looks like a leaf to them: it is never made valid again, and the
    next access oopses.

    How it is detected:
    In a crash dump, block entries of the linear map that are not empty and not valid. In the log, an oops whose
    last entry is a PUD or PMD that is not zero and has bit 0 clear. Text dumps do not show such entries.

    When it is not a problem:
    Other releases; entries of single pages, which are made invalid all the time (secretmem, KFENCE). A block may
    be invalid for a moment while memory is shared with a hypervisor.

    What to do:
    Update. Until then boot with debug_pagealloc=on, which maps the linear map with pages.
    """
    entry = bug("invalid-large-leaf")
    if not entry.possible_in(release):
        raise NotApplicableError(f"{release.raw} does not have the bug")
    fixes = describe_fixes(entry)
    source = Evidence(release.path, release.raw, release.line)
    if linear_map is not None and page_walk is not None:
        rows = _invalid_blocks(linear_map)
        if rows.any():
            offsets = linear_map.where(rows)
            yield Hit(
                title="Blocks of the linear map are invalid",
                message=f"{offsets.total >> 10} KiB of the linear map lie under invalid blocks; {fixes}.",
                claim=Claim.PROBABLE,
                pfns=linear_map.pfns(linear_map.pages(offsets)),
                vas=linear_map.va_ranges(offsets)[:64],
                evidence=(source, *linear_map.quote(rows)),
                key="dump",
            )
    said = () if dmesg is None else _oopses(dmesg)
    if dmesg is not None and said:
        yield Hit(
            title="An access to an invalid block of the linear map oopsed",
            message=f'The log shows "{said[0].text}": the last entry is not zero and not valid; {fixes}.',
            claim=Claim.PROBABLE,
            evidence=(source, *quote_messages(dmesg, said)),
            key="oops",
        )
    if page_walk is None or linear_map is None:
        if dmesg is None:
            raise UndecidedError("a text dump does not show invalid blocks", "vmcore", Dmesg)
        if dmesg.boot.feature("BBM") is not None and not said:
            raise UndecidedError("the CPU has BBML2, and a text dump does not show invalid blocks", "vmcore")
        need_whole_log(dmesg)


def _invalid_blocks(linear: LinearMap) -> Bool:
    """Block entries that are neither empty nor valid."""
    levels = np.isin(linear.level, linear.layout.granule.block_levels())
    return np.asarray(levels & linear.has(Attr.PRESENT) & ~linear.valid)


def _oopses(dmesg: Dmesg) -> tuple[Message, ...]:
    """Walks in the log that end in an entry that is not zero and not valid."""
    found = []
    for message in dmesg.boot.of(Kind.CRASH):
        match = _LAST_ENTRY.match(message.text)
        if match and int(match[1], 16) and not int(match[1], 16) & 1:
            found.append(message)
    return tuple(found)
