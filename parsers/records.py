"""Dataclasses whose methods are not compiled from source.

`dataclasses.dataclass` writes the source of a class's methods and compiles it, 0.6 ms a class: of two hundred classes
that was a quarter of an audit.  Here the standard library still collects the fields, so that `fields`, `replace`,
`asdict` and `is_dataclass` know these classes as any other, and the methods work from the names of the fields.
"""

# ruff: noqa: ANN401 values of any type

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError, fields
from inspect import Parameter, Signature
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from dataclasses import dataclass

__all__ = ["dataclass"]

if not TYPE_CHECKING:  # for a type checker it is the decorator of the standard library

    def dataclass(cls=None, /, *, frozen=False, eq=True, slots=False, kw_only=False):  # noqa: ANN001, ANN201
        """Make a dataclass; the arguments mean what they mean to `dataclasses.dataclass`."""
        if cls is None:
            return lambda decorated: dataclass(decorated, frozen=frozen, eq=eq, slots=slots, kw_only=kw_only)
        defined = {name for name, value in vars(cls).items() if value is not None}  # __eq__ brings __hash__ = None
        cls.__doc__ = cls.__doc__ or cls.__name__  # or the standard library looks for a signature
        made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
        every = fields(made)
        methods = {"__init__": _init(made, every), "__signature__": _Signature(), "__repr__": _repr}
        if eq:
            methods["__eq__"], methods["__hash__"] = _comparison([one.name for one in every if one.compare])
            if not frozen:
                methods["__hash__"] = None
        if frozen:
            methods |= {"__setattr__": _refuse_to_assign, "__delattr__": _refuse_to_delete}
            if slots:
                methods |= {"__getstate__": _state, "__setstate__": _set_state}
        for name, method in methods.items():
            if name not in defined:
                setattr(made, name, method)
        return made


_assign = object.__setattr__
"""Assigns to the fields of frozen classes too."""


def _init(cls: type, every: Sequence[dataclasses.Field[Any]]) -> Callable[..., None]:
    """The ``__init__`` of a dataclass: assigns the arguments to the fields, then calls ``__post_init__``."""
    positional = [one.name for one in every if one.init and not one.kw_only]
    usual = len(positional) if len(positional) == len(every) else -1
    values = _values(f"{cls.__qualname__}.__init__()", positional, every)
    has_more = hasattr(cls, "__post_init__")

    def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        simple = len(args) == usual and not kwargs
        for name, value in zip(positional, args, strict=True) if simple else values(args, kwargs):
            _assign(self, name, value)
        if has_more:
            self.__post_init__()

    return __init__


def _values(
    call: str, positional: list[str], every: Sequence[dataclasses.Field[Any]]
) -> Callable[[tuple[Any, ...], dict[str, Any]], Iterable[tuple[str, Any]]]:
    """A function from the arguments of a call to the fields that they, the defaults and the factories set."""
    defaults = {one.name: one.default for one in every if one.init}
    factories = {one.name: one.default_factory for one in every if one.default_factory is not MISSING}

    def values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        if len(args) > len(positional):
            raise TypeError(f"{call} takes {len(positional)} positional arguments but {len(args)} were given")
        found = {**defaults, **dict(zip(positional, args, strict=False)), **kwargs}
        if len(found) > len(defaults):
            raise TypeError(f"{call} got unexpected arguments: {', '.join(kwargs.keys() - defaults.keys())}")
        if args and not kwargs.keys().isdisjoint(positional[: len(args)]):
            raise TypeError(f"{call} got several values for an argument")
        for name, factory in factories.items():
            if found.get(name, MISSING) is MISSING:
                found[name] = factory()
        if missing := [name for name, value in found.items() if value is MISSING]:
            raise TypeError(f"{call} lacks arguments: {', '.join(missing)}")
        return found.items()

    return values


def _comparison(names: list[str]) -> tuple[Callable[[Any, object], bool], Callable[[Any], int]]:
    """``__eq__`` and ``__hash__`` of the values of these fields."""
    values: Callable[[Any], tuple[Any, ...]] = (
        attrgetter(*names) if len(names) > 1 else lambda self: tuple(getattr(self, name) for name in names)
    )

    def __eq__(self: Any, other: object) -> bool:  # noqa: N807
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(values(self))

    return __eq__, __hash__


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_to_assign(_: object, name: str, __: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for one, value in zip(fields(self), state, strict=True):
        _assign(self, one.name, value)


class _Signature:
    """The signature of a dataclass, worked out when somebody asks."""

    def __get__(self, instance: object, owner: type) -> Signature:
        if instance is not None or "__signature__" not in vars(owner):
            raise AttributeError("__signature__")
        parameters = [
            Parameter(
                one.name,
                Parameter.KEYWORD_ONLY if one.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
                default=Parameter.empty if one.default is one.default_factory is MISSING else one.default,
                annotation=one.type,
            )
            for one in fields(owner)
            if one.init
        ]
        return Signature(sorted(parameters, key=lambda one: one.kind), return_annotation=None)
