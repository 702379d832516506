"""A sample of ``python -m tests.fuzz.truncate``: files cut short and files with flipped bits."""

import random
from collections import defaultdict

import pytest

from parsers.kinds import KINDS
from tests.fuzz.invariants import hold
from tests.fuzz.truncate import binaries, damaged, lengths, target_of, texts

EACH = 40
NO_FIXTURE = {"boot_id", "cpuinfo", "kernel"}
"""Kinds that no text among the fixtures is of."""


@pytest.fixture(scope="module")
def by_kind():
    found = defaultdict(list)
    for text in texts():
        found[text.kind].append(text)
    return found


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS.values() if kind.is_read and kind.name not in NO_FIXTURE])
def test_prefixes(by_kind, kind):
    rng = random.Random(kind)
    for text in rng.choices(by_kind[kind], k=EACH):
        size = min(len(text.data), 1 << 15)
        length = rng.randrange(1, size + 1)
        if rng.random() < 0.3:
            length = text.data.find(b"\n", length) + 1 or length
        hold(target_of(kind), text.data[:length], twice=False)


@pytest.mark.parametrize(
    ("name", "data"), [pytest.param(*one, id=one[0]) for one in binaries("seeds", "collected", "dat")]
)
def test_damaged_binaries(name, data):
    for one in damaged(name, data, 6):
        hold(target_of(""), one, twice=False)


def test_a_shared_beginning_is_read_once(by_kind):
    texts_of_two = by_kind["iomem"][:2]
    first, second = (list(lengths(text, set(), every=True)) for text in texts_of_two)
    assert first == list(range(1, len(texts_of_two[0].data) + 1))
    shared = len(texts_of_two[1].data) - len(second)
    assert 0 < shared == texts_of_two[1].shared
    assert texts_of_two[0].data[:shared] == texts_of_two[1].data[:shared]


def test_lines_of_a_known_shape_are_cut_at_their_ends_alone(by_kind):
    text = max(by_kind["ptdump"], key=lambda one: len(one.data))
    shapes: set[bytes] = set()
    chosen = list(lengths(text, shapes, every=False))
    again = list(lengths(text, shapes, every=False))
    assert chosen == sorted(set(chosen))
    assert len(again) < len(chosen) < len(text.data)
    ends = [at + 1 for at, byte in enumerate(text.data) if byte == ord("\n") and at >= text.shared]
    assert set(ends) <= set(again)
