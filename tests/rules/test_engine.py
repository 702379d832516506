"""The engine: outcomes, isolation, selection, plug-ins, identity and order of findings."""

from __future__ import annotations

import dataclasses
import random
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.errors import LayoutError, UsageError
from parsers.layout import Fact, KernelLayout, Precision
from parsers.meminfo import Meminfo
from parsers.ranges import EMPTY, Ranges
from rules import engine, plugins
from rules.engine import Outcome, Verdict, builtin_rules, load_rules, run, select
from rules.facts import _MADE, Facts, _Made
from rules.finding import Claim, Evidence, Finding, Hit, Impact, Severity, VaRange
from rules.rule import NotApplicableError, Rule, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIXTURES = Path(__file__).parents[2] / "fixtures"
PAGES = """{summary}

What it means:
Something.

How it is detected:
Somehow.

When it is not a problem:
Never.

What to do:
Nothing.
"""


class Wanted:
    """A fact for tests."""


class Optional:
    """Another one."""


@pytest.fixture(autouse=True)
def facts_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts that a made-up kind of evidence gives, so that rules may ask for them."""
    for kind in (Wanted, Optional):
        monkeypatch.setitem(_MADE, kind, _Made(kind.__name__, ("meminfo",), kind.__name__))


def make(check: Callable[..., Iterable[Hit]], code: str = "TST-01", **declaration: Any) -> Rule:
    check.__doc__ = PAGES.format(summary="A rule.")
    given = {"name": code.lower(), "severity": Severity.HIGH, "impact": Impact.LATENT, **declaration}
    return rule(code=code, **given)(check)


def hit(pages: Ranges = EMPTY, **fields: Any) -> Hit:
    return Hit(**{"title": "title", "message": "message", "claim": Claim.PROBABLE, "pfns": pages, **fields})


def raising(error: Exception, *before: Hit) -> Rule:
    def check() -> Iterable[Hit]:
        yield from before
        raise error

    return make(check)


def yielding(*hits: Hit, code: str = "TST-01", **declaration: Any) -> Rule:
    return make(lambda: iter(hits), code, **declaration)


def verdict(one: Rule, **known: Any) -> Verdict:
    return run([one], Facts({type(value): value for value in known.values()}))[0]


def test_rule_with_a_hit_fires() -> None:
    found = verdict(yielding(hit()))
    assert found.outcome is Outcome.FIRED
    assert len(found.findings) == 1


def test_rule_without_a_hit_passes() -> None:
    assert verdict(yielding()).outcome is Outcome.PASSED


def test_rule_is_not_applicable_with_its_reason() -> None:
    found = verdict(raising(NotApplicableError("another granule")))
    assert (found.outcome, found.reason) == (Outcome.NOT_APPLICABLE, "another granule")


def test_rule_that_cannot_tell_is_undecided_and_says_what_to_collect() -> None:
    found = verdict(raising(UndecidedError("no log", "dmesg")))
    assert (found.outcome, found.reason) == (Outcome.UNDECIDED, "no log")
    assert "dmesg" in found.collect[0]


def test_missing_need_makes_undecided_without_a_call() -> None:
    def check(wanted: Wanted, meminfo: Meminfo) -> Iterable[Hit]:
        pytest.fail("was called")

    one = make(check)
    found = run([one], Facts({}, {Wanted: "it was zero"}))[0]
    assert found.outcome is Outcome.UNDECIDED
    assert found.reason == "it was zero; /proc/meminfo was not collected"
    assert found.collect == ("Wanted", "cat /proc/meminfo")


def test_needs_are_positional_and_uses_are_keywords() -> None:
    seen: list[object] = []

    def check(wanted: Wanted, *, optional: Optional | None, meminfo: Meminfo | None) -> Iterable[Hit]:
        seen.extend((wanted, optional, meminfo))
        return ()

    wanted, optional = Wanted(), Optional()
    one = make(check)
    assert (one.needs, one.uses) == ((Wanted,), (Optional, Meminfo))
    assert verdict(one, wanted=wanted, optional=optional).outcome is Outcome.PASSED
    assert seen == [wanted, optional, None]


def test_unknown_layout_makes_undecided() -> None:
    found = verdict(raising(LayoutError("PHYS_OFFSET is not known")))
    assert found.outcome is Outcome.UNDECIDED
    assert found.collect


@pytest.mark.parametrize("error", [UndecidedError("half of the dump is missing"), LayoutError("unknown")])
def test_what_was_found_before_the_evidence_ended_is_kept(error: Exception) -> None:
    found = verdict(raising(error, hit()))
    assert found.outcome is Outcome.FIRED
    assert len(found.findings) == 1
    assert found.reason


@pytest.mark.parametrize(
    "broken",
    [
        raising(ValueError("boom")),
        raising(KeyError("boom"), hit()),
        make(lambda: None),  # type: ignore[arg-type, return-value]
        make(lambda: ["no hit"]),  # type: ignore[list-item]
        yielding(hit(claim="proven", vas=(3,))),
    ],
    ids=["raises", "raises after a hit", "returns nothing", "yields no hit", "yields nonsense"],
)
def test_failing_rule_is_an_error_and_the_others_run(broken: Rule) -> None:
    outcomes = [one.outcome for one in run([yielding(hit()), broken, yielding()], Facts({}))]
    assert outcomes == [Outcome.FIRED, Outcome.ERROR, Outcome.PASSED]


def test_error_names_what_was_raised() -> None:
    assert verdict(raising(ValueError("boom"))).reason == "ValueError: boom"


def test_severity_is_never_above_the_rules() -> None:
    one = yielding(*(hit(severity=severity) for severity in (None, *Severity)), severity=Severity.MEDIUM)
    assert [int(finding.severity) for finding in verdict(one).findings] == [2, 2, 2, 2, 1, 0]


def test_sections_are_those_that_the_pages_touch() -> None:
    known = {
        key: Fact(value, "test", Precision.EXACT) for key, value in {"page_size": 4096, "section_size_bits": 27}.items()
    }
    layout = KernelLayout(known)
    one = yielding(hit(Ranges.pairs([(0x7FFF, 0x8001), (0x20000, 0x28000)])))
    assert verdict(one, layout=layout).findings[0].sections == (0, 1, 4)
    assert verdict(one).findings[0].sections == ()


def fingerprint(**fields: Any) -> str:
    return Finding(yielding(), hit(**fields)).fingerprint


def test_fingerprint_is_of_the_rule_and_the_place() -> None:
    pages = Ranges.one(16, 32)
    same = {
        fingerprint(pages=pages),
        fingerprint(pages=pages, title="other", message="other", claim=Claim.PROVEN),
        fingerprint(pages=pages, evidence=(Evidence("/a/kernel_page_tables", "row", 7),)),
        fingerprint(pages=pages, evidence=(Evidence("/b/kernel_page_tables", "row", 8),)),
        fingerprint(pages=pages, severity=Severity.LOW),
        # Virtual addresses change with every boot of a kernel with KASLR.
        fingerprint(pages=pages, vas=(VaRange(0xFFFF << 48, (0xFFFF << 48) + 1, "linear"),)),
    }
    assert len(same) == 1
    others = {
        fingerprint(pages=Ranges.one(16, 33)),
        fingerprint(pages=Ranges.one(15, 32)),
        fingerprint(pages=pages, key="other"),
        Finding(yielding(code="TST-02"), hit(pages)).fingerprint,
        fingerprint(vas=(VaRange(1, 2, "linear"),)),
        fingerprint(vas=(VaRange(1, 3, "linear"),)),
        fingerprint(),
    }
    assert len(others | same) == len(others) + 1


def test_fingerprint_survives_other_lines_and_files(tmp_path: Path) -> None:
    capture = FIXTURES / "captures" / "pmem-6.12-vuln" / "02-one-removed"
    before = audit(Request((capture,)))
    for file in capture.iterdir():
        blank = b"\n\n" if file.name in {"kernel_page_tables", "iomem"} else b""
        (tmp_path / file.name).write_bytes(blank + file.read_bytes())
    after = audit(Request((tmp_path,)))
    assert [one.fingerprint for one in after.findings] == [one.fingerprint for one in before.findings]
    lines = [[evidence.line for one in report.findings for evidence in one.hit.evidence] for report in (before, after)]
    assert lines[0] != lines[1]


def test_findings_come_in_one_order_whatever_order_they_were_made_in() -> None:
    hits = [
        hit(Ranges.one(page, page + 1), title=title, severity=severity)
        for page in (3, 1, 2)
        for title in ("b", "a")
        for severity in (Severity.LOW, Severity.HIGH)
    ]
    orders = set()
    for seed in range(8):
        random.Random(seed).shuffle(hits)
        found = verdict(yielding(*hits)).findings
        orders.add(tuple((int(one.severity), int(one.hit.pfns.start[0]), one.hit.title) for one in found))
    wanted = tuple((severity, page, title) for severity in (3, 1) for page in (1, 2, 3) for title in ("a", "b"))
    assert orders == {wanted}


def test_verdicts_come_in_the_order_of_the_rules() -> None:
    rules = [yielding(code=code) for code in ("TST-03", "TST-01", "TST-02")]
    assert [one.rule.code for one in run(rules, Facts({}))] == ["TST-03", "TST-01", "TST-02"]


def test_builtin_rules_have_unique_codes_in_ascending_order() -> None:
    codes = [one.code for one in builtin_rules()]
    assert len(set(codes)) == len(codes) > 40
    assert codes == sorted(codes)


@pytest.mark.parametrize(
    ("only", "ignore", "codes"),
    [
        ((), (), ["ABC-01", "ABC-02", "ABCD-01", "XYZ-01"]),
        (("ABC",), (), ["ABC-01", "ABC-02"]),
        (("abc-02", "XYZ"), (), ["ABC-02", "XYZ-01"]),
        ((), ("ABC",), ["ABCD-01", "XYZ-01"]),
        (("ABC",), ("ABC-01",), ["ABC-02"]),
        (("abc-01-name", "xyz"), (), ["ABC-01", "XYZ-01"]),
        ((), ("ABC", "xyz-01-NAME"), ["ABCD-01"]),
    ],
)
def test_selection_is_by_code_family_or_name(only: tuple[str, ...], ignore: tuple[str, ...], codes: list[str]) -> None:
    rules = [yielding(code=code, name=f"{code.lower()}-name") for code in ("ABC-01", "ABC-02", "ABCD-01", "XYZ-01")]
    assert [one.code for one in select(rules, only, ignore)] == codes


def test_selection_of_nothing_is_refused() -> None:
    rules = [yielding(code=code, name=f"{code.lower()}-name") for code in ("ABC-01", "ABC-02")]
    with pytest.raises(UsageError, match="no rule is left"):
        select(rules, ["ABC-01"], ["ABC"])
    assert select((), []) == ()


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ("ABC-0", "did you mean ABC-01 or ABC-02? "),
        ("abc-01b", "did you mean ABC-01"),
        ("lost-struct-page", "did you mean lost-struct-pages? "),
        ("NONE", "; ptaudit rules lists them"),
        ("", "; ptaudit rules lists them"),
    ],
)
def test_selection_of_what_does_not_exist_is_refused(unknown: str, hint: str) -> None:
    rules = [yielding(code=code) for code in ("ABC-01", "ABC-02")] + [yielding(code="XYZ-01", name="lost-struct-pages")]
    for only, ignore in (([unknown], []), ([], [unknown]), (["ABC", unknown], [])):
        with pytest.raises(UsageError) as refused:
            select(rules, only, ignore)
        assert f"no rule, family or name {unknown!r}" in refused.value.message
        assert hint in refused.value.message


def with_plugins(monkeypatch: pytest.MonkeyPatch, **targets: object) -> None:
    """Install plug-ins: an exception is raised by loading, anything else is what loading gives."""

    class Point(EntryPoint):
        def load(self) -> Any:
            target = targets[self.name]
            if isinstance(target, Exception):
                raise target
            return target

    points = [Point(name, f"{name}_module", engine.ENTRY_POINT_GROUP) for name in targets]
    monkeypatch.setattr(engine, "entry_points", lambda group: points if group == "ptaudit.rules" else [])


@pytest.mark.parametrize("section", ["[ptaudit.rules]", "[ptaudit.rules ]", "[console_scripts]"])
def test_entry_points_are_those_of_importlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str) -> None:
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"{section}\nmine = their_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [point.name for point in plugins.entry_points(engine.ENTRY_POINT_GROUP)]
    assert found == [point.name for point in metadata.entry_points(group=engine.ENTRY_POINT_GROUP)]
    assert found == (["mine"] if section == "[ptaudit.rules]" else [])


def test_entry_that_cannot_be_looked_into_is_left_to_importlib(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert plugins._may_define(Path("/refused"), b"ptaudit.rules")


def test_plugin_brings_a_rule_or_a_module_of_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("theirs")
    module.first, module.second = yielding(code="MOD-01"), yielding(code="MOD-02")  # type: ignore[attr-defined]
    with_plugins(monkeypatch, one=yielding(code="ONE-01"), many=module)
    rules, broken = load_rules()
    assert [one.code for one in rules[len(builtin_rules()) :]] == ["ONE-01", "MOD-01", "MOD-02"]
    assert broken == ()


def test_broken_plugin_is_reported_and_the_others_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plugins(
        monkeypatch,
        absent=ModuleNotFoundError("No module named 'absent'"),
        number=7,
        empty=ModuleType("empty"),
        good=yielding(code="ONE-01"),
    )
    rules, broken = load_rules()
    assert rules[-1].code == "ONE-01"
    assert broken[0] == "plug-in absent: ModuleNotFoundError: No module named 'absent'"
    assert broken[1].startswith("plug-in number: TypeError")
    assert broken[2] == "plug-in empty: empty_module is not a rule and defines none"


def test_broken_plugin_is_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plugins(monkeypatch, bad=ImportError("gone"))
    report = audit(Request((FIXTURES / "captures" / "dimm-6.12" / "00-boot",)))
    assert report.broken_plugins == ("plug-in bad: ImportError: gone",)


def test_docstring_without_its_parts_is_refused() -> None:
    def check() -> Iterable[Hit]:
        """A rule."""
        return ()

    with pytest.raises(TypeError, match="TST-01: its docstring lacks What it means, How it is detected"):
        rule(code="TST-01", name="test", severity=Severity.LOW, impact=Impact.WASTE)(check)


def test_rules_and_hits_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        yielding().severity = Severity.LOW  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        hit().title = "other"  # type: ignore[misc]


def test_page_frames_below_zero_are_dropped():
    """Addresses of another boot, translated with the PHYS_OFFSET of this one."""
    one = make(lambda: [hit(Ranges.of([-0x3FAD40000, 0x100], [-0x3FAD38000, 0x200]))])
    [verdict] = run([one], Facts({}))
    assert verdict.findings[0].hit.pfns.tuples() == [(0x100, 0x200)]
