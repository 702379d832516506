"""Is this the known bug, and which kernel has the fix: the evidence for and against, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rules.model.kernels import bug, describe_fixes

if TYPE_CHECKING:
    from parsers.uname import KernelRelease
    from rules.model.kernels import KnownBug

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One bug against one oops."""

    bug: KnownBug
    supports: tuple[str, ...]
    contradicts: tuple[str, ...]
    excluded: bool
    """The bug cannot be in this kernel, whatever it looks like."""

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
