"""A fleet audited: find the bundles, schedule them, keep what comes, write the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.fleet.find import find_bundles, missing_hosts
from analyzer.fleet.local import Limits, run_locally
from analyzer.fleet.store import State, in_database
from parsers.errors import InputError

if TYPE_CHECKING:
    from analyzer.fleet.unit import BundleResult

__all__ = ["run_fleet"]


def run_fleet(
    paths: Sequence[str],
    output: Path,
    *,
    jobs: int,
    limits: Limits,
    scheduler: str | None = None,
    expected: Path | None = None,
    progress: Callable[[int, BundleResult], None] | None = None,
) -> Counter[str]:
    """Audit every bundle below ``paths`` into the folder ``output``; what is known and unchanged is kept.

    ``expected`` names a list of hosts: those without a bundle are ``missing``.  Interrupted, it keeps what came so
    far; run again, it goes on from there.  ``progress`` is called with the number of bundles and each result.

    Returns how many bundles came to which status.
    """
    in_database(lambda _: None)  # report a missing DuckDB before an hour of work
    statuses: Counter[str] = Counter()
    with State(output) as state:
        bundles = find_bundles(paths)
        if expected is not None:
            bundles = missing_hosts(bundles, expected, next((path for path in paths if not path.startswith("@")), "."))
        total = state.want(bundles)
        if not total:
            raise InputError("no bundle in it", path=", ".join(paths))
        try:
            if scheduler is None:
                results = run_locally(state.pending(), jobs=jobs, limits=limits)
            else:
                from analyzer.fleet.cluster import run_on_cluster  # noqa: PLC0415 an extra

                results = run_on_cluster(state.pending(), address=scheduler, limits=limits)
            for result in results:
                if result["status"] != "unchanged":
                    state.add(result)
                statuses[result["status"]] += 1
                if progress is not None:
                    progress(total, result)
        finally:
            state.export()
    return statuses
