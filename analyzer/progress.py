"""Progress bars for whatever takes more than two seconds: on standard error, and on a terminal only."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from parsers.progress import Step, listen

__all__ = ["shown_progress"]

_PATIENCE = 2.0  # seconds before a step is shown
_EVERY = 0.2


@contextmanager
def shown_progress() -> Iterator[None]:
    """Show the steps of what is done meanwhile, if a person is looking at standard error."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    bars = _Bars()
    try:
        with listen(bars):
            yield
    finally:
        bars.close()


class _Bars:
    """The bars of the steps that take long; a thread draws them, and rich is imported when the first one is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._tasks: dict[Step, Any] = {}
        self._bar: Any = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def begin(self, step: Step) -> None:
        """Watch a step; a forked process has no terminal of its own."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._steps.append(step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ptaudit-progress", daemon=True)
                self._thread.start()

    def end(self, step: Step) -> None:
        """Take its bar away, before anything else is printed."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if step in self._steps:
                self._steps.remove(step)
            task = self._tasks.pop(step, None)
            if task is not None:
                self._bar.remove_task(task)
            if not self._tasks:
                self._stop()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._closed.set()
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def _run(self) -> None:
        while not self._closed.wait(_EVERY):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        slow = [step for step in self._steps if now - step.began >= _PATIENCE]
        if not slow or self._closed.is_set():
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
        for step in slow:
            if step not in self._tasks:
                self._tasks[step] = self._bar.add_task(_printable(step.what), total=step.total, rate="")
            rate = _rate(step.done / (now - step.began), step.unit)
            self._bar.update(self._tasks[step], completed=step.done, total=step.total, rate=rate)
        self._bar.refresh()


def _bar() -> Any:  # noqa: ANN401 rich is imported here only
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    )


def _rate(rate: float, unit: str) -> str:
    """How much is done a second; nothing where nothing is counted."""
    if not rate:
        return ""
    return f"{rate / 1e6:,.1f} MB/s" if unit == "bytes" else f"{rate:,.0f} {unit}/s"


def _printable(what: str) -> str:
    from analyzer.output import printable  # noqa: PLC0415 not needed off a terminal

    return printable(what)
