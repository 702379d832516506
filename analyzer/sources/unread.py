"""Every file that was given and not used, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["ATTACHED", "MAX_OF_A_REASON", "NOT_RECOGNISED", "Unread", "bounded"]

ATTACHED = "a packed or binary attachment of a mail: save it as a file and audit that"
NOT_RECOGNISED = "not recognised"
MAX_OF_A_REASON = 1000


class Unread(NamedTuple):
    """A file, or a part of one, and why it is not used."""

    path: str
    reason: str


def bounded(unread: Iterable[Unread]) -> list[Unread]:
    """At most `MAX_OF_A_REASON` files for a reason, then how many more; each file and reason once."""
    kept: list[Unread] = []
    counts: dict[str, int] = {}
    for one in dict.fromkeys(unread):
        counts[one.reason] = counts.get(one.reason, 0) + 1
        if counts[one.reason] <= MAX_OF_A_REASON:
            kept.append(one)
    more = {reason: count - MAX_OF_A_REASON for reason, count in counts.items() if count > MAX_OF_A_REASON}
    return [*kept, *(Unread(f"{count} more", reason) for reason, count in more.items())]
