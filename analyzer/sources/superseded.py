"""Files that were read, and that another file of their kind makes useless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analyzer.sources.unread import Unread
from parsers.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from analyzer.sources.found import Source

__all__ = ["superseded"]

_MANY = {"dmesg", "trace", "log", "ptdump", "vmcore", "memory_nodes"}
"""Kinds with several files that count, or are chosen from by `Captured.of`."""


def superseded(
    parsed: Mapping[str, Sequence[Any]], named: Mapping[str, Sequence[str]], sources: Sequence[Source]
) -> Iterator[Unread]:
    """Each such file and the reason; ``parsed`` is what was read by kind, ``named`` where."""
    for kind, names in named.items():
        if kind in {"ptdump", "vmcore"}:
            reason = f"only the first and the last {KINDS[kind].what.removeprefix('a ')} are compared"
            unused = names[1:-1]
        elif kind == "trace":
            used = max(zip(parsed[kind], names, strict=True), key=lambda pair: len(pair[0]))[1]
            reason, unused = f"{used} is used, which has more events", [name for name in names if name != used]
        else:
            reason, unused = f"superseded by {names[-1]}", [] if kind in _MANY else names[:-1]
        content = {one.path: one.sha256 for one in sources if one.kind == kind}
        for name in unused:
            same = kind not in _MANY and content.get(name) == content.get(names[-1])
            yield Unread(name, f"the same content as {names[-1]}" if same else reason)
