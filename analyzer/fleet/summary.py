"""What a fleet's results say, as text and as one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyzer.fleet.store import query
from analyzer.views.table import table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SUMMARIES", "Summary", "as_html", "as_text", "summarize"]

SUMMARIES: dict[str, str] = {
    "Bundles by what came of them": (
        "SELECT status, count(*) AS bundles, round(avg(seconds), 2) AS seconds_each FROM bundles "
        "GROUP BY status ORDER BY 2 DESC"
    ),
    "Damaged now": (
        "SELECT bundle, string_agg(DISTINCT rule, ' ' ORDER BY rule) AS rules FROM findings "
        "WHERE severity = 'critical' GROUP BY bundle ORDER BY bundle"
    ),
    # Struct pages or a linear map that something removable shares with something else.
    "One unplug from an oops": (
        "SELECT bundle, string_agg(DISTINCT rule, ' ' ORDER BY rule) AS rules FROM findings "
        "WHERE rule IN ('VMM-01', 'VMM-05', 'VMM-06', 'LIN-02', 'TRC-05', 'TRC-08') "
        "AND severity IN ('high', 'critical') GROUP BY bundle ORDER BY bundle"
    ),
    "Findings by rule": (
        "SELECT rule, any_value(name) AS name, severity, count(*) AS findings, count(DISTINCT bundle) AS bundles "
        "FROM findings WHERE severity <> 'info' GROUP BY rule, severity ORDER BY bundles DESC, rule"
    ),
    "Findings by kernel and machine": (
        "SELECT b.release, b.machine, count(DISTINCT b.bundle) AS bundles, "
        "count(*) FILTER (f.severity IN ('critical', 'high')) AS severe "
        "FROM bundles b LEFT JOIN findings f USING (bundle) WHERE b.status = 'audited' "
        "GROUP BY b.release, b.machine ORDER BY severe DESC, bundles DESC, b.release"
    ),
    "Could not be decided": (
        "SELECT rule, reason, count(*) AS bundles FROM undecided WHERE severity IN ('critical', 'high') "
        "GROUP BY rule, reason ORDER BY bundles DESC, rule LIMIT 25"
    ),
    "Could not be read": (
        "SELECT bundle, status, error FROM bundles WHERE status NOT IN ('audited', 'unchanged') ORDER BY bundle"
    ),
}


@dataclass(frozen=True)
class Summary:
    """One table of the summary."""

    title: str
    columns: list[str]
    rows: list[tuple[Any, ...]]


def summarize(folder: Path) -> list[Summary]:
    """Every table that has rows."""
    made = [Summary(title, *query(folder, sql)) for title, sql in SUMMARIES.items()]
    return [one for one in made if one.rows]


def as_text(summaries: list[Summary], *, limit: int = 40) -> str:
    """The tables for a terminal, long ones cut."""
    lines: list[str] = []
    for one in summaries:
        cells = [[("" if cell is None else str(cell))[:100] for cell in row] for row in one.rows[:limit]]
        lines += [one.title, *(f"  {line}" for line in table(one.columns, cells))]
        if len(one.rows) > limit:
            lines.append(f"  and {len(one.rows) - limit} more")
        lines.append("")
    return "\n".join(lines)


def as_html(folder: Path) -> str:
    """One page: the summary, and every bundle that has something to say."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 only where a page is made

    environment = Environment(loader=PackageLoader("analyzer.fleet"), autoescape=True, trim_blocks=True)
    bundles = Summary(
        "All bundles",
        *query(
            folder,
            "SELECT bundle, status, worst, nr_findings, nr_undecided, release, page_size, machine, error FROM bundles "
            "ORDER BY list_position(['critical', 'high', 'medium', 'low', 'info'], worst) NULLS LAST, bundle "
            "LIMIT 20000",
        ),
    )
    return environment.get_template("fleet.html.j2").render(summaries=[*summarize(folder), bundles])
