"""Which bundles got worse, or better, between two results of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analyzer.fleet.store import TABLES, connect
from parsers.errors import InputError

__all__ = ["COLUMNS", "difference"]

COLUMNS = ("change", "bundle", "rule", "severity", "title")

_SQL = """
WITH before AS (SELECT *, parse_filename(bundle) AS host FROM old_findings),
     after AS (SELECT *, parse_filename(bundle) AS host FROM new_findings),
     known AS (SELECT parse_filename(bundle) AS host FROM old_bundles WHERE status = 'audited'),
     still AS (SELECT parse_filename(bundle) AS host FROM new_bundles WHERE status = 'audited')
SELECT 'worse' AS change, a.bundle, a.rule, a.severity, a.title FROM after a
  WHERE a.severity <> 'info' AND a.host IN (SELECT host FROM known)
    AND NOT EXISTS (SELECT 1 FROM before b WHERE b.host = a.host AND b.fingerprint = a.fingerprint)
UNION ALL
SELECT 'better', b.bundle, b.rule, b.severity, b.title FROM before b
  WHERE b.severity <> 'info' AND b.host IN (SELECT host FROM still)
    AND NOT EXISTS (SELECT 1 FROM after a WHERE a.host = b.host AND a.fingerprint = b.fingerprint)
UNION ALL
SELECT 'new', n.bundle, '', coalesce(n.worst, ''), n.status FROM new_bundles n
  WHERE parse_filename(n.bundle) NOT IN (SELECT parse_filename(bundle) FROM old_bundles)
UNION ALL
SELECT 'gone', o.bundle, '', coalesce(o.worst, ''), o.status FROM old_bundles o
  WHERE parse_filename(o.bundle) NOT IN (SELECT parse_filename(bundle) FROM new_bundles)
UNION ALL
SELECT 'unreadable', n.bundle, '', n.status, n.error FROM new_bundles n
  WHERE n.status NOT IN ('audited', 'unchanged') AND parse_filename(n.bundle) IN (SELECT host FROM known)
ORDER BY change DESC, bundle, rule
"""


def difference(old: Path, new: Path) -> list[tuple[Any, ...]]:
    """Rows of `COLUMNS`; hosts are told by the last part of the bundle's path, findings by fingerprint."""
    with connect() as database:
        for prefix, folder in (("old", old), ("new", new)):
            for name in TABLES:
                path = folder / f"{name}.parquet"
                if not path.exists():
                    raise InputError(f"no {path.name}: no results of a fleet", path=str(folder))
                quoted = str(path).replace("'", "''")
                database.execute(f"CREATE TABLE {prefix}_{name} AS SELECT * FROM read_parquet('{quoted}')")  # noqa: S608
        return database.execute(_SQL).fetchall()
