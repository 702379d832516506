"""Large texts that are read from the disk piece by piece, and hashed in the same pass: they are never held."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from analyzer.sources.budget import size_in_memory
from analyzer.sources.recognise import read_alone
from parsers.errors import PtauditError
from parsers.kinds import SNIFF_BYTES, kind_of_content
from parsers.progress import step
from parsers.transport import MAX_BYTES

if TYPE_CHECKING:
    from analyzer.sources.budget import Budget
    from analyzer.sources.found import Found
    from parsers.errors import Diagnostic
    from parsers.evidence import Kind, OnlyRows

__all__ = ["Pieced", "alone", "in_pieces"]

_LARGE = 4 << 20


class Pieced(NamedTuple):
    """What a file of one kind holds, its SHA-256, and what is odd about it."""

    kind: Kind
    parsed: OnlyRows
    digest: str
    notes: tuple[Diagnostic, ...]


def in_pieces(kind: Kind, found: Found, budget: Budget) -> Pieced | None:
    """A file of a known kind; None if it is small, not on disk, or of a kind whose parser needs all of it.

    Raises what the parser raises, and BudgetError where that is too much to read, or to keep.
    """
    if kind.parse_file is None or not isinstance(found.where, Path) or found.size() <= _LARGE:
        return None
    budget.go_through(found.size(), found.name)
    hashed = hashlib.sha256()
    with step(f"reading {found.name}", found.size()) as progress:

        def each(piece: memoryview) -> None:
            budget.in_time(found.name)
            hashed.update(piece)
            progress.advance(len(piece))

        parsed = kind.parse_file(found.where, found.name, each)
    budget.keep(size_in_memory(parsed), found.name)
    notes = found.unended()
    if not parsed.only_rows and found.size() > MAX_BYTES:
        notes += (read_alone(kind, found.name),)
    return Pieced(kind, parsed, hashed.hexdigest(), notes)


def alone(found: Found, budget: Budget) -> Pieced | None:
    """A large file whose content shows its kind, and that no line of it can be evidence of another.

    None for anything else, also where it cannot be read: then all of it is searched.
    """
    if found.size() <= _LARGE:
        return None
    kind = kind_of_content(found.head(SNIFF_BYTES))
    if kind is None or kind.parse_file is None or kind.parse is None:
        return None
    kept = budget.kept
    try:
        if isinstance(found.where, Path):
            pieced = in_pieces(kind, found, budget)
        else:
            parsed = cast("OnlyRows", kind.parse(found.where, found.name))  # as parse_file returns
            pieced = Pieced(kind, parsed, found.digest(), found.unended())
    except PtauditError:
        pieced = None
    if pieced is None or not pieced.parsed.only_rows:
        budget.kept = kept
        return None
    return pieced
