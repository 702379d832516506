"""The same unit of work on an existing dask.distributed cluster (``pip install 'ptaudit[cluster]'``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from analyzer.fleet.unit import BundleResult, failure
from parsers.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from analyzer.fleet.local import Limits

__all__ = ["run_on_cluster"]

CONNECT_SECONDS = 30
IN_FLIGHT_PER_THREAD = 4
RETRIES = 3
"""How often a bundle is tried again after a worker died with it."""


def run_on_cluster(bundles: Iterable[tuple[str, str]], *, address: str, limits: Limits) -> Iterator[BundleResult]:
    """Audit ``(bundle, known content)`` pairs on the cluster at ``address``; results as they come.

    The paths must mean the same on every worker.  Only a bounded number of bundles is in flight, so the
    scheduler's memory does not grow with the fleet.  Raises `InputError` where no scheduler answers.
    """
    try:
        from distributed import Client, as_completed  # noqa: PLC0415 an extra
    except ImportError as error:
        raise MissingDependencyError("--scheduler needs dask.distributed: pip install 'ptaudit[cluster]'") from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no scheduler answers at {address}: {error}") from error
    with client:
        waiting = iter(bundles)
        names: dict[str, str] = {}

        def submit(count: int) -> list[Any]:
            futures: list[Any] = []
            for bundle, known in islice(waiting, count):
                future = client.submit(
                    _limited, bundle, known, limits.seconds, limits.memory_bytes, pure=False, retries=RETRIES
                )
                names[future.key] = bundle
                futures.append(future)
            return futures

        threads = sum(client.nthreads().values()) or 1
        stream: Any = as_completed(submit(IN_FLIGHT_PER_THREAD * threads))
        for future in stream:
            bundle = names.pop(future.key)
            if future.status == "finished":
                yield future.result()
            else:
                yield failure(bundle, "crashed", f"{future.status}: {future.exception()}")
            future.release()
            for another in submit(1):
                stream.add(another)


def _limited(bundle: str, known: str, seconds: float, memory_bytes: int) -> BundleResult:
    """On a worker: the audit in a process of its own, so that the limits hold there too."""
    from analyzer.fleet.local import Limits, run_locally  # noqa: PLC0415

    return next(run_locally([(bundle, known)], jobs=1, limits=Limits(seconds, memory_bytes)))
