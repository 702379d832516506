"""The HTML report in a browser: clicks, keys, both colour schemes, paper, a narrow screen, a large host."""

from __future__ import annotations

import base64
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.analyzer.pages import DAMAGED, TRACE, html_of
from tests.analyzer.test_html import HOSTILE, alternating, capture

By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

Visit = Callable[..., Any]
EDGE_TO_EDGE = "return document.documentElement.scrollWidth <= innerWidth"


def all_of(page: Any, selector: str) -> list[Any]:
    return list(page.find_elements(By.CSS_SELECTOR, selector))


def one(page: Any, selector: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, selector)


def press(page: Any, *keys: str) -> Any:
    for key in keys:
        page.switch_to.active_element.send_keys(key)
    return page.switch_to.active_element


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("huge")
    path = folder / "huge.html"
    path.write_text(html_of(capture(folder / "host", **alternating(131_072))), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_damage_is_in_sight_when_the_page_opens(visit: Visit, damaged: Path, dark: bool) -> None:
    page = visit(damaged, dark=dark)
    for selector in ("h1", "#strips svg", ".cell[data-section='16']", ".panel h4"):
        box = one(page, selector).rect
        assert box["height"] > 0
        assert box["y"] + box["height"] <= 900, selector
    assert "ndctl-106" in one(page, "header").text
    ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 64) is dark


