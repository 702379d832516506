"""Local scheduling: each bundle in its own process, forked from a server that has everything imported."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Self

from analyzer.fleet.server import Request
from analyzer.fleet.unit import BundleResult, failure
from parsers.records import dataclass

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Limits", "Server", "run_locally"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one bundle may take."""

    seconds: float = 120.0
    memory_bytes: int = 4 << 30


class Server:
    """A server process that audits one bundle at a time; one that dies is replaced for the next bundle."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bundle = ""
        self.process = _started()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(at_once=kind is not None)

    @property
    def answers(self) -> IO[bytes]:
        """Readable when there is an answer."""
        assert self.process.stdout is not None  # noqa: S101 asked for in _started
        return self.process.stdout

    def ask(self, bundle: str, known: str) -> None:
        """Send one bundle; its answer has to be fetched before the next."""
        if self.process.poll() is not None:
            self._stop()
            self.process = _started()
        self.bundle = bundle
        request = Request(
            bundle=bundle, known=known, seconds=self.limits.seconds, memory_bytes=self.limits.memory_bytes
        )
        assert self.process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):  # then there is no answer, either
            self.process.stdin.write(json.dumps(request).encode() + b"\n")

    def answer(self) -> BundleResult:
        """The result of the bundle that was asked for."""
        line = self.answers.readline()
        if not line.endswith(b"\n"):
            return failure(self.bundle, "crashed", f"the server of audits ended with {self._stop()}")
        result: BundleResult = json.loads(line)
        return result

    def _stop(self, *, at_once: bool = False) -> int:
        """Closing its input ends the server and what it runs; ``at_once`` also while it starts."""
        if at_once:
            self.process.terminate()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        return self.process.wait()


def _started() -> subprocess.Popen[bytes]:
    # -P: the current folder may hold packages of the same names.  Its own session: Ctrl-C is the
    # coordinator's.  One thread: a process with several cannot be forked safely.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "analyzer.fleet.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )


def run_locally(bundles: Iterable[tuple[str, str]], *, jobs: int, limits: Limits) -> Iterator[BundleResult]:
    """Audit ``(bundle, known content)`` pairs, at most ``jobs`` at a time; results as they come."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for bundle, known in bundles:
            if len(selector.get_map()) < jobs:
                server = stack.enter_context(Server(limits))
            else:
                server = _next_ready(selector)
                yield server.answer()
            server.ask(bundle, known)
            selector.register(server.answers, selectors.EVENT_READ, server)
        while selector.get_map():
            yield _next_ready(selector).answer()


def _next_ready(selector: selectors.BaseSelector) -> Server:
    """The first server that has an answer, taken out of the selector."""
    (key, _), *_ = selector.select()
    selector.unregister(key.fileobj)
    server: Server = key.data
    return server
