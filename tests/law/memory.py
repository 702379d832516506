"""Files that are not damaged are parsed once for all damages of another, which is half of the time."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from analyzer.sources import reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.sources.budget import Budget
    from parsers.evidence import Kind

__all__ = ["Memory"]

KEPT = 64


class Memory:
    """What parsers made of contents by kind, name and content, and what contents are recognised as.

    An audit does not change what a parser returned.  Errors are not kept.
    """

    def __init__(self) -> None:
        self._parse = reading.parsed_by
        self._parsed: dict[tuple[str, str, bytes], Any] = {}
        self._documents_of = lru_cache(KEPT)(reading.documents_of)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Audits use it meanwhile."""
        with (
            patch.object(reading, "parsed_by", self._parsed_by),
            patch.object(reading, "documents_of", self._documents_of),
        ):
            yield

    def _parsed_by(self, kind: Kind, where: Path | bytes, name: str, budget: Budget) -> Any:
        data = where.read_bytes() if isinstance(where, Path) else where
        key = kind.name, name, hashlib.sha256(data).digest()
        if key not in self._parsed:
            if len(self._parsed) >= KEPT:
                del self._parsed[next(iter(self._parsed))]
            self._parsed[key] = self._parse(kind, where, name, budget)
        return self._parsed[key]
