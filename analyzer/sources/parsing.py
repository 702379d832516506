"""Calling the parser of a kind, as a step that shows progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from parsers.progress import step

if TYPE_CHECKING:
    from analyzer.sources.budget import Budget
    from parsers.evidence import Kind

__all__ = ["parsed_by"]


def parsed_by(kind: Kind, where: Path | bytes, name: str, budget: Budget) -> Any:  # noqa: ANN401 what the parser returns
    """What the parser of a kind makes of a file or its content; BudgetError where it takes too long."""
    if kind.read is not None:
        with step(f"reading {name}") as progress:

            def reach(done: int, total: int | None = None) -> None:
                budget.in_time(name)
                progress.reach(done, total)

            return kind.read(where, path=name, progress=reach)
    assert kind.parse is not None  # noqa: S101 only kinds that are read come here
    assert isinstance(where, bytes)  # noqa: S101 kinds with a parser of bytes are held in memory
    with step(f"reading {name}"):
        return kind.parse(where, name)
