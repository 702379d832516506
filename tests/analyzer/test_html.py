"""The HTML report: what stands on it, that hostile text stays text, and that it stays small."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analyzer.audit import audit
from analyzer.reports.html import render
from analyzer.reports.html.embedded import embedded
from analyzer.reports.html.memory_map import MemoryMap, Place
from analyzer.reports.html.strips import strips
from analyzer.sources.read import Request
from benchmarks.bench_host import BASE, LINEAR, NORMAL, STRUCTS, VMEMMAP, host, row
from parsers.layout import Fact, KernelLayout, Precision
from parsers.ranges import Ranges
from rules.facts import Facts
from rules.finding import Severity
from tests.analyzer.pages import DAMAGED, TRACE, Element, data_of, html_of, read
from tests.cases import CASES, case, case_file

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{7*7}}"
SECTION, STRUCT_PAGES = 1 << 27, 2 << 20
PAGES = NORMAL.replace("BLK", "   ")


@pytest.fixture(scope="module")
def damaged() -> Element:
    return read(html_of(DAMAGED, TRACE))


@pytest.fixture(scope="module")
def untraced() -> Element:
    return read(html_of(DAMAGED))


def capture(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def sections_of(data: dict[str, Any]) -> dict[int, list[int]]:
    """Each section with what it is, decoded as the page's script does."""
    found, at, flat = {}, 0, data["runs"]
    for gap, count, alike in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        first = at + gap
        at = first + count
        found |= dict.fromkeys(range(first, at), data["alike"][alike])
    return found


def look(data: dict[str, Any], window: int) -> tuple[str, str]:
    _, structs, _, linear, _ = data["windows"][window]
    return data["words"][structs], data["words"][linear]


def subsections(data: dict[str, Any], section: int) -> list[tuple[str, str]]:
    _, _, *runs = data["patterns"][sections_of(data)[section][5]]
    return [look(data, window) for count, window in zip(runs[::2], runs[1::2], strict=True) for _ in range(count)]


# What stands on the page.


def test_the_top_names_the_damaged_memory_and_what_did_it(damaged: Element) -> None:
    top = damaged.all("header")[0].text + damaged.all(id="incidents")[0].text
    assert "critical" in top
    assert "section 16, subsections 0–15, 32–63 of 64" in top
    assert "PFN 0x80000-0x82000, 0x84000-0x88000" in top
    assert "At 4.144591 ndctl-106 removed memory: arch_remove_memory of 0x82000000 (32 MiB)" in top
    assert "kernel 6.12.117" in top
    facts = [div.children for div in damaged.all("dl", **{"class": "facts"})[0].children]
    assert ("PHYS_OFFSET", "0x0") in [(name.text, value.text.split()[0]) for name, value in facts]


def test_the_torn_section_is_drawn_by_subsection(damaged: Element) -> None:
    data = data_of(damaged)
    torn = [("missing", "pmd")] * 16 + [("unmapped", "unmapped")] * 16 + [("missing", "pmd")] * 32
    assert subsections(data, 16) == torn
    group, state, origin, memory, _, _ = (data["words"][word] for word in [*sections_of(data)[16][:5], 0])
    assert (group, state, origin, memory) == ("no memory block", "no memory block", "hot-added", "device")
    assert [owner for _, _, owner in data["owners"]] == ["namespace0.0+dax0.0", "namespace0.2+dax0.2"]


def test_findings_lie_on_the_map(untraced: Element) -> None:
    data = data_of(untraced)
    assert data["marks"] == [["critical", 1, [16 * 64, 16, 16, 32]]]
    assert [button.attributes["data-mark"] for button in untraced.id("finders").all("button")] == ["0"]


def test_every_finding_is_written_out(damaged: Element) -> None:
    text = " ".join(damaged.id("findings").text.split())
    for word in ("VMM-02", "TRC-07", "claim", "where", "what", "cause", "seen", "why", "do", "d4234d131b0a"):
        assert word in text
    assert "rules/VMM-02/fires/iomem :12 namespace0.0+dax0.0: PFNs 0x80000-0x82000" in re.sub("(:12)", r" \1", text)
    assert len(damaged.id("findings").all(**{"class": "hit"})) == 4


