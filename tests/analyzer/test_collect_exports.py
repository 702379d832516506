"""The collector without packages finds variables that have no symbol where an audit of its core finds them."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.collect.without_packages.exports import Exports
from analyzer.collect.without_packages.small_core import SmallCore
from parsers.vmcore.exports import find_exports
from tests.parsers.vmcore.conftest import raw_after  # noqa: F401
from tests.parsers.vmcore.cores import MASK
from tests.parsers.vmcore.test_exports import PAGE_TABLES, PIECE, START, VARIABLE, Image, entry, hidden, text  # noqa: F401

NAMES = 0x85_0FFC


class Read(Exports):
    """An image whose pages are there, as SmallCore has read it."""

    def __init__(self, image: Image) -> None:
        self.image_read, self.symbols, self.kept = image, {}, {}
        self.image, self.swapper, self.page = (START, PAGE_TABLES + (16 << 20)), PAGE_TABLES, 4096
        self.memory = self

    def physical(self, va: int) -> int:
        return int(self.image_read.addresses.physical(np.array([va], np.uint64))[0][0])

    def units(self, first: int, count: int) -> bytes:
        units = np.arange(first, first + count, dtype=np.uint64)
        return self.image_read.memory.unrecorded.read_units(units)[0].tobytes()

    def read(self, va: int, size: int, keep: bool = True) -> bytes:
        assert keep
        return self.image_read.read(va, size)


@pytest.mark.parametrize(
    "items",
    [
        [entry(0x80_0FFC, VARIABLE, NAMES), text(NAMES, "node_data")],
        [entry(PIECE - 4, VARIABLE, PIECE + 4096 - 3), text(PIECE + 4096 - 3, "kernel_kobj")],
        [entry((1 << 20) - 4, VARIABLE, (1 << 20) - 5 - 4096), text((1 << 20) - 5 - 4096, "iomem_resource")],
        [entry(0x80_0000, VARIABLE, NAMES), entry(0x80_0100, VARIABLE + 64, NAMES), text(NAMES, "node_data")],
        [entry(0x80_0000, 0x1000, NAMES), text(NAMES, "node_data")],
        [],
    ],
    ids=["across pages", "a piece", "a smaller piece", "ambiguous", "in the text", "none"],
)
def test_both_find_the_same_and_keep_the_same_pages(items) -> None:
    ours, theirs = Image(*items), Image(*items)
    core = Read(theirs)
    core.read_exports()
    assert core.symbols == find_exports(ours)
    assert theirs.memory.units.tolist() == ours.memory.units.tolist()


def test_symbols_that_are_known_are_not_searched_for() -> None:
    core = Read(Image())
    core.symbols = {"iomem_resource": 1}
    core.memory = None  # type: ignore[assignment]
    core.read_exports()
    assert core.symbols == {"iomem_resource": 1}


def test_the_kobjects_of_a_directory_are_those_that_an_audit_finds(hidden) -> None:  # noqa: F811
    from parsers.vmcore.kernfs import kobjects_in  # noqa: PLC0415

    dump, _, slide = hidden

    class OfDump(SmallCore):
        def __init__(self) -> None:
            self.types, self.values, self.symbols = dump.structures, {}, {"kernel_kobj": dump.symbol("kernel_kobj")}

        def member(self, name: str, path: str) -> tuple[int, int, int]:
            found = dump.member(name, path)
            return found.offset, found.size or 8, found.count or 0

        def read(self, va: int, size: int, keep: bool = True) -> bytes:
            assert keep
            return dump.memory.read(va + slide & MASK, size)

    core = OfDump()
    core.page = 4096
    found = core.kobjects_in(b"devices", b"system", b"memory")
    assert sorted(found) == sorted(kobjects_in(dump, "devices", "system", "memory").tolist())
    with pytest.raises(Exception, match="no directory nodes"):
        core.kobjects_in(b"devices", b"nodes")
