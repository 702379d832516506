"""Regular expressions that are compiled when they are first used.

The program declares five hundred; an audit uses some, and compiling all of them at import was a tenth of its time.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from re import compile as expression
else:

    class Expression:
        """A `re.Pattern` in all but its type."""

        def __init__(self, pattern: str | bytes, flags: int = 0) -> None:
            self.pattern = pattern
            self._flags = flags

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 of any member of a pattern
            if name not in _MEMBERS:
                raise AttributeError(name)
            compiled = re.compile(self.pattern, self._flags)
            vars(self).update({member: getattr(compiled, member) for member in _MEMBERS})
            return getattr(compiled, name)

        def __repr__(self) -> str:
            return f"expression({self.pattern!r}, {self._flags!r})"

        def __reduce__(self) -> tuple[object, ...]:
            return Expression, (self.pattern, self._flags)

    _MEMBERS = frozenset(name for name in dir(re.Pattern) if not name.startswith("_"))
    expression = Expression

__all__ = ["POSSESSIVE", "expression"]

POSSESSIVE = b"+" if sys.version_info >= (3, 11, 5) else b""
"""What makes the repeat of a group possessive, where Python matches that rightly.

Before 3.11.5 (gh-106052; Debian 12 has 3.11.2) such a group matches what it should not where its parts backtrack.
Without it the same is matched with more memory.
"""
