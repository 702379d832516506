"""The same unit of work on an existing dask.distributed cluster (``pip install 'ptaudit[cluster]'``)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from analyzer.fleet.local import Limits, Server
from analyzer.fleet.unit import BundleResult, failure
from parsers.errors import InputError, MissingDependencyError

__all__ = ["run_on_cluster"]

CONNECT_SECONDS = 30
IN_FLIGHT_PER_THREAD = 4

_slot = threading.local()


def run_on_cluster(bundles: Iterable[tuple[str, str]], *, address: str, limits: Limits) -> Iterator[BundleResult]:
    """Audit ``(bundle, known content)`` pairs on the cluster at ``address``; results as they come.

    The paths must mean the same on every worker.  Only a bounded number of bundles is in flight, so the
    scheduler's memory does not grow with the fleet.  The scheduler gives what a lost worker had to others.
    Raises `InputError` where no scheduler answers.
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
                future = client.submit(_on_worker, bundle, known, limits.seconds, limits.memory_bytes, pure=False)
                names[future.key] = bundle
                futures.append(future)
            return futures

        threads = sum(client.nthreads().values()) or 1
        stream: Any = as_completed(submit(IN_FLIGHT_PER_THREAD * threads), loop=client.loop)
        for future in stream:
            bundle = names.pop(future.key)
            if future.status == "finished":
                yield future.result()
            else:
                yield failure(bundle, "crashed", f"{future.status}: {future.exception()}")
            future.release()
            for another in submit(1):
                stream.add(another)


def _on_worker(bundle: str, known: str, seconds: float, memory_bytes: int) -> BundleResult:
    """On a worker: each of its threads keeps a server, which ends with the worker."""
    limits = Limits(seconds, memory_bytes)
    server: Server | None = getattr(_slot, "server", None)
    if server is None:
        server = _slot.server = Server(limits)
    server.limits = limits
    server.ask(bundle, known)
    return server.answer()
