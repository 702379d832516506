"""Local scheduling: each bundle in a process of its own, with a limit of time and of memory.

Processes are forked from a server that has everything imported, so a bundle costs its audit and little
more.  A process that hangs is killed, one that dies takes nobody with it.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from analyzer.fleet.unit import BundleResult, audit_bundle, failure

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

__all__ = ["Limits", "run_locally"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one bundle may take."""

    seconds: float = 120.0
    memory_bytes: int = 4 << 30


@dataclass(slots=True)
class _Running:
    process: ForkServerProcess
    bundle: str
    deadline: float
    begin: float


def run_locally(bundles: Iterable[tuple[str, str]], *, jobs: int, limits: Limits) -> Iterator[BundleResult]:
    """Audit ``(bundle, known content)`` pairs, at most ``jobs`` at a time; results as they come."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["analyzer.fleet.preload"])
    waiting = iter(bundles)
    running: dict[Connection, _Running] = {}
    try:
        while True:
            while len(running) < jobs and (following := next(waiting, None)) is not None:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, *following, limits.memory_bytes), daemon=True)
                process.start()
                sender.close()
                now = time.monotonic()
                running[receiver] = _Running(process, following[0], now + limits.seconds, now)
            if not running:
                return
            soonest = min(one.deadline for one in running.values()) - time.monotonic()
            ready = wait(list(running), timeout=max(soonest, 0.0))
            for receiver in list(running):
                if receiver in ready:
                    yield _result(receiver, running.pop(receiver))
                elif time.monotonic() >= running[receiver].deadline:
                    yield _stopped(receiver, running.pop(receiver), limits)
    finally:
        for receiver, one in running.items():
            one.process.kill()
            receiver.close()


def _work(sender: Connection, bundle: str, known: str, memory_bytes: int) -> None:
    """In the child: limit the memory, audit, send the result."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    sender.send(audit_bundle(bundle, known))
    sender.close()


def _result(receiver: Connection, one: _Running) -> BundleResult:
    try:
        result: BundleResult = receiver.recv()
    except EOFError:
        one.process.join()
        result = failure(one.bundle, "crashed", f"the process ended with {one.process.exitcode}")
        result["seconds"] = round(time.monotonic() - one.begin, 3)
    receiver.close()
    one.process.join()
    return result


def _stopped(receiver: Connection, one: _Running, limits: Limits) -> BundleResult:
    one.process.kill()
    one.process.join()
    receiver.close()
    return failure(one.bundle, "timeout", f"took longer than {limits.seconds:g} s", seconds=limits.seconds)
