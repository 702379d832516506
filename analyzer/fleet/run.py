"""A fleet audited: find the bundles, schedule them, keep what comes, sum up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from analyzer.fleet.find import find_bundles
from analyzer.fleet.local import Limits, run_locally
from analyzer.fleet.store import Journal, write_tables
from analyzer.fleet.unit import BundleResult

__all__ = ["FleetRun", "run_fleet"]


@dataclass
class FleetRun:
    """What came of the bundles, by status."""

    statuses: Counter[str] = field(default_factory=Counter)
    worst: Counter[str] = field(default_factory=Counter)


def run_fleet(
    paths: Iterable[str],
    output: Path,
    *,
    jobs: int,
    limits: Limits,
    scheduler: str | None = None,
    progress: Callable[[BundleResult], None] | None = None,
) -> FleetRun:
    """Audit every bundle below ``paths`` into the folder ``output``; what is known and unchanged is kept.

    Interrupted, it keeps what came so far; run again, it goes on from there.
    """
    done = FleetRun()
    with Journal(output) as journal:
        known = journal.known
        bundles = ((bundle, known.get(bundle, "")) for bundle in find_bundles(paths))
        try:
            for result in _scheduled(bundles, jobs=jobs, limits=limits, scheduler=scheduler):
                if result["status"] != "unchanged":
                    journal.add(result)
                done.statuses[result["status"]] += 1
                done.worst[result["worst"] or "none"] += 1
                if progress is not None:
                    progress(result)
        finally:
            write_tables(output)
    return done


def _scheduled(
    bundles: Iterable[tuple[str, str]], *, jobs: int, limits: Limits, scheduler: str | None
) -> Iterator[BundleResult]:
    if scheduler is None:
        return run_locally(bundles, jobs=jobs, limits=limits)
    from analyzer.fleet.cluster import run_on_cluster  # noqa: PLC0415 an extra

    return run_on_cluster(bundles, address=scheduler, limits=limits)
