"""Whether the last dump that was read is the state, or was taken before it.

The last of several dumps is the state and the first the state before.  Where the later one is missing or cannot be
read, the earlier one must not stand in for it: the lists of memory beside it are of another moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from parsers.expressions import expression
from parsers.kinds import KINDS, kind_of_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from analyzer.sources.found import Source
    from parsers.errors import PtauditError

__all__ = ["Given", "given_by", "is_named_earlier", "of_the_past"]

_DUMPS = ("ptdump", "vmcore")
_LISTS = ("iomem", "memory_blocks")
"""What memory there is: these change only by hotplug."""
_OF_A_MOMENT = (*_LISTS, "zoneinfo", "meminfo")
_AGAIN = 2
"""Kinds of a moment that a path gives again and that make it another capture, not an addition to the first."""
_EARLIER = expression(r"(?i)(?:^|/)(?:earlier|before|previous)[^/]*$|\.(?:earlier|before|previous|old)(?:\.\w+)?$")


class Given(NamedTuple):
    """What one path on the command line gave."""

    name: str
    sources: Sequence[Source]
    failed: Mapping[str, str]
    """Kinds of the files that could not be read by path; empty where even that is not known."""

    def lost(self, kind: str, *, bare: bool) -> bool:
        """Whether such a file could not be read; one of unknown kind counts where the other dump is ``bare``."""
        unknown = bare and not self.sources and "" in self.failed.values()
        return kind in self.failed.values() or unknown

    def contents(self, kind: str) -> set[str]:
        """Hashes of the files of a kind that were read."""
        return {one.sha256 for one in self.sources if one.kind == kind and one.path not in self.failed}


def given_by(
    paths: Sequence[Path],
    bounds: Sequence[tuple[int, int]],
    sources: Sequence[Source],
    failures: Sequence[PtauditError],
) -> list[Given]:
    """What each path gave: ``bounds`` count the sources and failures that were there after it was read.

    Crash dumps are read after all paths, and belong to the path that they lie below.
    """
    if not bounds:
        return []
    found, first = [], (0, 0)
    after, failed_dumps = sources[bounds[-1][0] :], failures[bounds[-1][1] :]
    for path, bound in zip(paths, bounds, strict=True):
        own = [*sources[first[0] : bound[0]], *(one for one in after if Path(one.path).is_relative_to(path))]
        known = {one.path: one.kind for one in own}
        failed = {
            error.path: known.get(error.path) or getattr(kind_of_path(error.path), "name", "")
            for error in failures[first[1] : bound[1]]
            if error.path
        }
        failed |= {one.path: "vmcore" for one in failed_dumps if one.path and Path(one.path).is_relative_to(path)}
        found.append(Given(str(path), own, failed))
        first = bound
    return found


def is_named_earlier(path: str) -> bool:
    """Whether the name of a dump says that it was taken before another.

    >>> is_named_earlier("home/earlier_page_tables"), is_named_earlier("before/kernel_page_tables")
    (True, False)
    """
    return _EARLIER.search(path) is not None


def of_the_past(given: Sequence[Given]) -> dict[str, str]:
    """By kind of dump, why the last one is not the state; only the kinds of which that is so."""
    return {kind: reason for kind in _DUMPS if (reason := next(_reasons(kind, given), ""))}


def _reasons(kind: str, given: Sequence[Given]) -> Iterator[str]:
    what = KINDS[kind].what
    last = max((number for number, one in enumerate(given) if one.contents(kind)), default=None)
    if last is None:
        return
    home, later = given[last], given[last + 1 :]
    bare = all(one.kind == kind for one in home.sources)
    if any(one.lost(kind, bare=bare) for one in later):
        yield f"{what} that was given later cannot be read, and the earlier one is not the state"
    for one in later:
        if _is_another_capture(home, one):
            yield f"{what} is of {home.name}, and {one.name} is a later capture without one"
    names = [source.path for one in given for source in one.sources if source.kind == kind]
    if all(map(is_named_earlier, names)) and _has_lists(given):
        yield f"{what} is an earlier one by its name, {names[-1]}, and no later one was given"


def _is_another_capture(first: Given, second: Given) -> bool:
    """Whether the second lists memory again, and otherwise than the first."""
    again = [kind for kind in _OF_A_MOMENT if first.contents(kind) and second.contents(kind)]
    return len(again) >= _AGAIN and any(
        kind in again and first.contents(kind).isdisjoint(second.contents(kind)) for kind in _LISTS
    )


def _has_lists(given: Iterable[Given]) -> bool:
    return any(one.contents(kind) for one in given for kind in _LISTS)
