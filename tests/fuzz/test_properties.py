"""Laws of all parsers of text: cut anywhere, surrounded by anything, with the line ends of any system."""

import zlib

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings

from parsers.errors import PtauditError
from tests.fuzz.invariants import digest, hold
from tests.fuzz.targets import TARGETS

TEXTS = [name for name, target in TARGETS.items() if not target.binary]
FEW = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def seed_of(target, number):
    seeds = target.seeds()
    return seeds[number % len(seeds)]


@pytest.mark.parametrize("name", TARGETS)
@FEW
@given(number=st.integers(0, 50), where=st.floats(0, 1))
def test_every_prefix(name, number, where):
    seed = seed_of(TARGETS[name], number)
    if name != "core" or not number % 8:  # a second each
        hold(TARGETS[name], seed[: int(where * len(seed))], twice=False)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "core"])
@FEW
@given(data=st.binary(max_size=2000))
@example(data=b"")
@example(data=b"\0")
@example(data=b"\n" * 1000)
@example(data=b"\xff\xfe" + "Linux version 6.12".encode("utf-16-le"))
def test_any_bytes(name, data):
    hold(TARGETS[name], data, twice=False)


@pytest.mark.parametrize("name", TEXTS)
@FEW
@given(data=st.text(alphabet="0123456789abcdefx-: =\n\t\0MemoryNd,zone[].", max_size=500))
def test_any_text(name, data):
    hold(TARGETS[name], data.encode(), twice=False)


@pytest.mark.parametrize(
    "name", ["iomem", "zoneinfo", "meminfo", "memory_blocks", "lsmem", "config", "uname", "cmdline"]
)
@FEW
@given(number=st.integers(0, 50))
def test_line_ends_of_other_systems_change_nothing(name, number):
    target = TARGETS[name]
    seed = seed_of(target, number)
    if not seed.startswith(b"\x1f\x8b") and b"\r" not in seed:
        assert outcome(target, seed.replace(b"\n", b"\r\n")) == outcome(target, seed)


def outcome(target, data):
    try:
        return digest(target.run(data))
    except PtauditError as error:
        return str(error)


def test_the_kept_corpus_is_small():
    kept = [path for target in TARGETS.values() for path in target.kept()]
    assert kept
    assert sum(path.stat().st_size for path in kept) < 1_000_000
    assert len({(path.parent.name, zlib.crc32(path.read_bytes())) for path in kept}) == len(kept)