def test_the_strips_share_one_axis(untraced: Element) -> None:
    pieces = data_of(untraced)["axis"]
    assert [piece[:2] for piece in pieces] == [[0, 1], [8, 10], [16, 17]]
    edges = [edge for piece in pieces for edge in piece[2:]]
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (0.0, 1000.0)
    missing = untraced.id("strips").all("path", **{"class": "f-missing"})
    assert len(re.findall("M", missing[0].attributes["d"])) == 2


def test_the_timeline_marks_the_damaging_operation(damaged: Element) -> None:
    (harm,) = damaged.id("timeline").all("tr", **{"class": "harm"})
    assert "vmemmap_free" in harm.text
    assert "took the struct pages of 0x80000-0x82000, 0x84000-0x88000 away" in harm.text
    assert len(damaged.id("timeline").all("path", **{"class": "v-critical"})) == 1


def test_without_a_trace_there_is_no_timeline(untraced: Element) -> None:
    assert not untraced.all(id="timeline")
    assert "not known from this evidence" in untraced.all(id="incidents")[0].text


def test_what_is_undecided_comes_with_commands_to_copy(untraced: Element) -> None:
    block = untraced.id("block").text
    assert untraced.all("button", id="copy")
    assert "cat /proc/zoneinfo > zoneinfo" in block
    assert "Why it is undecided" in untraced.id("undecided").text


def test_every_rule_has_its_outcome(untraced: Element) -> None:
    rows = untraced.id("rules").all("details")[0].all("tr")
    outcomes = {row.children[0].text: row.children[1].text for row in rows[1:]}
    assert outcomes["VMM-02"] == "fired"
    assert "passed" in outcomes.values()
    assert "undecided" in outcomes.values()


def test_without_a_section_table_the_page_says_why_there_is_no_map() -> None:
    page = read(html_of(case_file("VMM-02/undecided-no-iomem", "kernel_page_tables")))
    assert not page.all(id="data")
    assert "was not collected" in page.id("map").text
    assert "/proc/iomem" in page.id("map").text


def test_nothing_found_is_not_the_same_as_nothing_wrong(tmp_path: Path) -> None:
    quiet = case("VMM-02/quiet")
    page = read(html_of(quiet))
    assert page.all("h1")[0].text.strip().startswith("clean Nothing found by ")
    assert "not the same as nothing being wrong" in page.all("header")[0].text


def test_a_section_table_without_tables_is_drawn_as_not_known(tmp_path: Path) -> None:
    for name in ("iomem", "memory_blocks", "uname"):
        shutil.copy(DAMAGED / name, tmp_path)
    (tmp_path / "config").write_text("CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_VA_BITS=48\n")
    data = data_of(read(html_of(tmp_path)))
    assert set(subsections(data, 8)) == {("unknown", "unknown")}


def test_without_any_table_the_sections_of_findings_are_drawn() -> None:
    known = {"page_size": 4096, "section_size_bits": 27}
    layout = KernelLayout({key: Fact(value, "the log", Precision.EXACT) for key, value in known.items()})
    place = Place(Severity.CRITICAL, Ranges.one(0x84000, 0x84001))
    drawn = MemoryMap.of(Facts({KernelLayout: layout}), [place])
    assert drawn is not None
    data = embedded(drawn, strips(drawn).axis)
    assert set(sections_of(data)) == {16}
    assert set(subsections(data, 16)) == {("unknown", "unknown")}
    assert data["marks"] == [["critical", 1, [16 * 64 + 32, 1]]]
    assert MemoryMap.of(Facts({KernelLayout: layout}), []) is None


@pytest.mark.parametrize("name", [one for one in CASES if one.endswith("/fires")])
def test_every_rule_can_be_reported(name: str) -> None:
    report = audit(Request((case(name),)))
    page = read(render(report))
    assert [one.text for one in page.id("findings").all("b")] == [one.rule.code for one in report.findings]


# The file by itself.


