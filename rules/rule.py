"""The declaration of a rule: one function, its metadata, and what it needs to decide.

From the declaration alone derive the undecided outcome, ``ptaudit rules`` and ``explain``, the
documentation page and the metadata of every report format.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rules.finding import Hit, Impact, Severity

__all__ = ["NotApplicableError", "Rule", "UndecidedError", "rule", "snake_case"]


class NotApplicableError(Exception):
    """Raised by a rule: the hazard cannot exist here (another granule, another kernel), and why."""


class UndecidedError(Exception):
    """Raised by a rule: the evidence does not decide, why not, and what to collect."""

    def __init__(self, reason: str, *collect: type | str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.collect = collect


SECTIONS = ("What it means", "How it is detected", "When it is not a problem", "What to do")


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule: callable as the function that it decorates."""

    code: str
    name: str
    severity: Severity
    impact: Impact
    needs: tuple[type, ...]
    uses: tuple[type, ...]
    references: tuple[str, ...]
    check: Callable[..., Iterable[Hit]]
    foretold: Callable[[Any], Iterable[Hit]] | None = None
    """What a replayed trace (`Timeline`) alone predicts, where what the rule needs was not collected."""

    def __call__(self, *needs: object, **uses: object) -> Iterable[Hit]:
        return self.check(*needs, **uses)

    @property
    def family(self) -> str:
        """The folder that the rule lives in."""
        return self.check.__module__.rpartition(".")[0].rpartition(".")[2] or self.check.__module__

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return inspect.getdoc(self.check).splitlines()[0]  # type: ignore[union-attr]

    @cached_property
    def pages(self) -> dict[str, str]:
        """The docstring's parts by heading (`SECTIONS`)."""
        text = inspect.getdoc(self.check) or ""
        parts = re.split(rf"^({'|'.join(SECTIONS)}):\s*", text, flags=re.MULTILINE)
        return {head: " ".join(body.split()) for head, body in zip(parts[1::2], parts[2::2], strict=True)}

    @property
    def advice(self) -> str:
        """What to do, for every finding of the rule."""
        return self.pages["What to do"]


def snake_case(name: str) -> str:
    """``SectionTable`` to ``section_table``: the keyword under which a rule receives a used fact."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def rule(
    *,
    code: str,
    name: str,
    severity: Severity,
    impact: Impact,
    needs: tuple[type, ...],
    uses: tuple[type, ...] = (),
    references: tuple[str, ...] = (),
    foretold: Callable[[Any], Iterable[Hit]] | None = None,
) -> Callable[[Callable[..., Iterable[Hit]]], Rule]:
    """Declare the decorated function as a rule.

    The function takes one positional argument a type in ``needs`` and one keyword a type in
    ``uses`` (None when absent), yields hits, and raises `NotApplicableError` or `UndecidedError`.  ``foretold``
    yields what a trace alone predicts.
    """

    def declare(check: Callable[..., Iterable[Hit]]) -> Rule:
        made = Rule(code, name, severity, impact, needs, uses, references, check, foretold)
        missing = [head for head in SECTIONS if head not in made.pages]
        if missing:
            raise TypeError(f"{code}: its docstring lacks {', '.join(missing)}")
        return made

    return declare


def keywords(types: tuple[type, ...], values: Iterable[Any]) -> dict[str, Any]:
    """The keyword arguments for the facts that a rule uses."""
    return {snake_case(kind.__name__): value for kind, value in zip(types, values, strict=True)}
