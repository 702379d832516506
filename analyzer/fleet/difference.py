"""Which hosts got worse, or better, between two results of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.fleet.store import in_database, open_tables
from parsers.errors import UsageError
from rules.finding import Severity

if TYPE_CHECKING:
    import duckdb

__all__ = ["COLUMNS", "difference"]

COLUMNS = ("change", "host", "rule", "severity", "title")

_TWICE = "SELECT host FROM {}bundles GROUP BY host HAVING count(*) > 1 ORDER BY host LIMIT 1"
_SQL = """
WITH known AS (SELECT host FROM old_bundles WHERE status = 'audited'),
     still AS (SELECT host FROM new_bundles WHERE status = 'audited')
SELECT 'worse' AS change, a.host, a.rule, a.severity, a.title FROM new_findings a
  WHERE a.severity <> 'info' AND a.host IN (FROM known)
    AND NOT EXISTS (SELECT 1 FROM old_findings b WHERE b.host = a.host AND b.fingerprint = a.fingerprint
                    AND list_position($levels, b.severity) >= list_position($levels, a.severity))
UNION ALL
SELECT 'better', b.host, b.rule, b.severity, b.title FROM old_findings b
  WHERE b.severity <> 'info' AND b.host IN (FROM still)
    AND NOT EXISTS (SELECT 1 FROM new_findings a WHERE a.host = b.host AND a.fingerprint = b.fingerprint)
UNION ALL
SELECT 'new', n.host, '', coalesce(n.worst, ''), n.status FROM new_bundles n
  WHERE n.host NOT IN (SELECT host FROM old_bundles)
UNION ALL
SELECT 'gone', o.host, '', coalesce(o.worst, ''), o.status FROM old_bundles o
  WHERE o.host NOT IN (SELECT host FROM new_bundles)
UNION ALL
SELECT 'unreadable', n.host, '', n.status, n.error FROM new_bundles n
  WHERE n.status <> 'audited' AND n.host IN (FROM known)
ORDER BY change DESC, host, rule, title
"""


def difference(old: Path, new: Path) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS`: findings are matched by fingerprint, one that became more urgent is worse.

    Hosts are matched by the bundle's path below what each run was asked for.  UsageError where a run has two bundles
    of one host.
    """
    return in_database(lambda database: _difference(database, old, new))


def _difference(database: duckdb.DuckDBPyConnection, old: Path, new: Path) -> list[tuple[Any, ...]]:
    for prefix, folder in (("old_", old), ("new_", new)):
        open_tables(database, folder, prefix)
        if twice := database.execute(_TWICE.format(prefix)).fetchone():
            raise UsageError(f"several bundles are of the host {twice[0]}", path=str(folder))
    return database.execute(_SQL, {"levels": [str(level) for level in Severity]}).fetchall()
