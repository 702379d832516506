"""The short run: every kept input, and a fixed set of mutations of the fixtures, hold every invariant."""

import random

import pytest

from tests.fuzz.invariants import hold
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_fixtures(name):
    target = TARGETS[name]
    rng = random.Random(name)
    words = target.words()
    seeds = target.inputs()
    for seed in seeds[:40]:
        hold(target, seed)
    for _ in range(target.short):
        hold(target, mutate(rng, rng.choice(seeds), words, target.limit), twice=rng.random() < 0.1)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name):
    target = TARGETS[name]
    assert {hold(target, seed, twice=False) for seed in target.seeds()[:10]} >= {"read"}
