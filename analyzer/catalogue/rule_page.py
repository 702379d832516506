"""A rule's page, from its declaration alone: what ``ptaudit explain`` prints and the documentation shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.records import dataclass
from rules.facts import with_how_to_collect
from rules.rule import SECTIONS

if TYPE_CHECKING:
    from rules.rule import Rule

__all__ = ["Part", "rule_parts"]


@dataclass(frozen=True, slots=True)
class Part:
    """A heading with a paragraph, or with a list."""

    heading: str
    text: str = ""
    items: tuple[str, ...] = ()


def rule_parts(rule: Rule) -> list[Part]:
    """The page below its title: the docstring's parts, the evidence, the references."""
    parts = [Part(heading, rule.pages[heading]) for heading in SECTIONS]
    parts.append(Part("What it needs", items=_facts(rule.needs)))
    if rule.uses:
        parts.append(Part("What it also uses", items=_facts(rule.uses)))
    if rule.fallbacks:
        items = tuple(" + ".join(_facts(check.needs)) for check in rule.fallbacks)
        parts.append(Part("Where that is missing, any of these is enough for a weaker answer", items=items))
    if rule.references:
        parts.append(Part("References", items=rule.references))
    return parts


def _facts(kinds: tuple[type, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(with_how_to_collect, kinds)))
