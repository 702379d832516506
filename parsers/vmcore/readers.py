"""Processes that read pages for another one: decompressing a page holds Python's lock for most of its time.

They are forked, so that they have what the reader of a dump has, and put pages into memory that is shared with them.
Each has two places there: while one is used it fills the other.  A process that dies, or cannot read, costs time only:
its pages are read here.  What one process asks of another is its own: jobs and answers are pickled.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from parsers.mapping import U8

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Readers"]

Job = TypeVar("Job")
Answer = TypeVar("Answer")
_ROOMS = 2


class Readers(Generic[Job, Answer]):
    """As many processes as ``number``; OSError where none can be made.

    ``read`` is called in them with a job and with room for ``most`` page frames of 4096 bytes, an array
    ``(most, 4096)`` that both processes see.
    """

    def __init__(self, number: int, most: int, read: Callable[[Job, U8], Answer]) -> None:
        self.most = most
        shared = mmap.mmap(-1, number * _ROOMS * most * 4096)
        self._rooms: U8 = np.frombuffer(shared, dtype=np.uint8).reshape(number, _ROOMS, most, 4096)
        self._pipes: list[Connection] = []
        pids: list[int] = []
        self._end = weakref.finalize(self, _end, os.getpid(), pids, self._pipes)
        pids.extend(self._start(rooms, read) for rooms in self._rooms)

    def close(self) -> None:
        """End the processes."""
        self._end()

    def _start(self, rooms: U8, read: Callable[[Job, U8], Answer]) -> int:
        from multiprocessing.connection import Pipe  # noqa: PLC0415  # only where much is read

        mine, other = Pipe()
        self._pipes.append(mine)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # threads: what the process calls takes no lock of theirs
            pid = os.fork()
        if pid:
            other.close()
            return pid
        try:  # in the new process
            for name in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(name) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                    signal.signal(name, signal.SIG_DFL)
            gc.disable()
            for pipe in self._pipes:
                pipe.close()
            _serve(other, rooms, read)
        finally:
            os._exit(0)

    def read(self, jobs: Sequence[Job]) -> Iterator[tuple[Answer | None, U8]]:
        """What ``read`` answers to one job after the other, and the room that it had.

        None where the process could not read.  The room is valid until the next answer is asked for.  Nobody may
        read anything else until all jobs are done.
        """
        number = len(self._pipes)
        for at in range(min(number * _ROOMS, len(jobs))):
            self._ask(at, jobs[at])
        for at in range(len(jobs)):
            answer: Answer | None = _receive(self._pipes[at % number])
            yield answer, self._rooms[at % number, at // number % _ROOMS]
            if at + number * _ROOMS < len(jobs):
                self._ask(at, jobs[at + number * _ROOMS])

    def _ask(self, at: int, job: Job) -> None:
        """Let a process do a job with the room that job ``at`` had."""
        number = len(self._pipes)
        with contextlib.suppress(OSError):  # the process has died: nothing will be received
            self._pipes[at % number].send((at // number % _ROOMS, job))


def _receive(pipe: Connection) -> Any:  # noqa: ANN401 what the process answers
    try:
        return pipe.recv()
    except (OSError, EOFError):
        return None


def _serve(pipe: Connection, rooms: U8, read: Callable[[Job, U8], Answer]) -> None:
    while True:
        try:
            room, job = pipe.recv()
        except EOFError:
            return
        try:
            answer: Answer | None = read(job, rooms[room])
        except Exception:  # read there again, where it can be raised
            answer = None
        pipe.send(answer)


def _end(owner: int, pids: list[int], pipes: list[Connection]) -> None:
    if os.getpid() != owner:  # in a process that was forked later
        return
    for pipe in pipes:
        pipe.close()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except OSError:
            continue
