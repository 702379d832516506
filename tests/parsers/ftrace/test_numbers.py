"""Numbers out of columns of text are those that Python reads, row by row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parsers.ftrace.numbers import parse_decimal, parse_hex, parse_integer

WORDS = st.one_of(
    st.integers(-(2**63), 2**64 - 1).map(str),
    st.integers(0, 2**64 - 1).map(hex),
    st.text("0123456789abcdefxX-+ g", max_size=30),
)


def expected(word: str, base: int) -> int | None:
    """What the word means to Python, None where it is not a number that the kernel prints."""
    if word != word.strip() or "_" in word or "+" in word or "X" in word[:2].upper() * (base != 0):
        return None
    try:
        value = int(word, base or (16 if word[:2].lower() == "0x" else 10))
    except ValueError:
        return None
    return value % 2**64 if len(word) <= 21 else None


@given(st.lists(WORDS, min_size=1, max_size=20))
def test_integers(words):
    words = [word.replace("-0x", "") for word in words]
    values, good = parse_integer(np.array([word.encode() for word in words]))
    for word, value, known in zip(words, values.tolist(), good.tolist(), strict=True):
        digits = word.lstrip("-").removeprefix("0x").removeprefix("0X")
        if known:
            assert value == expected(word, 0), word
        else:
            assert value == 0
            assert expected(word, 0) is None or len(digits) > 16, word


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_hexadecimal_and_decimal(numbers):
    values, good = parse_hex(np.array([f"{number:x}".encode() for number in numbers]))
    assert good.all()
    assert values.tolist() == numbers
    values, good = parse_decimal(np.array([str(number).encode() for number in numbers]))
    assert good.all()
    assert values.tolist() == numbers


def test_what_is_not_a_number():
    values, good = parse_integer(
        np.array([b"", b"-", b"0x", b"0xg", b"12a", b"GFP_KERNEL", b"0x11112222333344445", b"1" * 40])
    )
    assert not good.any()
    assert not values.any()
