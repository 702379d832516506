"""Ctrl-C ends the program at once, also where compiled code runs on and Python does not see the signal.

Python notes a signal and acts on it before its next instruction, which comes when a library returns: after minutes, for
a search through a large file.  A thread is told of the signal at once, and ends the process if nothing else does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["prompt_interrupt"]

_PATIENCE = 1.0
"""Seconds in which Python may see the signal and unwind."""
_STATUS = 130
_MESSAGE = b"ptaudit: interrupted\n"
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"
_END = b"\0"  # no signal has this number


@contextmanager
def prompt_interrupt() -> Iterator[None]:
    """Watch for Ctrl-C; nothing where it is ignored, or handled by somebody else."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = threading.Event()

    def see(number: int, frame: FrameType | None) -> None:
        seen.set()
        signal.default_int_handler(number, frame)

    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    signal.signal(signal.SIGINT, see)
    before = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiving, seen), name="ptaudit-interrupt", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(OSError):
            os.write(sending, _END)
        os.close(sending)


def _watch(receiving: int, seen: threading.Event) -> None:
    process = os.getpid()
    while (number := os.read(receiving, 1)) not in (b"", _END):
        if number[0] == signal.SIGINT and not seen.wait(_PATIENCE) and os.getpid() == process:
            _end()
    os.close(receiving)


def _end() -> None:
    with suppress(OSError):
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR)
        os.write(2, _MESSAGE)
    os._exit(_STATUS)
