"""All fixed words are found, wherever they stand."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from parsers.words import Words

WORDS = (b"abc", b"abca", b"b.c", b"[x] ")


@given(st.text("abcx.[] ", max_size=80).map(str.encode))
def test_words_are_found_as_one_expression_each_finds_them(data: bytes) -> None:
    expected = [
        (match.start(), number)
        for number, word in enumerate(WORDS)
        for match in re.finditer(rb"(?=%b)" % re.escape(word), data)
    ]
    assert Words(WORDS).find(data) == sorted(expected)
