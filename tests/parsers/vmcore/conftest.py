"""The small cores, opened once a session."""

from pathlib import Path

import pytest

from parsers.vmcore.extract import extract
from parsers.vmcore.opening import open_dump

FIXTURES = Path(__file__).parents[3] / "fixtures" / "vmcore"
BEFORE = FIXTURES / "pmem-6.12-vuln-before.core.zst"
AFTER = FIXTURES / "pmem-6.12-vuln-after.core.zst"
SELF_HOSTED = FIXTURES / "dimm-6.12-memmap-on-memory-online.core.zst"


@pytest.fixture(scope="session")
def after():
    return extract(AFTER)


@pytest.fixture(scope="session")
def before():
    return extract(BEFORE)


@pytest.fixture(scope="session")
def self_hosted():
    return extract(SELF_HOSTED)


@pytest.fixture(scope="session")
def raw_after():
    return open_dump(AFTER)
