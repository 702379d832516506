"""VMM-05: A vmemmap block holds struct pages of two hot-added sections."""

from __future__ import annotations

import pytest

from tests.rules.drawn import MIB
from tests.rules.replays import audited
from tests.rules.traces import BLOCKS, Tracer, played_trace, predicted


@pytest.mark.parametrize(
    ("kernel", "calls", "shared"),
    [
        ({}, [("+", 0, 128), ("+", 128, 128)], True),
        ({}, [("+", 0, 256)], False),
        ({}, [("+", 0, 128)], False),
        ({}, [("+", 64, 64), ("+", 128, 64)], False),  # in pages
        (BLOCKS, [("+", 0, 64), ("+", 64, 64)], False),  # of one section
        (BLOCKS, [("+", 0, 120), ("+", 120, 8), ("+", 128, 128), ("-", 128, 128)], False),  # the block is gone
    ],
)
def test_blocks_that_reach_over_the_edge_of_a_section(tmp_path, kernel, calls, shared):
    """struct page has 80 bytes: two sections fill two and a half blocks each."""
    titles = [title for title, _ in predicted(tmp_path, "VMM-05", played_trace(kernel | {"struct_page": 80}, calls))]
    assert titles == ["One PMD block maps struct pages of two sections"] * shared


def test_blocks_shared_by_sections_are_predicted(tmp_path):
    tracer = Tracer(struct_page=80)
    tracer.add(2 << 30, 128 * MIB)
    tracer.add((2 << 30) + 128 * MIB, 128 * MIB)
    (tmp_path / "trace").write_text(tracer.text)
    (finding,) = [one for one in audited(tmp_path / "trace").findings if one.rule.code == "VMM-05"]
    assert "80 bytes" in finding.hit.message
