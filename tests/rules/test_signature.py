"""What a rule needs stands in its signature, and a declaration that cannot work is refused when it is made."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rules as package
from parsers.cmdline import CommandLine
from parsers.errors import LayoutError
from parsers.meminfo import Meminfo
from parsers.uname import KernelRelease, parse_uname
from rules.engine import Outcome, builtin_rules, run
from rules.facts import Facts, is_known
from rules.finding import Claim, Hit, Impact, Severity
from rules.rule import NotApplicableError, UndecidedError, rule

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGES = """A rule.

What it means: something.

How it is detected: somehow.

When it is not a problem: never.

What to do: nothing.
"""
RELEASE = parse_uname(b"Linux host 6.12.1 #1 SMP aarch64 GNU/Linux\n", "uname")
MEMINFO, LINE = object(), object()
FOUND = Hit(title="title", message="message", claim=Claim.PROBABLE)


def declared(check, **given):
    check.__doc__ = PAGES
    given = {"code": "TST-01", "name": "test", "severity": Severity.HIGH, "impact": Impact.LATENT, **given}
    return rule(**given)(check)


def test_parameters_may_have_any_name():
    def check(old: KernelRelease, *, told: CommandLine | None, kib: Meminfo | None) -> Iterable[Hit]:
        yield Hit(title=f"{old is RELEASE} {told is LINE} {kib is None}", message="", claim=Claim.PROBABLE)

    made = declared(check)
    (verdict,) = run([made], Facts({KernelRelease: RELEASE, CommandLine: LINE}))
    assert verdict.findings[0].hit.title == "True True True"
    assert (made.needs, made.uses) == ((KernelRelease,), (CommandLine, Meminfo))


def default(release: KernelRelease = None): ...
def starred(*facts: KernelRelease): ...
def keywords(**facts: KernelRelease): ...
def bare(release): ...
def bare_keyword(*, release): ...
def optional_position(release: KernelRelease | None): ...
def needed_keyword(*, release: KernelRelease): ...
def twice(release: KernelRelease, *, again: KernelRelease | None): ...
def no_fact(count: int): ...
def no_type(count: 3): ...
def one_of_two(*, either: KernelRelease | Meminfo | None): ...
def unimported(layout: Nowhere): ...  # noqa: F821


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (default, "release has a default: a fact that is used is None when it is not known"),
        (starred, r"\*facts.* does not say which facts it takes"),
        (keywords, r"\*\*facts.* does not say which facts it takes"),
        (bare, "release has no annotation: which fact it takes is not declared"),
        (bare_keyword, "release has no annotation: which fact it takes is not declared"),
        (optional_position, r"is used where it is known: it has to be a keyword \(after \*\)"),
        (needed_keyword, r"is a keyword and has to be \.\.\. \| None; what is needed is positional \(before \*\)"),
        (twice, "KernelRelease is asked for twice"),
        (no_fact, r"count: 'int' is not a fact: nothing provides it"),
        (no_type, "is not a fact: nothing provides it"),
        (one_of_two, "is not a fact: nothing provides it"),
        (unimported, "Nowhere is not imported where it is declared"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_declaration_that_cannot_work_is_refused(check, problem):
    with pytest.raises(TypeError, match=f"^TST-01: .*{problem}"):
        declared(check)


def test_facts_named_beside_the_signature_have_to_agree_with_it():
    def check(release: KernelRelease, *, meminfo: Meminfo | None) -> Iterable[Hit]:
        return ()

    same = declared(check, needs=(KernelRelease,), uses=(Meminfo,))
    assert (same.needs, same.uses) == ((KernelRelease,), (Meminfo,))
    with pytest.raises(TypeError, match=r"^TST-01: needs=\(Meminfo\), and its parameters are \(KernelRelease\)"):
        declared(check, needs=(Meminfo,))
    with pytest.raises(TypeError, match=r"^TST-01: uses=\(\), and its parameters are \(Meminfo\)"):
        declared(check, uses=())


def test_rule_of_the_first_release_without_annotations_runs():
    """They named their facts in needs and uses; a used one arrived as a keyword named after its type."""

    def check(release, *, command_line):
        yield Hit(title=f"{release is RELEASE} {command_line is LINE}", message="", claim=Claim.PROBABLE)

    made = declared(check, needs=(KernelRelease,), uses=(CommandLine,))
    (verdict,) = run([made], Facts({KernelRelease: RELEASE, CommandLine: LINE}))
    assert verdict.findings[0].hit.title == "True True"

    def misspelt(release, *, commandline):
        return ()

    with pytest.raises(TypeError, match="commandline has no annotation"):
        declared(misspelt, needs=(KernelRelease,), uses=(CommandLine,))


def test_builtin_rules_name_no_fact_twice():
    for path in Path(package.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "rule":
                assert not {"needs", "uses"} & {one.arg for one in node.keywords}, path


def test_builtin_rules_ask_for_evidence_that_exists():
    """What `UndecidedError` names, beside the facts of the signatures."""
    asked = set()
    for path in Path(package.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UndecidedError":
                asked |= {one.value for one in node.args[1:] if isinstance(one, ast.Constant)}
    assert {"dmesg", "iomem", "vmcore"} <= asked
    assert [one for one in asked if not is_known(one)] == []


# Enough of several ----------------------------------------------------------------------------------------------------


def outcome(made, *known):
    values = {CommandLine: LINE, Meminfo: MEMINFO}
    (verdict,) = run([made], Facts({kind: values[kind] for kind in known}))
    return verdict


def fallback_on_line(answer):
    def fallback(line: CommandLine) -> Iterable[Hit]:
        if isinstance(answer, Exception):
            raise answer
        yield answer

    return fallback


def with_fallbacks(*answers):
    def check(meminfo: Meminfo) -> Iterable[Hit]:
        return ()

    made = declared(check)
    for answer in answers:
        made.fallback(fallback_on_line(answer))
    return made


def test_fallback_decides_where_what_is_needed_is_missing():
    verdict = outcome(with_fallbacks(FOUND), CommandLine)
    assert (verdict.outcome, len(verdict.findings)) == (Outcome.FIRED, 1)
    assert verdict.reason == "/proc/meminfo was not collected"
    assert verdict.collect == ("cat /proc/meminfo",)


def test_fallback_is_not_asked_where_nothing_is_missing():
    assert outcome(with_fallbacks(FOUND), CommandLine, Meminfo).outcome is Outcome.PASSED


def test_fallback_without_its_own_facts_leaves_the_rule_undecided():
    assert outcome(with_fallbacks(FOUND)).outcome is Outcome.UNDECIDED


def test_fallback_that_finds_nothing_leaves_the_rule_undecided():
    verdict = outcome(with_fallbacks(UndecidedError("the line was cut"), NotApplicableError("no")), CommandLine)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.reason == "/proc/meminfo was not collected; the line was cut"


def test_every_fallback_is_asked():
    verdict = outcome(with_fallbacks(FOUND, UndecidedError("no"), FOUND), CommandLine)
    assert (verdict.outcome, len(verdict.findings)) == (Outcome.FIRED, 2)


def test_fallback_decides_where_addresses_cannot_be_placed():
    def check(meminfo: Meminfo) -> Iterable[Hit]:
        raise LayoutError("PHYS_OFFSET is not known")

    made = declared(check)
    made.fallback(fallback_on_line(FOUND))
    verdict = outcome(made, CommandLine, Meminfo)
    assert (verdict.outcome, verdict.reason) == (Outcome.FIRED, "PHYS_OFFSET is not known")


def test_fallback_that_fails_is_an_error():
    verdict = outcome(with_fallbacks(ValueError("boom")), CommandLine)
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "ValueError: boom")


def test_fallback_that_cannot_work_is_refused():
    made = with_fallbacks()
    with pytest.raises(TypeError, match=r"^TST-01: fallback no_fact: .*nothing provides it"):
        made.fallback(no_fact)


def test_no_builtin_rule_needs_nothing():
    assert [one.code for one in builtin_rules() if not one.needs] == []
