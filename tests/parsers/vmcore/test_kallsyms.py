"""kallsyms are expanded in pieces, wherever those end, and in little memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.errors import FormatError
from parsers.vmcore import kallsyms
from parsers.vmcore.kallsyms import Kallsyms

TOKENS = [bytes([letter]) for letter in range(1, 129)] + [b"mem", b"_page", b"alloc", b"x" * 20] * 32
TABLE = b"".join(token + b"\0" for token in TOKENS)
INDEX = np.cumsum([0, *(len(token) + 1 for token in TOKENS)])[:256].astype("<u2").tobytes()


class Symbols:
    """The tables of some names, each a list of tokens, in memory."""

    def __init__(self, names, offsets=None):
        packed = b""
        for name in names:
            size = len(name)
            packed += bytes([size] if size < 128 else [size & 127 | 128, size >> 7]) + bytes(name)
        offsets = np.arange(len(names)) * 16 if offsets is None else np.array(offsets)
        parts = {
            "num_syms": len(names).to_bytes(4, "little"),
            "names": packed,
            "token_table": TABLE,
            "token_index": INDEX,
            "offsets": offsets.astype("<u4").tobytes(),
            "relative_base": (0xFFFF800080000000).to_bytes(8, "little"),
        }
        self.memory, self.places = b"", {}
        for name, data in parts.items():
            self.places[f"kallsyms_{name}"] = 0x1000 + len(self.memory)
            self.memory += data

    def symbol(self, name):
        return self.places.get(name)

    def read(self, va, size):
        return self.memory[va - 0x1000 : va - 0x1000 + size]

    peek = read


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(kallsyms, "_PIECE", 64)


def text_of(names):
    return b"\0" + b"".join(b"".join(TOKENS[token] for token in name) + b"\0" for name in names)


@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=300), min_size=1, max_size=20), st.integers(16, 90))
def test_pieces_may_end_anywhere(names, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kallsyms, "_PIECE", piece)
        made = Symbols(names)
        found = Kallsyms(made, made)
    assert found._text == text_of(names)
    starts = np.flatnonzero(np.frombuffer(found._text, np.uint8)[:-1] == 0) + 1
    assert found._start.tolist() == starts.tolist()


def test_names_that_end_early_are_refused(small_pieces):
    made = Symbols([[100] * 200] * 3)
    made.memory = made.memory[: made.places["kallsyms_names"] - 0x1000 + 500]
    made.places["kallsyms_token_table"], made.places["kallsyms_token_index"] = 0x100000, 0x200000
    read = made.read
    made.read = made.peek = lambda va, size: (
        TABLE[va - 0x100000 :][:size] if 0x100000 <= va < 0x200000 else INDEX if va >= 0x200000 else read(va, size)
    )
    with pytest.raises(FormatError, match="end early"):
        Kallsyms(made, made)


def test_symbols_of_a_distribution_kernel_take_little_memory():
    rng = np.random.default_rng(0)
    names = [[116, *rng.integers(96, 160, 9).tolist()] for _ in range(200_000)]
    made = Symbols(names)
    tracemalloc.start()
    found = Kallsyms(made, made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found._text) == len(text_of(names))
    assert peak < 60 << 20


def of_words(words, offsets):
    made = Symbols([[TOKENS.index(letter.encode()) for letter in word] for word in words], offsets)
    return Kallsyms(made, made)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(-1, None), (0, ("first", 0)), (15, ("first", 15)), (16, ("alias", 0)), (31, ("alias", 15)), (99, ("data", 67))],
)
def test_an_address_belongs_to_the_symbol_before_it_the_first_of_several(offset, expected):
    found = of_words(["tfirst", "talias", "ttwin", "ddata"], [0, 16, 16, 32])
    assert found.at(0xFFFF800080000000 + offset) == expected


def test_data_belongs_to_no_function_where_only_functions_have_symbols():
    found = of_words(["tlast", "T_etext"], [0, 16])
    assert found.at(0xFFFF80008000000F) == ("last", 15)
    assert found.at(0xFFFF800080000010) is None
