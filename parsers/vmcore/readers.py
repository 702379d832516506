"""Processes that read pages for another one: decompressing a page holds Python's lock for most of its time.

They are forked, so that they have what the reader of a dump has, and put pages into memory that is shared with them.
Each has two places there: while one is used it fills the other.  A process that dies, or cannot read, costs time only:
its pages are read here.
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
from typing import TYPE_CHECKING

import numpy as np

from parsers.mapping import U8, U64, Bool

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Problems", "Readers"]

Problems = dict[tuple[int, str], int]
"""What could not be read, by number of the file and reason, and how often."""
Answer = tuple[Bool | None, Problems]
Read = Callable[[U64, U8], tuple[Bool, Problems]]
_ROOMS = 2


class Readers:
    """As many processes as ``number``; OSError where none can be made.

    ``read`` puts the page frames of 4096 bytes that are asked for into an array ``(n, 4096)``, and returns which are
    present and what went wrong; it is called in the processes, at most ``most`` page frames at a time.
    """

    def __init__(self, number: int, most: int, read: Read) -> None:
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

    def _start(self, rooms: U8, read: Read) -> int:
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

    def read(self, pieces: Sequence[U64]) -> Iterator[tuple[U8, Bool | None, Problems]]:
        """Page frames, which are present, and what went wrong, of one piece after the other.

        Instead of which are present, None where the process could not read them.  The page frames are valid until the
        next piece is asked for.  Nobody may read anything else until all pieces were read.
        """
        number = len(self._pipes)
        for at in range(min(number * _ROOMS, len(pieces))):
            self._ask(at, pieces[at])
        for at, piece in enumerate(pieces):
            present, problems = _receive(self._pipes[at % number])
            yield self._rooms[at % number, at // number % _ROOMS, : piece.size], present, problems
            if at + number * _ROOMS < len(pieces):
                self._ask(at, pieces[at + number * _ROOMS])

    def _ask(self, at: int, piece: U64) -> None:
        """Let a process read a piece to where piece ``at`` is."""
        number = len(self._pipes)
        with contextlib.suppress(OSError):  # the process has died: nothing will be received
            self._pipes[at % number].send((at // number % _ROOMS, piece))


def _receive(pipe: Connection) -> Answer:
    try:
        answer: Answer = pipe.recv()
    except (OSError, EOFError):
        return None, {}
    return answer


def _serve(pipe: Connection, rooms: U8, read: Read) -> None:
    while True:
        try:
            room, units = pipe.recv()
        except EOFError:
            return
        try:
            answer: Answer = read(units, rooms[room, : units.size])
        except Exception:  # read there again, where it can be raised
            answer = None, {}
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