def test_nothing_is_loaded_and_only_our_script_and_style_may_run(damaged: Element) -> None:
    (policy,) = [meta.attributes["content"] for meta in damaged.all("meta") if "http-equiv" in meta.attributes]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        (element,) = [one for one in damaged.all(name) if "type" not in one.attributes]
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    for element in damaged.all():
        assert not {"src", "style", "srcset", "action"} & element.attributes.keys(), element.name
        assert not [name for name in element.attributes if name.startswith("on")]
        href = element.attributes.get("href", "#")
        assert href.startswith("#") or href == "data:,"


def test_ids_are_unique_and_links_lead_somewhere(damaged: Element) -> None:
    ids = [element.attributes["id"] for element in damaged.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = {link.attributes["href"][1:] for link in damaged.all("a")}
    assert links <= set(ids)
    for element in damaged.all():
        for name in ("aria-labelledby", "aria-controls"):
            assert element.attributes.get(name, ids[0]) in ids


def test_every_pattern_that_is_used_is_there(damaged: Element) -> None:
    style = damaged.all("style")[0].text
    patterns = {element.attributes["id"] for element in damaged.all("pattern")}
    assert set(re.findall(r"url\(#([\w-]+)\)", style)) == patterns
    for element in damaged.all():
        for name in element.attributes.get("class", "").split():
            if name.startswith(("f-", "v-", "a-", "c-", "t-")):
                assert re.search(rf"\.{name}\b", style), name


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from tests.analyzer.pages import html_of
        sys.stdout.buffer.write(html_of(*map(Path, sys.argv[1:])).encode())
    """
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(DAMAGED), str(TRACE)],
            capture_output=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) > 50_000


def test_other_formats_do_not_pay_for_templates() -> None:
    code = "import sys, analyzer.audit_command, analyzer.reports.text; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


# Hostile text.


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Element:
    """The damaged capture with markup as the name of a device, of a task and of a zone."""
    folder = tmp_path_factory.mktemp("attacked") / "capture"
    shutil.copytree(DAMAGED, folder)
    for name, old in (("iomem", "namespace0.0"), ("memory_blocks", "state:online")):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, old.replace("namespace0.0", HOSTILE) + f" {HOSTILE}"))
    (folder / "trace").write_text(TRACE.read_text().replace("ndctl-106", "<script>-106"))
    return read(html_of(folder))


def test_markup_in_captured_text_makes_no_element(attacked: Element, damaged: Element) -> None:
    assert [one.attributes.get("type") for one in attacked.all("script")] == ["application/json", None]
    assert not attacked.all("img")
    assert {one.name for one in attacked.all()} <= {one.name for one in damaged.all()} | {"p", "h4"}


def test_hostile_names_are_shown_as_they_are(attacked: Element) -> None:
    data = data_of(attacked)
    assert any(HOSTILE in owner for _, _, owner in data["owners"])
    assert any(HOSTILE in word for word in data["words"])
    assert HOSTILE in attacked.id("findings").text
    assert "<script>-106" in attacked.id("timeline").text


def test_control_characters_become_visible(tmp_path: Path) -> None:
    folder = tmp_path / "capture"
    shutil.copytree(DAMAGED, folder)
    iomem = (folder / "iomem").read_text()
    (folder / "iomem").write_text(iomem.replace("namespace0.0", "name\x07\u202espace"))
    html = html_of(folder)
    assert "\x07" not in html
    assert "\u202e" not in html
    assert "name\\x07\\x202espace" in read(html).id("findings").text


# Large hosts.


def alternating(sections: int) -> dict[str, str]:
    """A host on which no section is like its neighbour, one in 512 is torn, and none has an even linear map."""
    linear, vmemmap, blocks, nodes = [], [], ["block_size_bytes:8000000\n"], []
    for number in range(sections):
        base, start = VMEMMAP + number * STRUCT_PAGES, LINEAR + number * SECTION
        cut = start + (1 + number % 62 << 21)
        linear += [row(start, cut, "PTE", PAGES), row(cut, start + SECTION, "PMD", NORMAL)]
        if number % 512 == 0:
            cut = base + (1 + number // 512 % 62) * STRUCT_PAGES // 64
            vmemmap += [row(base, cut, "PTE", BASE), row(cut, base + STRUCT_PAGES, "PTE")]
        else:
            level, attributes = ("PMD", STRUCTS) if number % 2 else ("PTE", BASE)
            vmemmap.append(row(base, base + STRUCT_PAGES, level, attributes))
        blocks.append(f"memory{number}/state:online\n")
        nodes.append(f"memory{number}/:\nx 1 0 0 0 Jan 1 00:00 node{number % 4} -> ../../node/node{number % 4}\n")
    total = sections * SECTION
    texts = host(1)
    head = "---[ Linear Mapping start ]---\n" + "".join(linear)
    tail = texts["kernel_page_tables"]
    middle = tail[tail.index("---[ Linear Mapping end ]---") : tail.index("---[ vmemmap start ]---\n") + 24]
    rest = row(VMEMMAP + sections * STRUCT_PAGES, 0xFFFFFFFFC0000000, "PGD")
    head += row(LINEAR + total, 0xFFFF800000000000, "PGD")
    return texts | {
        "kernel_page_tables": head + middle + "".join(vmemmap) + rest + "---[ vmemmap end ]---\n",
        "iomem": f"{0:08x}-{total - 1:08x} : System RAM\n",
        "memory_blocks": "".join(blocks),
        "memory_nodes": "".join(nodes),
    }


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return html_of(capture(tmp_path_factory.mktemp("huge") / "host", **alternating(131_072)))


def test_a_host_of_131072_sections_fits_into_a_few_megabytes(huge: str) -> None:
    assert len(huge.encode()) < 4_000_000
    assert len(sections_of(data_of(read(huge)))) == 131_072


def test_rows_fold_every_section_once(huge: str) -> None:
    data = data_of(read(huge))
    assert not data["open"]
    assert len(data["rows"]) <= 300
    kinds = sections_of(data)
    seen = 0
    for group, first, last, count, _ in data["rows"]:
        inside = [number for number in range(first, last + 1) if kinds[number][0] == group]
        assert (inside[0], inside[-1], len(inside)) == (first, last, count)
        seen += count
    assert seen == 131_072


def test_all_damage_is_on_the_map_even_where_it_is_not_written_out(huge: str) -> None:
    page = read(huge)
    drawn = 0
    for _, _, gaps in data_of(page)["marks"]:
        drawn += len(gaps) // 2
    assert drawn > 0
    assert len(page.id("findings").all(**{"class": "hit"})) <= 300
    assert re.search(r"\d+ more of VMM-02", page.id("findings").text)


def test_alike_neighbours_are_one_row(tmp_path: Path) -> None:
    texts = alternating(4)
    total = 1 << 43
    texts["iomem"] = f"{0:08x}-{total - 1:08x} : System RAM\n"
    texts["memory_blocks"] = "block_size_bytes:8000000\n"
    data = data_of(read(html_of(capture(tmp_path / "host", **texts))))
    assert len(sections_of(data)) == 65_536
    assert max(count for _, _, _, count, _ in data["rows"]) > 60_000


# Colours.


def themes(style: str) -> list[dict[str, str]]:
    light, dark = re.findall(r":root\{\n(.*?)\}", style, re.DOTALL)[:2]
    return [dict(re.findall(r"--([\w]+):(#[0-9a-f]{3,6})", theme)) for theme in (light, dark)]


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(untraced: Element, theme: int) -> None:
    colours = themes(untraced.all("style")[0].text)[theme]
    pairs = [("fg", "bg"), ("fg", "panel"), ("dim", "bg"), ("dim", "panel"), ("link", "bg")]
    pairs += [("on", severity) for severity in ("critical", "high", "medium", "low", "info")]
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_levels_differ_in_brightness(untraced: Element, theme: int) -> None:
    colours = themes(untraced.all("style")[0].text)[theme]
    order = [luminance(colours[name]) for name in ("pte", "pmd", "pud")]
    assert order == sorted(order, reverse=not theme)
    for one, other in (("pte", "pmd"), ("pmd", "pud")):
        assert contrast(colours[one], colours[other]) >= 1.5
