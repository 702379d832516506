"""Threads for what lets go of Python's lock: reading, decompressing, comparing arrays.

No more work is handed out than is being waited for, so that Ctrl-C ends a command as soon as what is in hand is done.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_MOST = 16


class Workers:
    """As many threads as this process may use processors, or ``number``; none where that is one."""

    def __init__(self, number: int | None = None) -> None:
        self.number = min(len(os.sched_getaffinity(0)), _MOST) if number is None else number
        self._pool: ThreadPoolExecutor | None = None

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """``function`` of each item, in their order; at most two for each thread are in hand."""
        if self.number < 2 or len(items) < 2:
            yield from map(function, items)
            return
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(self._threads().submit(function, item))
                if len(pending) >= 2 * self.number:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for one in pending:
                one.cancel()

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 most evidence needs no threads

            self._pool = ThreadPoolExecutor(self.number, thread_name_prefix="ptaudit")
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        return self._pool
