"""The command ``ptaudit`` inside of drgn: audit, sections and where, on the kernel that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyzer.audit import judge
from analyzer.reports.text import render
from analyzer.sections.sections_command import section_lines
from analyzer.where.place import where
from analyzer.where.place_text import lines
from parsers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analyzer.audit import Report
    from analyzer.sources.read import Sources
    from rules.facts import Facts

__all__ = ["USAGE", "answer"]

USAGE = "ptaudit audit [-v] | ptaudit sections | ptaudit where WHAT..."


def answer(arguments: Sequence[str], sources: Sources, facts: Facts) -> str:
    """What a subcommand prints; UsageError for an unknown one."""
    name, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if name == "audit" and not {*rest} - {"-v", "--verbose"}:
        return render(_report(sources, facts), verbose=bool(rest))
    if name == "sections" and not rest:
        return "".join(f"{line}\n" for line in section_lines(facts))
    if name == "where" and rest:
        report = _report(sources, facts)
        places = ("\n".join(lines(where(report, one))) for one in rest)
        return "\n\n".join(places) + "\n"
    raise UsageError(f"usage: {USAGE}")


def _report(sources: Sources, facts: Facts) -> Report:
    return judge(sources, facts)
