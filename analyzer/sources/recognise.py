"""What a file holds by its content: one kind of evidence, or several in one text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from analyzer.sources.own_reports import OWN_REPORT, is_own_report
from parsers.encodings import decoded
from parsers.errors import Diagnostic
from parsers.kinds import KINDS, SNIFF_BYTES, kind_of_content
from parsers.parts import parts_of
from parsers.transport import MAX_BYTES, carried

if TYPE_CHECKING:
    from analyzer.sources.budget import Budget
    from parsers.evidence import Kind

__all__ = ["Document", "Look", "documents_of", "not_searched", "read_alone", "readable_kinds"]

_TEXT_BYTES = 4096
_LOG_ROWS = 3


class Document(NamedTuple):
    """One kind of evidence in a file, with the content that its parser takes."""

    kind: Kind
    data: bytes
    part: bool
    """Whether the file holds others besides."""


def documents_of(data: bytes, known: Kind | None = None) -> list[Document]:
    """What a file that someone named holds, in order; nothing if it is not recognised.

    A file of a ``known`` kind is of that, if no mail has carried it, and it does not hold several.
    """
    plain = carried(data)
    if parts := parts_of(plain):
        return [Document(part.kind, part.data, part=True) for part in parts]
    kind = kind_of_content(plain[:SNIFF_BYTES]) if known is None or plain != data else known
    data = plain
    return [] if kind is None else [Document(kind, data, part=False)]


def not_searched(document: Document, name: str) -> tuple[Diagnostic, ...]:
    """A note where a text is too long to be searched for other kinds of evidence."""
    if document.part or len(document.data) <= MAX_BYTES or b"\0" in document.data[:_TEXT_BYTES]:
        return ()
    return (read_alone(document.kind, name),)


def read_alone(kind: Kind, name: str) -> Diagnostic:
    """The note for a text of more than `parsers.transport.MAX_BYTES` that may hold other evidence."""
    said = f"longer than {MAX_BYTES >> 20} MiB: read as {kind.what} alone, not searched for other evidence"
    return Diagnostic(said, name)


class Look:
    """Looks into files with unknown names that the user did not give: accepts only clear content."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def refused(self, head: bytes, size: int) -> str | None:
        """Why a file that begins like this is not looked into; None if it is, an empty reason for what is not text."""
        if b"\0" in decoded(head[:_TEXT_BYTES]) or not head.strip():
            return ""
        if is_own_report(head):
            return OWN_REPORT
        return self.budget.may_look(size) or None

    def documents(self, data: bytes) -> list[Document]:
        """What is plainly evidence in the file."""
        began = time.monotonic()
        found = [one for one in documents_of(data) if one.part or _is_plain(one)]
        self.budget.spend(began)
        return found


def _is_plain(document: Document) -> bool:
    """Whether there are enough rows of the kind: one line that looks like it may be in any file."""
    row = document.kind.row
    if row is None or not row.may_be_in(document.data):
        return False
    lines = b"\n" + document.data
    least = _LOG_ROWS if document.kind.name == "dmesg" else row.least
    return sum(match[0].count(b"\n") for match in row.runs.finditer(lines)) >= least


def readable_kinds() -> str:
    """The names of all kinds that are read, as a list for people."""
    return ", ".join(kind.name for kind in KINDS.values() if kind.is_read)
