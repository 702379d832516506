"""The declaration of a rule: one function, its metadata, and what it needs to decide.

From the declaration alone derive the undecided outcome, ``ptaudit rules`` and ``explain``, the documentation page and
the metadata of every report format.  What a rule needs and what it can use are the annotations of its parameters;
`rules.signature` reads them.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING

from parsers.records import dataclass
from rules.finding import NotApplicableError, UndecidedError
from rules.signature import Check, check_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rules.finding import Hit, Impact, Severity

    Function = Callable[..., Iterable[Hit]]

__all__ = ["NotApplicableError", "Rule", "UndecidedError", "rule"]

SECTIONS = ("What it means", "How it is detected", "When it is not a problem", "What to do")


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule: callable as the function that it decorates."""

    code: str
    name: str
    severity: Severity
    impact: Impact
    references: tuple[str, ...]
    check: Check
    fallbacks: list[Check] = field(default_factory=list)
    """Weaker ways to decide, in the order of their declaration (`Rule.fallback`)."""

    def __call__(self, *needs: object, **uses: object) -> Iterable[Hit]:
        return self.check.function(*needs, **uses)

    @property
    def needs(self) -> tuple[type, ...]:
        """The facts that the rule cannot do without, in the order of its parameters."""
        return self.check.needs

    @property
    def uses(self) -> tuple[type, ...]:
        """The facts that the rule uses where they are known."""
        return self.check.uses

    @property
    def module(self) -> str:
        """The module that declares the rule."""
        return self.check.function.__module__

    @property
    def family(self) -> str:
        """The folder that the rule lives in."""
        return self.module.rpartition(".")[0].rpartition(".")[2] or self.module

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return inspect.getdoc(self.check.function).splitlines()[0]  # type: ignore[union-attr]

    @cached_property
    def pages(self) -> dict[str, str]:
        """The docstring's parts by heading (`SECTIONS`)."""
        text = inspect.getdoc(self.check.function) or ""
        parts = re.split(rf"^({'|'.join(SECTIONS)}):\s*", text, flags=re.MULTILINE)
        return {head: " ".join(body.split()) for head, body in zip(parts[1::2], parts[2::2], strict=True)}

    @property
    def advice(self) -> str:
        """What to do, for every finding of the rule."""
        return self.pages["What to do"]

    def fallback(self, function: Function) -> Function:
        """Decorate a function that decides, less well, where what the rule needs is missing.

        It declares its own facts as a rule does.  Every fallback whose needs are met runs; their hits are the rule's,
        and the rule stays undecided, for what it needs is still missing.
        """
        self.fallbacks.append(check_of(function, f"{self.code}: fallback {function.__name__}"))
        return function


def rule(
    *,
    code: str,
    name: str,
    severity: Severity,
    impact: Impact,
    references: tuple[str, ...] = (),
    needs: tuple[type, ...] | None = None,
    uses: tuple[type, ...] | None = None,
) -> Callable[[Function], Rule]:
    """Declare the decorated function as a rule.

    A positional parameter ``x: X`` is a fact that the rule needs, a keyword ``x: X | None`` one that it uses (None
    when absent).  The function yields hits, and raises `NotApplicableError` or `UndecidedError`.

    ``needs`` and ``uses`` are for rules of ptaudit 0.1, which named their facts twice: they stand in for annotations
    that are missing, and have to agree with those that are there.

    TypeError for a declaration that cannot work: a parameter without a fact, a fact that nothing provides, a docstring
    without its parts.
    """

    def declare(function: Function) -> Rule:
        made = Rule(code, name, severity, impact, references, check_of(function, code, needs, uses))
        missing = [head for head in SECTIONS if head not in made.pages]
        if missing:
            raise TypeError(f"{code}: its docstring lacks {', '.join(missing)}")
        return made

    return declare
