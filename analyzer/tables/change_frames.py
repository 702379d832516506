"""What changed between two captures as a table: the document of `analyzer.diff`, one row a range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analyzer.tables.frames import frame, maybe, one_of, texts, words
from rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

__all__ = ["diff_frame"]

_WHAT = ("hazard", "mapping", "section", "memory block", "resource", "finding")
_COLUMNS = ("what", "change", "severity", "region", "unit", "start", "end", "before", "after", "source", "line")


def diff_frame(document: dict[str, Any]) -> pd.DataFrame:
    """One row a changed range of the document ``ptaudit.diff/1``, hazards first.

    ``what`` (hazard, mapping, section, memory block, resource, finding), ``change``, ``region``, ``unit`` (what
    ``start`` and ``end`` count: ``pfn``, ``page index``, ``block``, ``address``) and ``source``: categorical.
    ``severity``: ordered categorical, missing for plain changes.  ``start``, ``end``, ``line``: nullable.
    ``before`` and ``after``: text; ``source`` and ``line`` are where ``after``, or else ``before``, is.
    """
    rows = [dict.fromkeys(_COLUMNS) | row for row in _rows(document)]
    levels = [str(one) for one in Severity]
    return frame(
        {
            "what": one_of([_WHAT.index(str(row["what"])) for row in rows], _WHAT),
            "change": words(row["change"] for row in rows),
            "severity": one_of(
                [-1 if row["severity"] is None else levels.index(row["severity"]) for row in rows], levels, ordered=True
            ),
            "region": words(row["region"] for row in rows),
            "unit": words(row["unit"] for row in rows),
            "start": maybe(row["start"] for row in rows),
            "end": maybe(row["end"] for row in rows),
            "before": texts(row["before"] for row in rows),
            "after": texts(row["after"] for row in rows),
            "source": words(row["source"] for row in rows),
            "line": maybe((row["line"] for row in rows), "UInt32"),
        }
    )


def _rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    unit = document["compared_by"]
    for one in document["hazards"]:
        row = {"what": "hazard", "change": one["title"], "severity": one["severity"], **_quoted(one)}
        row["region"] = next((area["region"] for area in one["va_ranges"]), None)
        yield from _ranges(row, "pfn", one["pfn_ranges"]) if one["pfn_ranges"] else _areas(row, one["va_ranges"])
    for one in document["mappings"]:
        row = {"what": "mapping", "change": one["change"], "region": one["region"], **_quoted(one)}
        yield from _ranges(row, unit, one["pages"])
    for change, ranges in document["sections"].items():
        yield from _ranges({"what": "section", "change": change}, "pfn", ranges or [])
    for one in document["memory_blocks"]:
        row = {"what": "memory block", "change": one["change"], "before": one["before"], "after": one["after"]}
        yield from (row | {"unit": "block", "start": block, "end": block + 1} for block in one["blocks"])
    for change, lines in document["resources"].items():
        side = "after" if change == "added" else "before"
        yield from ({"what": "resource", "change": change, side: line} for line in lines)
    for change, findings in document["findings"].items():
        for one in findings:
            row = {"what": "finding", "change": change, "severity": one["severity"]}
            row["after" if change == "new" else "before"] = f"{one['rule']} {one['title']}"
            row |= _place(one["evidence"])
            yield from _ranges(row, "pfn", one["pfn_ranges"]) if one["pfn_ranges"] else _areas(row, one["va_ranges"])


def _quoted(change: dict[str, Any]) -> dict[str, Any]:
    """The rows of both sides, and where the later one is."""
    sides = {side: "\n".join(piece["text"] for piece in change[side]) or None for side in ("before", "after")}
    return {**sides, **(_place(change["after"]) or _place(change["before"]))}


def _place(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Source and line of the first piece of evidence that has a line."""
    found = next((piece for piece in pieces if piece.get("line") is not None), None)
    return {} if found is None else {"source": found["source"], "line": found["line"]}


def _ranges(row: dict[str, Any], unit: str, ranges: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """The row once for each range."""
    for one in ranges:
        yield row | {"unit": unit, "start": int(one["start"], 16), "end": int(one["end"], 16)}


def _areas(row: dict[str, Any], areas: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """The row once for each range of virtual addresses; an end of 2**64 does not fit and is missing."""
    if not areas:
        yield row
    for one in areas:
        end = int(one["end"], 16)
        address = {"unit": "address", "start": int(one["start"], 16), "end": end if end < 1 << 64 else None}
        yield row | address | {"region": one["region"]}
