"""Large texts take little memory: page-table dumps are read piece by piece, unless they may hold other evidence."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from pathlib import Path

import pytest

from analyzer.sources.budget import Bounds, Budget
from analyzer.sources.found import Found
from analyzer.sources.in_pieces import in_pieces
from analyzer.sources.read import Request, read_sources
from parsers.errors import InputError
from parsers.kinds import KINDS
from parsers.parts import parts_of
from tests.analyzer.test_given import OOPS
from tests.parsers.test_ptdump import BASE, PAGE, row, text

ROWS = text(*(row(BASE + number * PAGE, PAGE) for number in range(60_000)))


def read(*paths: Path) -> tuple[dict[str, str], int]:
    """Kinds of what was read with their hashes, and the peak of memory meanwhile."""
    tracemalloc.start()
    try:
        sources = read_sources(Request(paths)).sources
        return {one.kind: one.sha256 for one in sources}, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("given", ["kernel_page_tables", "of-some-name", "kernel_page_tables.gz", "."])
def test_a_large_dump_is_read_in_little_memory(tmp_path: Path, given: str) -> None:
    name = "kernel_page_tables" if given == "." else given
    (tmp_path / name).write_bytes(gzip.compress(ROWS, 1) if given.endswith(".gz") else ROWS)
    kinds, peak = read(tmp_path / given)
    assert kinds["ptdump"] == hashlib.sha256(ROWS).hexdigest()
    # What was compressed is in memory, and room for the most rows that there may be, 0.7 of the text.
    assert peak < (3 if given.endswith(".gz") else 2) * len(ROWS)


@pytest.mark.parametrize("compressed", [False, True])
def test_other_evidence_in_a_large_dump_is_found(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("text.gz" if compressed else "text")
    data = ROWS + b"\n" + OOPS
    path.write_bytes(gzip.compress(data, 1) if compressed else data)
    kinds, _ = read(path)
    assert {"ptdump", "dmesg"} <= set(kinds)
    assert kinds["ptdump"] == hashlib.sha256(data).hexdigest()


def test_what_is_too_much_to_read_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "kernel_page_tables"
    path.write_bytes(ROWS)
    with pytest.raises(InputError, match="more than the 1 MiB that one audit goes through"):
        in_pieces(KINDS["ptdump"], Found(path.name, path), Budget(Bounds(passed_bytes=1 << 20)))


def test_the_same_dump_under_two_names_is_read_once(tmp_path: Path) -> None:
    paths = (tmp_path / "one", tmp_path / "two")
    for path in paths:
        path.write_bytes(ROWS)
    found = read_sources(Request(paths))
    assert [one.kind for one in found.sources] == ["ptdump"]
    assert [(one.path, one.reason) for one in found.unread] == [(str(paths[1]), f"the same content as {paths[0]}")]


def test_many_rows_are_searched_for_other_evidence_in_little_memory() -> None:
    log = b"".join(b"[%5d.000000] usb 1-1: new high-speed USB device\n" % number for number in range(50_000))
    tracemalloc.start()
    try:
        assert parts_of(log) == ()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(log)
