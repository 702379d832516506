"""The documentation is complete, its commands print what it shows, and what is generated is fresh."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from analyzer.catalogue.rule_page import rule_parts
from analyzer.cli import COMMANDS
from analyzer.sources.read import Request, read_sources
from rules.engine import Outcome, builtin_rules, run
from rules.facts import with_how_to_collect
from rules.model.bugs import KNOWN_BUGS
from rules.model.captured import build_facts
from rules.rule import SECTIONS
from tests.analyzer.conftest import CAPTURES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITTEN = sorted(path for path in DOCS.rglob("*.md") if "generate" not in path.parts)
RULES = builtin_rules()
REPORT = ROOT / "analyzer" / "reports" / "report.schema.json"


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    from pages import generated_pages

    return generated_pages()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_has_a_page_with_something_to_read(ptaudit, rule) -> None:
    for heading in SECTIONS:
        assert rule.pages[heading].endswith((".", ")", ":")), heading
    assert len(" ".join(rule.pages.values()).split()) >= 30
    assert rule.references, "where the fact comes from"


def test_every_rule_is_in_the_site_and_in_its_index(generated) -> None:
    for rule in RULES:
        assert f"# {rule.code} {rule.name}" in generated[f"rules/{rule.code}.md"]
        assert generated["rules/index.md"].count(f"[{rule.code}]({rule.code}.md)") == 1


def test_explain_prints_what_the_page_says(ptaudit, generated) -> None:
    def words(text: str) -> list[str]:
        return re.sub(r"[#*-]", " ", text.replace("\\", "")).split()

    for code in ("VMM-02", "CNT-05", "OOP-01"):
        rule = next(rule for rule in RULES if rule.code == code)
        told, page = words(ptaudit("explain", code).out), words(generated[f"rules/{code}.md"])
        for part in rule_parts(rule):
            expected = words(" ".join([part.heading, part.text, *part.items]))
            for text in (told, page):
                assert any(text[at : at + len(expected)] == expected for at in range(len(text))), part.heading


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_evidence_has_a_persons_name_on_the_page_of_a_rule(rule) -> None:
    for kind in (*rule.needs, *rule.uses, *(kind for check in rule.fallbacks for kind in check.needs)):
        line = with_how_to_collect(kind)
        assert kind.__name__ not in line.split(":")[0]
        assert any(line in item for part in rule_parts(rule) for item in part.items)


def test_explain_takes_families_and_refuses_other_names(ptaudit) -> None:
    assert ptaudit("explain", "vmm").out.count("What to do\n") == sum(rule.code.startswith("VMM-") for rule in RULES)
    done = ptaudit("explain", "VMM-02", "NONE-9")
    refused = "ptaudit: no rule, family or name 'NONE-9'; ptaudit rules lists them\n"
    assert (done.status, done.out, done.err) == (2, "", refused)


def test_rules_as_json_are_all_there(ptaudit) -> None:
    document = json.loads(ptaudit("rules", "--format", "json").out)
    assert [one["code"] for one in document["rules"]] == [rule.code for rule in RULES]
    assert all(set(one["page"]) == set(SECTIONS) for one in document["rules"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_reference_the_manual_and_a_page_that_was_written(generated, command: str) -> None:
    assert f"\n## ptaudit {command}\n" in generated["reference/commands.md"]
    assert f"\n.SS ptaudit {command} " in (ROOT / "deploy/man/ptaudit.1").read_text()
    assert any(f"ptaudit {command}" in page.read_text() for page in WRITTEN)


def test_the_manual_is_fresh() -> None:
    from man import man_page

    assert (ROOT / "deploy/man/ptaudit.1").read_text() == man_page(), (
        "python docs/generate/man.py > deploy/man/ptaudit.1"
    )


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_nothing_to_say_about_the_manual() -> None:
    page = ROOT / "deploy/man/ptaudit.1"
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_known_bug_is_in_its_table(generated) -> None:
    page = generated["reference/known-bugs.md"]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == len(KNOWN_BUGS) + 1
    for bug in KNOWN_BUGS:
        assert bug.cve in page


def test_every_bound_is_on_its_page(generated) -> None:
    from dataclasses import fields

    from analyzer.sources.budget import Bounds

    page = generated["reference/bounds.md"]
    for bound in fields(Bounds):
        assert bound.name == "factor" or f"| {bound.metadata['what']} | " in page
    assert f"| {Bounds().kept_bytes >> 30} GiB |" in page
    assert "| the boot log | 2 GiB |" in page


def test_evidence_names_every_rule_that_needs_something(generated) -> None:
    page = generated["reference/evidence.md"]
    for rule in RULES:
        assert (f"[{rule.code}](" in page) == bool(rule.needs or rule.uses)


def test_the_published_schema_is_the_one_that_reports_follow(generated) -> None:
    assert generated["reference/report.schema.json"] == REPORT.read_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(REPORT.read_text()))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(DOCS)))
def test_commands_print_what_the_page_shows(page: Path) -> None:
    from outputs import renewed

    text = page.read_text()
    assert renewed(text) == text, "python docs/generate/outputs.py --update"


def test_every_tutorial_shows_real_output() -> None:
    for page in (DOCS / "tutorials").glob("*.md"):
        assert len(re.findall(r"^```(?:console|python)$", page.read_text(), re.MULTILINE)) >= 3


def test_examples_of_options_are_options_that_there_are(ptaudit) -> None:
    for page in WRITTEN:
        for line in re.findall(r"^(?:\$ |sudo )?ptaudit (.*)$", page.read_text(), re.MULTILINE):
            command = line.split()[0]
            known = ptaudit(command, "--help").out
            if command == "fleet":
                known += "".join(ptaudit("fleet", sub, "--help").out for sub in ("run", "query", "diff"))
            for option in re.findall(r"(?<=\s)(--[a-z-]+)", line.split("|")[0]):
                assert option in known, f"{page.name}: {option}"


@pytest.mark.parametrize("picture", sorted(DOCS.rglob("*.svg")), ids=lambda path: path.name)
def test_pictures_can_be_read_by_those_who_do_not_see_them(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()
    assert root.get("role") == "img"
    names = {child.tag.rpartition("}")[2] for child in root}
    assert {"title", "desc"} <= names


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")])
def test_completion_as_documented(shell: str, word: str) -> None:
    assert f"_PTAUDIT_COMPLETE={shell}_source ptaudit" in (DOCS / "reference/shell.md").read_text()
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "analyzer.cli"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "_PTAUDIT_COMPLETE": f"{shell}_source"},
    )  # fmt: skip
    assert word in done.stdout


def test_completion_knows_commands_and_options() -> None:
    words = {"ptaudit fl": "fleet", "ptaudit audit --bas": "--baseline", "ptaudit explain --h": "--help"}
    for typed, expected in words.items():
        done = subprocess.run(
            [sys.executable, "-m", "analyzer.cli"], cwd=ROOT, capture_output=True, text=True, check=False,
            env={"_PTAUDIT_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)},
        )  # fmt: skip
        assert expected in done.stdout


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("01-dimm-added-offline", Outcome.FIRED),
        ("02-dimm-online", Outcome.PASSED),
        ("00-boot", Outcome.NOT_APPLICABLE),
        ("02-dimm-online/kernel_page_tables", Outcome.UNDECIDED),
    ],
)
def test_the_rule_that_is_the_example_works(source: str, outcome: Outcome) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (DOCS / "extend/rule.md").read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "site_rules.offline"}
    exec(compile(code, "rule.md", "exec"), names)
    sources = read_sources(Request((CAPTURES / "dimm-6.12" / source,)))
    (verdict,) = run([names["added_and_offline"]], build_facts(sources.captured))
    assert verdict.outcome is outcome, verdict.reason


def test_the_site_is_configured_where_the_extra_is() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(one.startswith("mkdocs-material") for one in extras["docs"])


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for rule in RULES:
        assert (tmp_path / "site" / "rules" / f"{rule.code}.html").exists()
    assert json.loads((tmp_path / "site/reference/report.schema.json").read_text())
    assert not list((tmp_path / "site").rglob("*.py"))
