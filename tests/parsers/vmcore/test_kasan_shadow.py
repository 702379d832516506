"""KASAN's shadow lies in the upper part of what would be the linear map: it is found with symbols and without."""

import pytest

from parsers.vmcore.dump import Dump
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore.conftest import FIXTURES

SCALES = {"hvo-7.3-kasan-allocated": 3, "dimm-7.3-software-tags": 4}
CORES = sorted(path.name.removesuffix(".core.zst") for path in FIXTURES.glob("*.core.zst"))


@pytest.mark.parametrize("core", CORES)
def test_top_table_shows_the_shadow_that_symbols_name(core, monkeypatch):
    raw = open_dump(FIXTURES / f"{core}.core.zst")
    named = Dump(raw).addresses
    monkeypatch.setattr(Dump, "symbol", lambda _self, _name: None)
    found = Dump(raw).addresses
    end = 0xFFFF800000000000
    assert found.linear_end == named.linear_end == (end - (1 << (48 - SCALES[core])) if core in SCALES else end)
