"""The samples of input in the docstrings of the parsers are read as they say."""

import doctest
import importlib
from pathlib import Path

import pytest

PARSERS = Path(__file__).parents[2] / "parsers"
MODULES = sorted(
    ".".join(path.relative_to(PARSERS.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PARSERS.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_sample_is_true(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def test_there_are_samples():
    assert "parsers.iomem" in MODULES
