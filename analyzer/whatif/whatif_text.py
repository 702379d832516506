"""Answers as text: one in full, many as a table."""

from __future__ import annotations

import textwrap
from pathlib import PurePath
from typing import TYPE_CHECKING

from analyzer.output import printable
from analyzer.whatif.answer import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.whatif.answer import Answer

__all__ = ["lines", "table"]

WIDTH = 100
MAX_EVIDENCE = 4


def lines(answers: list[Answer]) -> list[str]:
    """Every answer in full."""
    found: list[str] = []
    for answer in answers:
        found += [*([""] if found else []), *_full(answer)]
    return [printable(line) for line in found]


def table(answers: list[Answer]) -> list[str]:
    """One line an operation, then in full those that are not safe, then how many of each there are."""
    if not answers:
        return ["nothing here can be removed or taken offline"]
    width = max(len(str(one.operation)) for one in answers)
    found = [f"{one.operation!s:<{width}}  {one.kind:<7}  {one.claim:<9}  {_short(one)}" for one in answers]
    for answer in answers:
        if answer.kind in {Kind.BREAKS, Kind.UNKNOWN}:
            found += ["", *_full(answer)]
    counts = {kind: sum(one.kind is kind for one in answers) for kind in Kind}
    found += ["", ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)]
    return [printable(line) for line in found]


def _short(answer: Answer) -> str:
    if answer.breaks:
        return "; ".join(f"{one.rule} {', '.join(one.owners[:3])}" for one in answer.breaks)
    return textwrap.shorten(answer.why, 70, placeholder=" …")


def _full(answer: Answer) -> Iterator[str]:
    yield f"{answer.operation}: {answer.kind.upper()}  (confidence: {answer.claim})"
    if not answer.breaks:
        yield from _wrapped("", answer.why)
    for one in answer.breaks:
        pfns = ", ".join(f"{lo:#x}-{hi:#x}" for lo, hi in one.pfns.tuples()[:4])
        yield from _wrapped(f"{one.rule} {one.severity}: ", f"{', '.join(one.owners)}; PFNs {pfns}")
        yield from _wrapped("", one.why)
        for evidence in one.evidence[:MAX_EVIDENCE]:
            line = f":{evidence.line}" if evidence.line else ""
            yield f"    {PurePath(evidence.source).name}{line}: {' '.join(evidence.text.split())}"
    for name, text in (("instead", answer.instead), ("collect", answer.collect)):
        if text:
            yield from _wrapped(f"{name}: ", text)
    for note in answer.notes[:MAX_EVIDENCE]:
        yield from _wrapped("note: ", note)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {head}",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
