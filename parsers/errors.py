"""Every exception of ptaudit, and the diagnostic that stands in for one where reading can go on.

An input that cannot be used at all raises; a part of an input that cannot be used becomes a
:class:`Diagnostic` and the rest is still read.  Both say where: path and line, column, byte
offset or address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.records import dataclass

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ArchitectureError",
    "BudgetError",
    "Diagnostic",
    "DiagnosticLog",
    "FormatError",
    "InputError",
    "LayoutError",
    "MissingDependencyError",
    "PtauditError",
    "UsageError",
    "WrongFormatError",
]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something in a source that was not understood, was repaired, or limits what may be claimed.

    ``line`` and ``column`` count from 1; ``offset`` counts bytes from 0.
    """

    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        return f"{location(self.path, self.line, self.column, self.offset)}{self.message}"


def location(path: str, line: int | None, column: int | None = None, offset: int | None = None) -> str:
    """``path:line:column: `` as compilers print it, or an empty string when nothing is known."""
    parts = [path] if path else []
    if line is not None:
        parts.append(str(line))
        if column is not None:
            parts.append(str(column))
    elif offset is not None:
        parts.append(f"offset {offset:#x}")
    return ":".join(parts) + ": " if parts else ""


_KEPT = 100


class DiagnosticLog:
    """Collects diagnostics of the file ``path``; memory is bounded whatever the file holds."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._first: list[Diagnostic] = []
        self._more = 0

    def add(self, message: str, line: int | None = None, column: int | None = None) -> None:
        """Keep a diagnostic, or count it once 100 are kept."""
        if len(self._first) < _KEPT:
            self._first.append(Diagnostic(message, self.path, line, column))
        else:
            self._more += 1

    def count(self, more: int) -> None:
        """Count ``more`` diagnostics that were not written out."""
        self._more += more

    @property
    def room(self) -> int:
        """How many more will be kept."""
        return _KEPT - len(self._first)

    def result(self) -> tuple[Diagnostic, ...]:
        """All kept ones in the order of their lines, those about the whole text last."""
        kept = sorted(self._first, key=lambda each: (each.line is None, each.line or 0, each.column or 0))
        if self._more:
            kept.append(Diagnostic(f"{self._more} more diagnostics like these are not listed", self.path))
        return tuple(kept)


class PtauditError(Exception):
    """Root of all errors that ptaudit raises on purpose; carries where the trouble is."""

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        line: int | None = None,
        column: int | None = None,
        offset: int | None = None,
        address: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.line = line
        self.column = column
        self.offset = offset
        self.address = address

    def __str__(self) -> str:
        return f"{location(self.path, self.line, self.column, self.offset)}{self.message}"

    def without_frames(self) -> Self:
        """Itself without its traceback, whose frames hold what was read: for an error that is kept."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class UsageError(PtauditError):
    """The command line asks for something that cannot be."""


class InputError(PtauditError):
    """An input cannot be read or holds nothing usable."""


class BudgetError(InputError):
    """An input does not fit into what one audit reads; the rest of the evidence is read without it."""


class FormatError(InputError):
    """An input is of the expected kind and too damaged to use."""


class WrongFormatError(InputError):
    """An input is recognised, and is something else than what is audited here (an x86 dump, stage 2)."""


class ArchitectureError(WrongFormatError):
    """An input is of a machine of another architecture than arm64."""


class LayoutError(PtauditError):
    """A fact about the kernel's address layout is needed and not known."""


class MissingDependencyError(PtauditError):
    """A library that this input needs is not installed (drgn has wheels for x86-64 only)."""
