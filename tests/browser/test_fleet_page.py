"""The fleet's page in a browser: filtered and sorted from the keyboard, in light and dark, on a narrow screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analyzer.fleet.local import Limits
from analyzer.fleet.run import run_fleet
from analyzer.fleet.summary import as_html, summarize
from tests.analyzer.conftest import CAPTURES

Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("fleet")
    run_fleet([str(CAPTURES / "pmem-6.12-vuln"), str(CAPTURES / "dimm-6.12")], results, jobs=2, limits=Limits())
    path = results / "summary.html"
    path.write_text(as_html(results, summarize(results)), encoding="utf-8")
    return path


def column(browser: Any, table: str, number: int) -> list[str]:
    """What a column shows, rows that are filtered away left out."""
    return browser.execute_script(
        "return [...document.querySelector(`table[aria-label='${arguments[0]}']`).tBodies[0].rows]"
        ".filter(row => !row.hidden).map(row => row.cells[arguments[1]].textContent)",
        table,
        number,
    )


def test_a_heading_sorts_by_keyboard_and_says_so(visit: Visit, page: Path) -> None:
    browser = visit(page)
    before = column(browser, "All bundles", 0)
    button = browser.find_element("css selector", "table[aria-label='All bundles'] th button")
    assert browser.execute_script("arguments[0].focus(); return document.activeElement === arguments[0]", button)
    button.send_keys("\ue007")
    assert column(browser, "All bundles", 0) == sorted(before)
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    button.send_keys(" ")
    assert column(browser, "All bundles", 0) == sorted(before, reverse=True)


def test_typing_filters_every_table(visit: Visit, page: Path) -> None:
    browser = visit(page)
    browser.find_element("id", "filter").send_keys("02-one")
    assert column(browser, "All bundles", 0) == ["02-one-removed"]
    assert column(browser, "Damaged now", 0) == ["02-one-removed"]


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(visit: Visit, page: Path, dark: bool) -> None:
    browser = visit(page, dark=dark)
    background, text = browser.execute_script(
        "const style = getComputedStyle(document.body);"
        "return [style.backgroundColor, style.color].map(colour => Number(colour.match(/\\d+/)[0]))"
    )
    assert (background < text) is dark
    assert abs(background - text) > 180


def test_a_narrow_screen_shows_it_all(visit: Visit, page: Path) -> None:
    browser = visit(page, width=420)
    assert browser.execute_script("return document.documentElement.scrollWidth <= 420")


def test_without_scripts_everything_is_there(visit: Visit, page: Path) -> None:
    browser = visit(page, scripts=False)
    assert "One unplug from an oops" in browser.find_element("tag name", "body").text
