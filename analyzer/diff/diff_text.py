"""What changed between two captures as text: hazards first, then the changes, folded."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from analyzer.output import printable
from analyzer.reports.text import MAX_RANGES, WIDTH
from rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["lines"]

MAX_LINES = 12


def lines(document: dict[str, Any], names: tuple[str, str]) -> list[str]:
    """The document of `analyzer.diff.capture_diff.diff` as lines; ``names`` are what the user calls the captures."""
    return [printable(line).rstrip() for line in _lines(document, names)]


def _lines(document: dict[str, Any], names: tuple[str, str]) -> Iterator[str]:
    for word, side, name in zip(("before", "after"), (document["before"], document["after"]), names, strict=True):
        yield f"{word:<7} {name}  {side['release'] or 'kernel release unknown'}"
    for note in document["notes"]:
        yield f"note    {note}"
    yield ""
    for hazard in document["hazards"]:
        yield from _hazard(hazard)
        yield ""
    changes = [*_mappings(document), *_memory(document)]
    yield from changes or ["no change of mappings, sections, blocks or resources"]
    for word in ("new", "gone"):
        for one in document["findings"][word]:
            yield f"finding {word:<5} {one['severity'].upper()} {one['rule']} {one['title']} [{one['fingerprint']}]"
    counts = Counter(one["severity"] for one in document["hazards"])
    text = ", ".join(f"{counts[str(level)]} {level}" for level in reversed(Severity) if counts[str(level)])
    yield ""
    yield f"hazards: {text or 'none'}; new findings: {len(document['findings']['new']) or 'none'}"


def _hazard(hazard: dict[str, Any]) -> Iterator[str]:
    yield f"{hazard['severity'].upper():<8} {hazard['title']}  ({hazard['claim']})"
    sections = hazard["sections"]
    where = f"section{'' if len(sections) == 1 else 's'} {_few([str(one) for one in sections])}; " if sections else ""
    if hazard["pfn_ranges"]:
        yield f"  where  {where}PFN {_ranges(hazard['pfn_ranges'])}"
    yield f"         {hazard['va_ranges'][0]['region']} {_ranges(hazard['va_ranges'])}" if hazard["va_ranges"] else ""
    yield from textwrap.wrap(hazard["message"], WIDTH, initial_indent="  what   ", subsequent_indent=" " * 9)
    for word in ("before", "after"):
        for one in hazard[word]:
            yield f"  {word:<6} {_quoted(one)}"


def _mappings(document: dict[str, Any]) -> Iterator[str]:
    unit = "PFN" if document["compared_by"] == "pfn" else "page"
    for one in document["mappings"]:
        yield f"{one['region']:<8}{one['change']:<21}{_size(one['bytes']):>9}  {unit} {_ranges(one['pages'])}"


def _memory(document: dict[str, Any]) -> Iterator[str]:
    for change in ("removed", "added"):
        if document["sections"][change]:
            yield f"valid   {change:<21}{'':>9}  PFN {_ranges(document['sections'][change])}"
    for one in document["memory_blocks"]:
        blocks = _few([f"memory{number}" for number in one["blocks"]])
        yield f"blocks  {one['change']:<21}{'':>9}  {blocks}: {one['before']} -> {one['after']}"
    for change in ("removed", "added"):
        found = document["resources"][change]
        for line in found[:MAX_LINES]:
            yield f"iomem   {change:<21}{'':>9}  {line}"
        if len(found) > MAX_LINES:
            yield f"iomem   {change:<21}{'':>9}  and {len(found) - MAX_LINES} more"


def _quoted(evidence: dict[str, Any]) -> str:
    line = f":{evidence['line']}" if "line" in evidence else ""
    return f"{PurePath(evidence['source']).name}{line}: {' '.join(evidence['text'].split())}"


def _ranges(ranges: list[dict[str, str]]) -> str:
    return _few([f"{one['start']}-{one['end']}" for one in ranges])


def _few(words: list[str]) -> str:
    more = f" and {len(words) - MAX_RANGES} more" if len(words) > MAX_RANGES else ""
    return ", ".join(words[:MAX_RANGES]) + more


def _size(size: int) -> str:
    """Bytes in the largest unit that divides them."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and not size & ((1 << shift) - 1):
            return f"{size >> shift} {unit}"
    return f"{size} B"
