"""What a fleet's results say, as text and as one self-contained page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analyzer.fleet.store import query
from analyzer.output import printable, visible
from analyzer.text_table import table
from parsers.records import dataclass

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Summary", "as_html", "as_text", "failed_rules", "headline", "summarize", "worst_of"]

WIDTH = 100

SUMMARIES: dict[str, str] = {
    "Hosts by verdict": (
        "SELECT coalesce(verdict, status) AS state, count(*) AS hosts FROM bundles GROUP BY state "
        "ORDER BY list_position(['damaged', 'at_risk', 'blind'], state) NULLS LAST, hosts DESC, state"
    ),
    "Bundles by status": (
        "SELECT status, count(*) AS bundles FROM bundles GROUP BY status ORDER BY bundles DESC, status"
    ),
    "Damaged now": (
        "SELECT host, string_agg(DISTINCT rule, ' ' ORDER BY rule) AS rules FROM findings "
        "WHERE severity = 'critical' GROUP BY bundle, host ORDER BY host, bundle"
    ),
    "One unplug from an oops": (  # the next operation corrupts or crashes: that is what latent and high mean
        "SELECT host, string_agg(DISTINCT rule, ' ' ORDER BY rule) AS rules FROM findings "
        "WHERE severity = 'high' AND impact = 'latent' GROUP BY bundle, host ORDER BY host, bundle"
    ),
    "Cannot leave without harm": (
        "SELECT host, count(*) AS units, string_agg(unit, ' ' ORDER BY unit) AS which FROM units "
        "WHERE operation = 'remove' AND answer = 'breaks' GROUP BY bundle, host ORDER BY host, bundle"
    ),
    "Findings by rule": (
        "SELECT rule, min(name) AS name, severity, count(*) AS findings, count(DISTINCT bundle) AS bundles "
        "FROM findings WHERE severity <> 'info' GROUP BY rule, severity ORDER BY bundles DESC, rule, severity"
    ),
    "Findings by kernel and machine": (
        "SELECT b.release, b.machine, count(DISTINCT b.bundle) AS bundles, "
        "count(DISTINCT f.bundle) AS with_findings, count(f.rule) AS findings FROM bundles b LEFT JOIN "
        "(FROM findings WHERE severity IN ('critical', 'high')) f USING (bundle) WHERE b.status = 'audited' "
        "GROUP BY ALL ORDER BY with_findings DESC, bundles DESC, b.release, b.machine"
    ),
    "Blind: too little evidence to say": (
        "SELECT missing[1] AS missing, count(*) AS hosts, string_agg(host, ' ' ORDER BY host) AS names FROM bundles "
        "WHERE verdict = 'blind' GROUP BY 1 ORDER BY hosts DESC, missing"
    ),
    "Could not be decided": (
        "SELECT reason, count(DISTINCT bundle) AS bundles, string_agg(DISTINCT rule, ' ' ORDER BY rule) AS rules "
        "FROM undecided WHERE severity IN ('critical', 'high') GROUP BY reason ORDER BY bundles DESC, reason"
    ),
    "Could not be read": ("SELECT host, status, error FROM bundles WHERE status <> 'audited' ORDER BY host, bundle"),
}
ALL_BUNDLES = (
    "SELECT host, coalesce(verdict, status) AS verdict, worst, nr_incidents AS incidents, nr_findings AS findings, "
    "nr_undecided AS undecided, release, page_size, machine, coalesce(nullif(error, ''), verdict_text) AS why "
    "FROM bundles ORDER BY list_position(['critical', 'high', 'medium', 'low', 'info'], worst) NULLS LAST, "
    "host, bundle LIMIT "
)
MAX_ROWS = 5000
"""More rows than this make a page that a browser is slow with; ``ptaudit fleet query`` has them all."""


@dataclass(frozen=True)
class Summary:
    """One table of the summary."""

    title: str
    columns: list[str]
    rows: list[tuple[Any, ...]]
    total: int


def summarize(folder: Path) -> list[Summary]:
    """Every table that has rows."""
    made = [_summary(title, *query(folder, sql)) for title, sql in SUMMARIES.items()]
    return [one for one in made if one.rows]


def _summary(title: str, columns: list[str], rows: list[tuple[Any, ...]]) -> Summary:
    return Summary(title, columns, rows[:MAX_ROWS], len(rows))


def as_text(summaries: list[Summary], *, limit: int = 25) -> str:
    """The tables for a terminal, long ones cut."""
    lines: list[str] = []
    for one in summaries:
        cells = [[_cell(cell) for cell in row] for row in one.rows[:limit]]
        lines += [one.title, *(f"  {line}" for line in table(one.columns, cells))]
        if one.total > limit:
            lines.append(f"  and {one.total - limit} more")
        lines.append("")
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = "" if value is None else printable(str(value))
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def headline(folder: Path) -> str:
    """The verdict on the fleet in one line: how many hosts are damaged, at risk, blind, clean, not audited."""
    counts = dict(query(folder, "SELECT coalesce(verdict, 'not audited'), count(*) FROM bundles GROUP BY 1")[1])
    total = sum(counts.values())
    order = ("damaged", "at_risk", "blind", "not audited", "clean")
    parts = [f"{counts[state]} {state.replace('_', ' ')}" for state in order if counts.get(state)]
    return f"{total} host{'' if total == 1 else 's'}: {', '.join(parts)}"


def failed_rules(folder: Path) -> list[tuple[str, int]]:
    """Rules that failed inside, each with the number of bundles."""
    rows = query(
        folder,
        "SELECT rule, count(DISTINCT bundle) FROM undecided WHERE outcome = 'error' GROUP BY rule ORDER BY rule",
    )[1]
    return [(str(rule), int(count)) for rule, count in rows]


def worst_of(folder: Path) -> str | None:
    """The highest severity that any bundle has."""
    (row,) = query(folder, f"SELECT worst FROM ({ALL_BUNDLES} 1)")[1]  # noqa: S608
    worst: str | None = row[0]
    return worst


def as_html(folder: Path, summaries: list[Summary]) -> str:
    """One page: the summary, and every bundle that has something to say."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 only where a page is made

    environment = Environment(loader=PackageLoader("analyzer.fleet"), autoescape=True, trim_blocks=True)
    columns, rows = query(folder, f"{ALL_BUNDLES} {MAX_ROWS}")
    total = query(folder, "SELECT count(*) FROM bundles")[1][0][0]
    page = environment.get_template("fleet.html.j2")
    text = page.render(headline=headline(folder), summaries=[*summaries, Summary("All bundles", columns, rows, total)])
    return visible(text, "html")
