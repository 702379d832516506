"""What a rule's function needs and uses, read from its annotations, and refused where it cannot work.

A positional parameter ``x: X`` is a fact that is needed; a keyword-only one ``x: X | None`` is used where it is known.
"""

from __future__ import annotations

import inspect
import re
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from parsers.records import dataclass
from rules.facts import is_known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from inspect import Parameter

    from rules.facts import Facts
    from rules.finding import Hit

__all__ = ["Check", "check_of"]


@dataclass(frozen=True, eq=False)
class Check:
    """A function with the facts that it needs, by position, and uses, by keyword."""

    function: Callable[..., Iterable[Hit]]
    needs: tuple[type, ...]
    keywords: tuple[tuple[str, type], ...]

    @property
    def uses(self) -> tuple[type, ...]:
        """The facts that arrive as keywords."""
        return tuple(kind for _, kind in self.keywords)

    def lacking(self, facts: Facts) -> tuple[type, ...]:
        """The needed facts that are missing."""
        return tuple(kind for kind in self.needs if facts.get(kind) is None)

    def __call__(self, facts: Facts) -> Iterable[Hit]:
        """The hits in these facts."""
        used = {name: facts.get(kind) for name, kind in self.keywords}
        return self.function(*(facts.get(kind) for kind in self.needs), **used)


def check_of(
    function: Callable[..., Iterable[Hit]],
    who: str,
    needs: tuple[type, ...] | None = None,
    uses: tuple[type, ...] | None = None,
) -> Check:
    """The check that a function declares; TypeError, which begins with ``who``, where the declaration cannot work.

    ``needs`` and ``uses`` name the facts of parameters that have no annotation.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
        return _declared(function, parameters, _annotations(function, parameters), needs, uses)
    except TypeError as error:
        raise TypeError(f"{who}: {error}") from error


def _annotations(function: Callable[..., Iterable[Hit]], parameters: list[Parameter]) -> dict[str, Any]:
    """Annotations of the parameters alone: what a function returns may be imported for type checkers only."""
    given = {one.name: one.annotation for one in parameters if one.annotation is not one.empty}
    named: dict[str, Any] = getattr(function, "__globals__", {})
    hints = {name: hint for name, text in given.items() if (hint := _named_in(named, text)) is not None}
    holder: Any = SimpleNamespace(__annotations__={name: one for name, one in given.items() if name not in hints})
    try:
        return hints | get_type_hints(holder, globalns=named)
    except NameError as error:
        raise TypeError(f"{error.name} is not imported where it is declared (TYPE_CHECKING is not enough)") from error


def _named_in(names: dict[str, Any], annotation: object) -> object | None:
    """The type that an annotation ``X`` or ``X | None`` names, looked up, where compiling its text would cost more."""
    if not isinstance(annotation, str):
        return None
    kind = names.get(annotation.removesuffix(" | None"))
    if not isinstance(kind, type):
        return None
    return kind | None if annotation.endswith(" | None") else kind


def _declared(
    function: Callable[..., Iterable[Hit]],
    parameters: list[Parameter],
    hints: dict[str, Any],
    needs: tuple[type, ...] | None,
    uses: tuple[type, ...] | None,
) -> Check:
    for one in parameters:
        if one.kind in {one.VAR_POSITIONAL, one.VAR_KEYWORD}:
            raise TypeError(f"{one} does not say which facts it takes")
        if one.default is not one.empty:
            raise TypeError(f"{one.name} has a default: a fact that is used is None when it is not known")
    positional = [one for one in parameters if one.kind is not one.KEYWORD_ONLY]
    keyword = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    needed = tuple(_needed(one, hints, _at(needs, number)) for number, one in enumerate(positional))
    used = tuple((one.name, _used(one, hints, _named(uses, one.name))) for one in keyword)
    _agree("needs", needs, needed)
    _agree("uses", uses, tuple(kind for _, kind in used))
    kinds = [*needed, *(kind for _, kind in used)]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise TypeError(f"{kind.__name__} is asked for twice")
    return Check(function, needed, used)


def _at(kinds: tuple[type, ...] | None, number: int) -> type | None:
    return kinds[number] if kinds is not None and number < len(kinds) else None


def _named(kinds: tuple[type, ...] | None, name: str) -> type | None:
    """The fact whose type's name is ``name`` in snake case."""
    return next((kind for kind in kinds or () if _snake_case(kind.__name__) == name), None)


def _agree(what: str, given: tuple[type, ...] | None, declared: Sequence[type]) -> None:
    if given is not None and set(given) != set(declared):
        raise TypeError(f"{what}={_list(given)}, and its parameters are {_list(declared)}")


def _needed(parameter: Parameter, hints: dict[str, Any], given: type | None) -> type:
    hint = hints.get(parameter.name, given)
    if _optional(hint) is not None:
        raise TypeError(f"{parameter} is used where it is known: it has to be a keyword (after *)")
    return _fact(parameter, hint)


def _used(parameter: Parameter, hints: dict[str, Any], given: type | None) -> type:
    hint = hints.get(parameter.name)
    if hint is None:
        return _fact(parameter, given)
    kind = _optional(hint)
    if kind is None:
        raise TypeError(f"{parameter} is a keyword and has to be ... | None; what is needed is positional (before *)")
    return _fact(parameter, kind)


def _optional(hint: object) -> object | None:
    """X of ``X | None``, None for any other annotation."""
    if get_origin(hint) not in {Union, UnionType} or NoneType not in get_args(hint):
        return None
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else hint


def _fact(parameter: Parameter, kind: object) -> type:
    if kind is None:
        raise TypeError(f"{parameter.name} has no annotation: which fact it takes is not declared")
    if not isinstance(kind, type) or not is_known(kind):
        raise TypeError(f"{parameter} is not a fact: nothing provides it (rules/facts.py)")
    return kind


def _list(kinds: Iterable[type]) -> str:
    return f"({', '.join(kind.__name__ for kind in kinds)})"


def _snake_case(name: str) -> str:
    """``SectionTable`` to ``section_table``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
