"""All fixed words are found, wherever they stand."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.words import Words

WORDS = (b"abc", b"abca", b"b.c", b"[x] ")
AT_ONCE = Words(WORDS)
AT_ONCE.places(bytes(1 << 18))  # from so many bytes on


@given(st.text("abcx.[] ", max_size=80).map(str.encode))
def test_words_are_found_as_one_expression_each_finds_them(data: bytes) -> None:
    expected = [
        (match.start(), number)
        for number, word in enumerate(WORDS)
        for match in re.finditer(rb"(?=%b)" % re.escape(word), data)
    ]
    assert Words(WORDS).find(data) == sorted(expected)
    assert AT_ONCE.find(data) == sorted(expected)


def test_a_long_text_is_searched_for_all_words_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Words, "_one_by_one")
    assert Words(WORDS).find(b"-" * (1 << 17) + b"abc") == [((1 << 17), 0)]
