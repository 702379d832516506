"""The samples of input in the docstrings of the small parsers are read as they say."""

import doctest
import importlib

import pytest

MODULES = [
    "boot_id",
    "cmdline",
    "hugepages",
    "iomem",
    "kconfig",
    "lsmem",
    "memory_blocks",
    "meminfo",
    "uname",
    "vmcoreinfo",
    "zoneinfo",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_sample_is_true(name):
    results = doctest.testmod(importlib.import_module(f"parsers.{name}"))
    assert results.attempted > 0
    assert results.failed == 0
