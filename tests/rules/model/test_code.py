"""Bugs by code: never against the changelogs, and each signature separates kernels that have and lack the fix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from parsers.image.code import CALLED, FUNCTIONS, Function
from rules.model.bugs import KNOWN_BUGS
from rules.model.code import SIGNATURES, shown_by_code
from tests.recorded_kernels import Recorded, bug, recorded


@pytest.mark.parametrize("kernel", recorded(), ids=lambda one: one.name)
def test_no_verdict_contradicts_the_changelogs(kernel: Recorded) -> None:
    for key in SIGNATURES:
        shown, truth = shown_by_code(key, kernel.code), kernel.truth(bug(key))
        assert shown is None or not truth or shown.state == truth, key


@pytest.mark.parametrize("key", SIGNATURES)
def test_a_signature_separates_kernels_with_and_without_the_fix(key: str) -> None:
    proven = {
        shown.state
        for kernel in recorded()
        if kernel.truth(bug(key)) and (shown := shown_by_code(key, kernel.code)) is not None
    }
    assert proven == {"fixed", "present"}


def test_debian_binaries_of_every_flavour_are_recorded() -> None:
    names = " ".join(one.name for one in recorded())
    for wanted in ("5.10.0-32", "6.1.0-56-arm64", "6.1.0-56-rt", "6.12.113+deb13-arm64-16k", "6.12.113+deb13-cloud"):
        assert wanted in names
    assert "7.3.4+deb13-arm64-16k" in names
    assert len(recorded()) >= 49


def test_signatures_are_of_known_bugs_and_read_recorded_functions() -> None:
    assert set(SIGNATURES) <= {one.key for one in KNOWN_BUGS}
    for kernel in recorded():
        assert set(kernel.code.functions) <= set(FUNCTIONS)
        assert set(kernel.code.addresses) <= set(CALLED)


@pytest.mark.parametrize("key", SIGNATURES)
def test_code_that_is_not_in_the_source_shows_nothing(key: str) -> None:
    for kernel in recorded():
        blind = replace(kernel.code, functions=dict.fromkeys(FUNCTIONS, ()), unread=frozenset(FUNCTIONS))
        assert shown_by_code(key, blind) is None


@pytest.mark.parametrize("key", SIGNATURES)
def test_code_of_another_shape_shows_nothing_wrong(key: str) -> None:
    """Functions that are emptied: whatever is said rests on what is there, not on what was expected."""
    for kernel in recorded():
        emptied = {
            name: tuple(Function(one.name, one.start, np.full(one.words.size, 0xD503201F, np.uint32)) for one in found)
            for name, found in kernel.code.functions.items()
        }
        shown = shown_by_code(key, replace(kernel.code, functions=emptied))
        if shown is not None and key not in {"leaf-straddle", "dax-dedup", "ptdump-hotremove"}:
            pytest.fail(f"{kernel.name}: {shown}")


def test_unknown_keys_show_nothing() -> None:
    assert shown_by_code("nothing", recorded()[0].code) is None