def test_nothing_is_fetched(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_a_click_opens_a_section_and_closes_it(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    cell = one(page, ".cell[data-section='9']")
    cell.click()
    panel = one(page, ".panel").text
    assert cell.get_attribute("aria-expanded") == "true"
    for text in ("Section 9", "0x48000–0x50000", "0xffff000048000000–0xffff000050000000", "memory9, online"):
        assert text in panel
    assert len(all_of(page, ".panel")) == 1
    cell.click()
    assert not all_of(page, ".panel")


def test_the_keyboard_reaches_every_cell(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    one(page, ".cell[data-section='0']").send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.get_attribute("data-section") == "8"
    assert press(page, Keys.END).get_attribute("data-section") == "9"
    assert press(page, Keys.HOME).get_attribute("data-section") == "0"
    press(page, Keys.ARROW_RIGHT, Keys.ENTER)
    assert "Section 8" in one(page, ".panel").text
    assert press(page, Keys.ESCAPE).get_attribute("data-section") == "8"
    assert not all_of(page, ".panel")
    press(page, Keys.SPACE)
    assert "Section 8" in one(page, ".panel").text


def test_the_tab_key_passes_each_grid_once_and_focus_can_be_seen(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    seen = []
    page.execute_script("document.querySelector('nav a').focus()")
    while (at := press(page, Keys.TAB)).tag_name != "body":
        style = "const s = getComputedStyle(arguments[0]); return s.outlineStyle + s.outlineWidth"
        assert page.execute_script(style, at) == "solid3px"
        seen.append(at.get_attribute("data-section") or at.get_attribute("data-mark") or at.tag_name)
    assert seen[seen.index("0") :][:5] == ["0", "1", "2", "0", "16"]
    assert not {"8", "9"} & set(seen)
    assert seen[-1] == "summary"


def test_a_subsection_gives_its_addresses(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    subs = all_of(page, ".sub")
    assert len(subs) == 64
    subs[0].click()
    text = one(page, ".one").text
    for word in ("Subsection 0", "PFN 0x80000–0x80200", "0xfffffdffc2000000", "missing", "namespace0.0", "VMM-02"):
        assert word in text
    press(page, Keys.ARROW_RIGHT, Keys.ENTER)
    assert "PFN 0x80200–0x80400" in one(page, ".one").text
    press(page, Keys.ARROW_DOWN, Keys.ENTER)
    assert "Subsection 33" in one(page, ".one").text


def test_a_finding_lights_up_its_memory(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    button = next(found for found in all_of(page, "#finders button") if "VMM-02" in found.text)
    assert button.get_attribute("aria-pressed") == "true"  # the worst one is lit as the page opens
    button.click()
    assert not all_of(page, ".lit")
    assert not all_of(page, "#strips-light path")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert [cell.get_attribute("data-section") for cell in all_of(page, ".cell.lit")] == ["16"]
    assert len(all_of(page, ".sub.lit")) == 48
    assert one(page, "#strips-light path").get_attribute("d").count("M") == 2


def test_a_finding_leads_to_the_map_and_back(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    show = next(hit.find_element(By.CSS_SELECTOR, ".show") for hit in all_of(page, ".hit") if "VMM-02" in hit.text)
    one(page, ".panel h4 button").click()
    show.click()
    assert page.switch_to.active_element.get_attribute("data-section") == "16"
    link = next(found for found in all_of(page, ".panel dd a") if found.text == "VMM-02")
    link.click()
    assert page.current_url.endswith(link.get_attribute("href").split("/")[-1])
    assert "VMM-02" in one(page, ".hit:target").text


def test_the_commands_can_be_copied(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    page.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    one(page, "#copy").click()
    time.sleep(0.3)
    assert one(page, "#said").text == "Copied"
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert page.execute_async_script(read) == one(page, "#block").get_attribute("textContent")


def test_on_paper_everything_is_open(visit: Visit, damaged: Path) -> None:
    page = visit(damaged)
    count = "seen = document.querySelectorAll('details:not([open])').length"
    before = f"window.seen = -1; addEventListener('beforeprint', () => {{ {count} }})"
    page.execute_script(before)
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3
    assert page.execute_script("return seen") == 0
    assert all_of(page, "details:not([open])")


def test_a_narrow_screen_does_not_scroll_sideways(visit: Visit, damaged: Path) -> None:
    page = visit(damaged, width=360)
    assert page.execute_script(EDGE_TO_EDGE)


def test_without_scripts_the_strips_the_table_and_the_findings_remain(visit: Visit, damaged: Path) -> None:
    page = visit(damaged, scripts=False)
    assert "does not run" in one(page, "#map").text
    assert all_of(page, "#strips path.f-missing")
    one(page, "#map-table summary").click()
    assert "namespace" in one(page, "#findings").text
    assert "0x80000-0x88000" in one(page, "#map-table").text


def test_hostile_names_do_nothing(visit: Visit, tmp_path: Path) -> None:
    shutil.copytree(DAMAGED, tmp_path / "capture")
    iomem = tmp_path / "capture/iomem"
    iomem.write_text(iomem.read_text().replace("namespace0.0", HOSTILE))
    (tmp_path / "capture/trace").write_text(TRACE.read_text().replace("ndctl-106", "<script>-106"))
    path = tmp_path / "page.html"
    path.write_text(html_of(tmp_path / "capture"), encoding="utf-8")
    page = visit(path)
    all_of(page, ".sub")[0].click()
    assert HOSTILE in one(page, ".one").text
    assert HOSTILE in one(page, ".panel dl").text
    assert not all_of(page, "img")
    assert len(all_of(page, "script")) == 2


def test_a_large_host_opens_and_answers_at_once(visit: Visit, huge: Path) -> None:
    begin = time.monotonic()
    page = visit(huge)
    assert time.monotonic() - begin < 10
    assert not all_of(page, ".cell")
    rows = all_of(page, ".fold")
    assert 4 <= len(rows) <= 300
    begin = time.monotonic()
    rows[0].click()
    assert 0 < len(all_of(page, ".cell")) <= 2048
    assert time.monotonic() - begin < 5
    rows[0].click()
    assert not all_of(page, ".cell")


def test_a_finding_on_a_large_host_opens_its_row(visit: Visit, huge: Path) -> None:
    page = visit(huge)
    button = all_of(page, "#finders button")[3]
    button.click()
    section = re.search(r"section (\d+)", button.text)
    assert section
    lit = all_of(page, ".cell.lit")
    assert [cell.get_attribute("data-section") for cell in lit] == [section[1]]
    assert lit[0].is_displayed()
    lit[0].click()
    assert f"Section {section[1]}" in one(page, ".panel").text
    assert one(page, ".fold.lit").get_attribute("aria-expanded") == "true"
