"""A server of audits: ``python -m analyzer.fleet.server`` imports everything once and forks for every bundle.

One request a line on standard input, one answer a line on standard output, both JSON.  The child that audits has a
limit of time and of memory: one that hangs is killed, one that dies is a result, too.  The server ends as soon as its
standard input is closed, and its child with it, so that nothing outlives a coordinator that was killed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn, TypedDict

from analyzer.fleet.unit import BundleResult, audit_bundle, failure

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Request", "serve"]

CHUNK = 1 << 20
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


class Request(TypedDict):
    """A bundle, its content where that is known, and what it may take."""

    bundle: str
    known: str
    seconds: float
    memory_bytes: int


def serve() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGTERM, _terminate)
    _warm_up()
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is not an answer
        for line in sys.stdin.buffer:
            answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
            answers.flush()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 the signature is Python's
    sys.exit(128 + number)


def _warm_up() -> None:
    """Audit a sample of every kind of evidence, so that no child has to import or compile what its bundle needs."""
    from parsers.kinds import KINDS  # noqa: PLC0415 not in the coordinator

    with suppress(OSError), TemporaryDirectory(prefix="ptaudit-") as folder:
        for kind in KINDS.values():
            if kind.sample:
                (Path(folder) / (kind.file or kind.name)).write_bytes(kind.sample)
        audit_bundle(folder)
    gc.freeze()  # children share the pages of what is here for as long as nobody writes to them


def _answer(request: Request) -> BundleResult:
    """The result of one bundle; temporary files that its child left are removed."""
    with TemporaryDirectory(prefix="ptaudit-", ignore_cleanup_errors=True) as temporary:
        return _answer_within(request, temporary)


def _answer_within(request: Request, temporary: str) -> BundleResult:
    begin = time.monotonic()
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        tempfile.tempdir = temporary
        _work(request, sender)
    os.close(sender)
    data = _receive(receiver, child, begin + request["seconds"])
    os.close(receiver)
    if data is None:
        os.kill(child, signal.SIGKILL)
    status = _reaped(child)
    seconds = time.monotonic() - begin
    if data is None:
        return failure(request["bundle"], "timeout", f"took longer than {request['seconds']:g} s", seconds=seconds)
    try:
        result: BundleResult = json.loads(data)
    except ValueError:
        return failure(request["bundle"], "crashed", f"the process ended with {status}", seconds=seconds)
    return result


def _work(request: Request, sender: int) -> None:
    """In the child: end with the server, limit the memory, audit, send the result."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    limit = request["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        result = json.dumps(audit_bundle(request["bundle"], request["known"])).encode()
        with os.fdopen(sender, "wb") as pipe:
            pipe.write(result)
        status = 0
    finally:
        os._exit(status)


def _receive(receiver: int, child: int, deadline: float) -> bytes | None:
    """Everything that the child sends; None when the time is over."""
    poll = select.poll()
    poll.register(receiver, select.POLLIN)
    poll.register(0, 0)  # only that it was closed
    chunks: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        ready = dict(poll.poll(left * 1000))
        if 0 in ready:  # the coordinator is gone
            os.kill(child, signal.SIGKILL)
            sys.exit(1)
        if receiver in ready:
            chunk = os.read(receiver, CHUNK)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
    return None


def _reaped(child: int) -> int:
    """The child's exit code, minus the signal that ended it; one that cannot die yet is left behind."""
    for _ in range(100):
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return -signal.SIGKILL


if __name__ == "__main__":
    serve()
