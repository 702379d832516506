"""Columns of known dtypes, and DataFrames made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from parsers.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from parsers.mapping import Bool

__all__ = ["elapsed", "frame", "maybe", "nullable", "of_masked", "one_of", "texts", "truth", "unsigned", "words"]


def frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """A DataFrame of columns made by the functions below, without copying them."""
    return _pandas().DataFrame(dict(columns), copy=False)


def _pandas() -> Any:  # noqa: ANN401 a module
    try:
        import pandas as pd  # noqa: PLC0415 slow to import, and only tables need it
    except ImportError as error:
        raise MissingDependencyError("tables need pandas: pip install pandas") from error
    return pd


def of_masked(columns: Mapping[str, Any]) -> pd.DataFrame:
    """A DataFrame of numpy columns, some of them masked arrays: masked integers become nullable, not floats."""
    return frame({name: _unmasked(column) for name, column in columns.items()})


def _unmasked(column: Any) -> Any:  # noqa: ANN401
    if not isinstance(column, np.ma.MaskedArray):
        return column
    mask, plain = np.ma.getmaskarray(column), column.data
    if plain.dtype.kind in "iu":
        return _pandas().arrays.IntegerArray(np.where(mask, 0, plain).astype(plain.dtype), mask)
    if plain.dtype.kind == "b":
        return _pandas().arrays.BooleanArray(plain & ~mask, mask)
    if plain.dtype.kind == "f":
        return column.filled(np.nan)
    objects = plain.astype(object)
    objects[mask] = None
    return objects


def unsigned(values: ArrayLike) -> Any:  # noqa: ANN401
    """``uint64``: for numbers that every row has."""
    return np.asarray(values).astype(np.uint64)


def nullable(values: ArrayLike, known: Bool, dtype: str = "UInt64") -> Any:  # noqa: ANN401
    """A nullable integer column; values where ``known`` is False are missing, whatever they are."""
    known = np.asarray(known, dtype=np.bool_)
    plain = np.where(known, np.asarray(values), 0).astype(dtype.lower())
    return _pandas().arrays.IntegerArray(plain, ~known)


def maybe(values: Iterable[int | None], dtype: str = "UInt64") -> Any:  # noqa: ANN401
    """A nullable integer column of Python integers, None where unknown."""
    given = list(values)
    known = np.array([value is not None for value in given], dtype=np.bool_)
    plain = np.array([0 if value is None else value for value in given], dtype=dtype.lower())
    return _pandas().arrays.IntegerArray(plain, ~known)


def truth(values: Bool | None, size: int) -> Any:  # noqa: ANN401
    """A nullable ``boolean`` column; all missing where ``values`` is None."""
    plain = np.zeros(size, dtype=np.bool_) if values is None else np.asarray(values, dtype=np.bool_)
    return _pandas().arrays.BooleanArray(plain, np.full(size, values is None))


def one_of(codes: ArrayLike, categories: Sequence[str], *, ordered: bool = False) -> Any:  # noqa: ANN401
    """A categorical column of indices into ``categories``; -1 where unknown."""
    return _pandas().Categorical.from_codes(np.asarray(codes, dtype=np.int64), list(categories), ordered=ordered)


def words(values: Iterable[str | None]) -> Any:  # noqa: ANN401
    """A categorical column of text that repeats; the categories are the words that occur, sorted; "" is missing."""
    given = [value or None for value in values]
    known = sorted({value for value in given if value is not None})
    number = {word: code for code, word in enumerate(known)}
    return one_of([-1 if value is None else number[value] for value in given], known)


def texts(values: Iterable[str | None]) -> Any:  # noqa: ANN401
    """A ``string`` column of text that does not repeat, None where there is none."""
    return _pandas().array(list(values), dtype="string")


def elapsed(seconds: Iterable[float | None]) -> Any:  # noqa: ANN401
    """``timedelta64[ns]`` since boot, NaT where unknown."""
    plain = np.array([np.nan if value is None else value for value in seconds], dtype=np.float64)
    known = np.isfinite(plain)
    whole = np.where(known, np.rint(np.where(known, plain, 0) * 1e9), 0).astype(np.int64)
    return np.where(known, whole.astype("timedelta64[ns]"), np.timedelta64("NaT", "ns"))
