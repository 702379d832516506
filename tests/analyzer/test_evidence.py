"""The table of evidence: a row is all that a new kind needs, and what it says of each kind is true."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from analyzer.audit import audit
from analyzer.collect.on_this_host import collect, script
from analyzer.reports.send_back import send_back
from analyzer.sources.read import Request, read_sources
from parsers.errors import Diagnostic, FormatError
from parsers.kconfig import parse_kconfig
from parsers.kinds import KINDS, Kind, Tree, When, kind_of_content, kind_of_path
from parsers.ptdump import PageTableDump
from parsers.uname import parse_uname
from rules.engine import Outcome, load_rules, run
from rules.facts import Facts, how_to_collect
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.captured import build_facts
from rules.rule import Rule, rule
from tests.fuzz.invariants import hold
from tests.fuzz.targets import of_kinds

ROOT = Path(__file__).parents[2]
READ = [kind for kind in KINDS.values() if kind.is_read]


@dataclass(frozen=True)
class Balloon:
    """A kind of evidence that exists only here."""

    path: str
    pages: int
    diagnostics: tuple[Diagnostic, ...] = ()


def parse_balloon(data: bytes, path: str) -> Balloon:
    found = re.search(rb"^balloon_pages: (\d{1,9})$", data, re.MULTILINE)
    if found is None:
        raise FormatError("no balloon_pages", path=path)
    return Balloon(path, int(found[1]))


def parse_balloon_tree(files: dict[str, bytes], path: str) -> Balloon:
    return parse_balloon(b"balloon_pages: " + files["pages"], path)


BALLOON = Kind(
    name="balloon",
    what="the balloon's size",
    fact=Balloon,
    paths=re.compile(r"(?:^|/)balloon$"),
    sniff=lambda head: b"balloon_pages:" in head,
    parse=parse_balloon,
    tree=Tree("sys/balloon", r"\w+", parse_balloon_tree),
    sample=b"balloon_pages: 512\n",
    command="echo balloon_pages: 77 | cat",
    root=True,
    when=When.STATE,
)


def balloon_rule() -> Rule:
    """Declared late: a rule cannot ask for what the table of evidence does not have."""

    @rule(code="XYZ-01", name="balloon", severity=Severity.INFO, impact=Impact.INFORMATIONAL)
    def check(balloon: Balloon):
        """A balloon.

        What it means: x
        How it is detected: x
        When it is not a problem: x
        What to do: x
        """
        yield Hit(claim=Claim.PROVEN, title="balloon", message=f"{balloon.pages} pages")

    return check


def test_a_rule_cannot_ask_for_what_no_row_has() -> None:
    with pytest.raises(TypeError, match="Balloon"):
        balloon_rule()


@pytest.fixture
def balloon(monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setitem(KINDS, "balloon", BALLOON)
    return BALLOON


@pytest.mark.parametrize("name", ["balloon", "sys/balloon/pages", "something.txt"])
def test_a_new_row_arrives_as_a_fact(balloon: Kind, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"512\n" if name.endswith("pages") else balloon.sample)
    sources = read_sources(Request((path if name.endswith(".txt") else tmp_path,)))
    assert [source.kind for source in sources.sources] == ["balloon"]
    facts = build_facts(sources.captured)
    assert facts.get(Balloon).pages == 512
    (verdict,) = run([balloon_rule()], facts)
    assert (verdict.outcome, verdict.findings[0].hit.message) == (Outcome.FIRED, "512 pages")


def test_a_new_row_is_asked_for_when_it_is_missing(
    balloon: Kind, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyzer.audit.load_rules", lambda: ((*load_rules()[0], balloon_rule()), ()))
    report = audit(Request((damaged,)), only=["XYZ-01"])
    (verdict,) = report.verdicts
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.reason == "the balloon's size was not collected"
    assert verdict.collect == ("as root: echo balloon_pages: 77 | cat",)
    assert "  echo balloon_pages: 77 | cat > balloon    # for XYZ-01" in send_back(report)


def test_a_new_row_is_collected(balloon: Kind, tmp_path: Path) -> None:
    assert "\nballoon;root;the balloon'\"'\"'s size;read_balloon;" in script()
    assert collect(["-o", f"{tmp_path}/capture/"]) == 0
    assert (tmp_path / "capture" / "balloon").read_text() == "balloon_pages: 77\n"
    assert read_sources(Request((tmp_path / "capture" / "balloon",))).captured.others[Balloon].pages == 77


def test_a_new_row_is_documented(balloon: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "generate")
    assert "the balloon's size" in import_module("pages").evidence_page(())


def test_a_new_row_is_fuzzed(balloon: Kind) -> None:
    (target,) = [one for one in of_kinds() if one.name == "balloon"]
    assert hold(target, balloon.sample) == "read"
    assert hold(target, b"balloon_pages: \0") != "read"


# The sample of a kernel is its header; tests/parsers/image reads whole ones.
@pytest.mark.parametrize("kind", [kind for kind in READ if kind.name != "kernel"], ids=lambda kind: kind.name)
def test_the_sample_is_read(kind: Kind) -> None:
    parsed = kind.read(kind.sample, path="sample") if kind.read else kind.parse(kind.sample, "sample")
    assert not parsed.diagnostics
    assert kind.fact is None or isinstance(parsed, kind.fact)


@pytest.mark.parametrize("kind", [kind for kind in READ if kind.sniff(kind.sample)], ids=lambda kind: kind.name)
def test_the_sample_is_recognised_by_its_content(kind: Kind) -> None:
    assert kind_of_content(kind.sample) is kind


def test_only_files_of_one_value_are_not_recognised_by_content() -> None:
    assert {kind.name for kind in READ if not kind.sniff(kind.sample)} == {
        "cmdline",
        "memmap_on_memory",
        "boot_id",
        "kexec_crash_loaded",
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.is_collected], ids=lambda kind: kind.name)
def test_what_is_collected_is_recognised_by_its_name(kind: Kind) -> None:
    assert kind_of_path(f"capture/{kind.collected_as}") is kind


def config(text: bytes):
    menu = b"#\n# Kernel hacking\n#\n# end of Kernel hacking\n"
    return parse_kconfig(b"# Linux/arm64 6.12.117 Kernel Configuration\n" + text + menu, "config")


def test_a_kernel_is_not_asked_for_what_it_does_not_have() -> None:
    ordinary = how_to_collect(PageTableDump)
    assert ordinary[0].startswith("as root: cat /sys/kernel/debug/kernel_page_tables")
    assert how_to_collect(PageTableDump, config(b"CONFIG_PTDUMP_DEBUGFS=y\n")) == ordinary
    assert how_to_collect(PageTableDump, config(b"# CONFIG_PTDUMP_DEBUGFS is not set\n")) == how_to_collect("vmcore")
    assert how_to_collect(PageTableDump, config(b"CONFIG_ARM64_PTDUMP_DEBUGFS=y\n")) == ordinary, "before v5.7"
    assert how_to_collect(PageTableDump, config(b"CONFIG_NUMA=y\n")) == ordinary, "unknown is not absent"


def test_the_reason_names_the_option_that_is_missing() -> None:
    kconfig = config(b"# CONFIG_PTDUMP_DEBUGFS is not set\n")
    why = Facts({type(kconfig): kconfig}).why_missing(PageTableDump)
    assert why == "a page-table dump cannot be collected from this kernel: CONFIG_PTDUMP_DEBUGFS is not set"


def test_a_release_that_is_too_old_is_not_asked() -> None:
    old, new = (parse_uname(f"Linux vm {one} #1 SMP aarch64\n".encode(), "uname") for one in ("5.4.1", "6.1.0"))
    assert how_to_collect("memmap_on_memory", None, old) == ()
    assert how_to_collect("memmap_on_memory", None, new) == (KINDS["memmap_on_memory"].step,)
