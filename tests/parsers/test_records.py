"""Records behave as the dataclasses of the standard library, and making a class compiles no method."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import inspect
import pickle
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from parsers import records

if TYPE_CHECKING:
    from collections.abc import Callable


def shapes(dataclass: Callable[..., Any]) -> list[type]:
    """Classes with all that the program uses of dataclasses."""

    @dataclass(frozen=True, slots=True)
    class Slotted:
        number: int
        text: str = "a"
        numbers: list[int] = field(default_factory=list)
        where: ClassVar[str] = "here"

    @dataclass(frozen=True, kw_only=True)
    class Keywords:
        number: int
        text: str

    @dataclass(frozen=True)
    class Derived(Keywords):
        last: int = field(kw_only=False, default=4)

    @dataclass(slots=True)
    class Mutable:
        number: int
        hidden: int = field(default=3, repr=False, compare=False)

    @dataclass(frozen=True, eq=False)
    class Identity:
        number: int

    @dataclass
    class Finished:
        number: int
        double: int = field(init=False)
        kept: list[int] = field(default_factory=list, init=False)

        def __post_init__(self) -> None:
            self.double = 2 * self.number

    @dataclass(frozen=True)
    class Own:
        number: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and self.number % 10 == other.number % 10

        def __hash__(self) -> int:
            return self.number % 10

        def __repr__(self) -> str:
            return f"<{self.number}>"

    @dataclass(frozen=True)
    class Empty:
        pass

    return [Slotted, Keywords, Derived, Mutable, Identity, Finished, Own, Empty]


PAIRS = [
    pytest.param(theirs, ours, id=ours.__name__)
    for theirs, ours in zip(shapes(dataclasses.dataclass), shapes(records.dataclass), strict=True)
]
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((11,), {}),
    ((1, "b"), {}),
    ((1, "b", [1]), {}),
    ((1, "b", [1], 2), {}),
    ((), {"number": 1}),
    ((), {"number": 1, "text": "b"}),
    ((5,), {"number": 1, "text": "b"}),
    ((5,), {"number": 1}),
    ((1,), {"unknown": 2}),
    ((1,), {"double": 2}),
]
USES: list[Callable[[Any], object]] = [
    repr,
    dataclasses.asdict,
    dataclasses.astuple,
    lambda one: type(one).__hash__ is object.__hash__ or hash(one),
    lambda one: dataclasses.asdict(dataclasses.replace(one, number=7)),
    lambda one: dataclasses.asdict(copy.copy(one)),
    lambda one: setattr(one, "number", 3),
    lambda one: delattr(one, "number"),
    lambda one: one.__dict__,
]


def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns, or the type of what it raises."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_instances_are_those_of_the_standard_library(theirs: type, ours: type) -> None:
    for args, kwargs in CALLS:
        expected, made = (outcome(cls, *args, **kwargs) for cls in (theirs, ours))
        if isinstance(made, type):
            assert made is expected
            continue
        for use in USES:
            assert outcome(use, made) == outcome(use, expected), (args, kwargs, inspect.getsource(use))


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_equality_is_that_of_the_standard_library(theirs: type, ours: type) -> None:
    def equal(cls: type) -> list[Any]:
        made = [outcome(cls, *args, **kwargs) for args, kwargs in CALLS]
        return [one == other for one in made for other in made]

    assert equal(ours) == equal(theirs)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_the_class_is_described_as_by_the_standard_library(theirs: type, ours: type) -> None:
    assert dataclasses.is_dataclass(ours)
    assert repr(dataclasses.fields(ours)) == repr(dataclasses.fields(theirs))
    for name in ("__match_args__", "__slots__"):
        assert getattr(ours, name, None) == getattr(theirs, name, None)
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)
    mine, standard = (inspect.signature(cls).parameters.values() for cls in (ours, theirs))
    assert [(one.name, one.kind, one.annotation) for one in mine] == [
        (one.name, one.kind, one.annotation) for one in standard
    ]


@records.dataclass(frozen=True, slots=True)
class Pickled:
    number: int
    numbers: list[int] = field(default_factory=list)


@records.dataclass(frozen=True)
class Cached:
    number: int

    @cached_property
    def double(self) -> int:
        return 2 * self.number


def test_frozen_records_are_pickled_and_deeply_copied() -> None:
    for one in (Pickled(1, [2]), Cached(3)):
        assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    assert Cached(3).double == 6


def test_a_field_may_hold_an_array() -> None:
    """Looking for what was not given compares no values."""
    assert Pickled(number=np.arange(3)).number.tolist() == [0, 1, 2]  # type: ignore[arg-type, attr-defined]


def test_a_record_that_holds_itself_has_a_repr() -> None:
    one = Pickled(1)
    one.numbers.append(one)  # type: ignore[arg-type]
    assert repr(one) == "Pickled(number=1, numbers=[...])"


def test_making_a_class_compiles_no_method(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    execute = builtins.exec

    def note(source: object, *namespaces: Any) -> None:
        compiled.append(source)
        execute(source, *namespaces)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "exec", note)
    shapes(records.dataclass)
    assert not [source for source in compiled if "__init__" in str(source) or "__eq__" in str(source)]
    shapes(dataclasses.dataclass)
    assert [source for source in compiled if "__init__" in str(source) or "__eq__" in str(source)]
