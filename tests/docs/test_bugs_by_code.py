"""The table of bugs by code is made of the recorded kernels, and no verdict in it is wrong."""

from __future__ import annotations

from pathlib import Path

from tests.docs.bugs_by_code import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "bugs-by-code.md"


def test_the_table_is_fresh() -> None:
    assert PAGE.read_text() == page(), "python -m tests.docs.bugs_by_code > docs/reference/bugs-by-code.md"


def test_no_verdict_is_wrong() -> None:
    assert ", 0 do not," in PAGE.read_text()
