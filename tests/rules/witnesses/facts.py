"""What several witnesses say of one machine, and the rules about them."""

from __future__ import annotations

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import builtin_rules, run
from rules.facts import Facts
from tests.cases import FIXTURES

CORES = sorted(
    path
    for path in (FIXTURES / "vmcore").glob("*.core.zst")
    if path.with_name(path.name.replace("core.zst", "kernel_page_tables")).exists()
)


def facts_of_core(core):
    shown = {
        kind: core.with_name(core.name.replace("core.zst", name))
        for kind, name in (("ptdump", "kernel_page_tables"), ("iomem", "iomem"))
    }
    return audit(Request((core,), kinds=shown), only=("WIT",))


def verdict_in(report, code):
    return next(one for one in report.verdicts if one.rule.code == code)


def verdict_with(code, facts, *changed):
    """The verdict of one rule about facts of which some are replaced."""
    known = dict(facts.known) | {type(one): one for one in changed}
    (verdict_in,) = run([rule for rule in builtin_rules() if rule.code == code], Facts(known, facts.missing))
    return verdict_in


def titles(verdict_in):
    return [one.hit.title for one in verdict_in.findings]
