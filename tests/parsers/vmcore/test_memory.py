"""Reading an ELF core in bulk gives, page by page, what its segments say."""

import random
import tempfile

import numpy as np
import pytest

from parsers.vmcore.memory import UNIT, ElfMemory, Segment

PAGES = 60


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(1).integers(0, 256, (PAGES, UNIT), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(content):
    with tempfile.TemporaryFile() as file:
        file.write(content.tobytes())
        file.flush()
        yield file


def made(chance):
    """Segments, some next to each other, some beyond the end of the file; and the page of the file by unit."""
    segments, pages, unit = [], {}, chance.randrange(4)
    for _ in range(chance.randrange(6)):
        count, page = chance.randrange(1, 9), chance.randrange(PAGES + 2)
        segments.append(Segment(unit * UNIT, page * UNIT, count * UNIT))
        pages |= {unit + number: page + number for number in range(count) if page + number < PAGES}
        unit += count + chance.choice([0, 0, 1, 3])
    return segments, pages


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("page_size", [UNIT, 4 * UNIT])
def test_pages_are_those_of_the_segments(seed, page_size, file, content):
    chance = random.Random(seed)
    segments, pages = made(chance)
    memory, per_page = ElfMemory(file.fileno(), segments), page_size // UNIT
    wanted = list(range(12)) if seed % 2 else [chance.randrange(12) for _ in range(30)]
    pas = np.array(wanted, np.uint64) * np.uint64(page_size)
    units = [[number * per_page + part for part in range(per_page)] for number in wanted]
    zeros = np.zeros(UNIT, np.uint8)
    expected = np.array([[content[pages[unit]] if unit in pages else zeros for unit in page] for page in units])
    expected = expected.reshape(-1, page_size)
    held = [all(unit in pages for unit in page) for page in units]
    data, present = memory.read_pages(pas, page_size)
    np.testing.assert_array_equal(data, expected)
    assert present.tolist() == held
    at = 0
    for piece, some, there in memory.scan(pas, np.empty((chance.randrange(1, 8), page_size), np.uint8)):
        assert piece.start == at
        at = piece.stop
        np.testing.assert_array_equal(some, expected[piece])
        assert there.tolist() == held[piece]
    assert at == pas.size
