"""Diagnostics of one text, as many as a person reads: the first ones are kept, the rest are counted."""

from __future__ import annotations

from parsers.errors import Diagnostic

__all__ = ["KEPT", "DiagnosticLog"]

KEPT = 100


class DiagnosticLog:
    """Collects diagnostics of the file ``path``; memory is bounded whatever the file holds."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._first: list[Diagnostic] = []
        self._more = 0

    def add(self, message: str, line: int | None = None, column: int | None = None) -> None:
        """Keep a diagnostic, or count it once ``KEPT`` are kept."""
        if len(self._first) < KEPT:
            self._first.append(Diagnostic(message, self.path, line, column))
        else:
            self._more += 1

    def count(self, more: int) -> None:
        """Count ``more`` diagnostics that were not written out."""
        self._more += more

    @property
    def room(self) -> int:
        """How many more will be kept."""
        return KEPT - len(self._first)

    def result(self) -> tuple[Diagnostic, ...]:
        """All kept ones in the order of their lines, those about the whole text last."""
        kept = sorted(self._first, key=lambda each: (each.line is None, each.line or 0, each.column or 0))
        if self._more:
            kept.append(Diagnostic(f"{self._more} more diagnostics like these are not listed", self.path))
        return tuple(kept)
