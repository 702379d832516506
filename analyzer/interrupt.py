"""Ctrl-C, SIGTERM and SIGHUP end the program soon, whatever it does, and nothing temporary stays.

A signal raises an exception, which unwinds the program.  Two things are in the way.  Python acts on a signal before
its next instruction, which comes when a library returns: after minutes, for a search through a large file.  And an
exception that is raised in a callback of an import or of the garbage collector is printed and forgotten.  A thread is
told of the signal at once: it sends the signal again where the exception was lost, and ends the process where nothing
else does.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from analyzer.temporary import remove_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Terminated", "die_of_interrupt", "prompt_signals"]

_PATIENCE = 1.0
"""Seconds in which Python may see the signal."""
_CALLBACK = 0.05
"""Seconds in which a callback ends that forgot an exception."""
_UNWINDING = 10.0
"""Seconds in which the program may unwind, and wait for children that clean up."""
_MESSAGE = b"ptaudit: interrupted\n"
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"
_LOST = b"\x7f"  # no signal has these numbers
_END = b"\0"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal asks the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def die_of_interrupt() -> None:
    """Let Ctrl-C end the process without a traceback: while the program is imported, and when it has ended."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Signals:
    """What was seen of the signals that end the program."""

    def __init__(self) -> None:
        self.number = 0
        """The one that was raised last."""
        self.seen = threading.Event()
        self.forgetting = False
        """Whether Python is in `forgotten`, where an exception would be forgotten again."""
        self.process = os.getpid()
        self.receiving, self.sending = os.pipe()
        os.set_blocking(self.sending, False)

    def handle(self, number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG002 the signature is Python's
        self.number = number
        self.seen.set()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(number)

    def forgotten(self, what: sys.UnraisableHookArgs) -> None:
        """An exception that Python cannot raise where it is: if it is ours, the signal is sent again."""
        if self.number and issubclass(what.exc_type, (KeyboardInterrupt, Terminated)) and os.getpid() == self.process:
            self.forgetting = True
            with suppress(OSError):
                os.write(self.sending, _LOST)
            self.forgetting = False
        else:
            sys.__unraisablehook__(what)

    def watch(self) -> None:
        """The thread; it ends with the block, or ends the process."""
        began = deadline = 0.0
        number = 0
        while True:
            left = max(deadline - time.monotonic(), 0.0) if number else None
            if not select.select([self.receiving], [], [], left)[0]:
                unwinding = self.seen.is_set() and deadline < began + _UNWINDING
                if not unwinding and os.getpid() == self.process:
                    _end(number)
                deadline = began + _UNWINDING
                continue
            byte = os.read(self.receiving, 1)
            if byte in (b"", _END):
                break
            if byte == _LOST:
                time.sleep(_CALLBACK)
                while self.forgetting:
                    time.sleep(_CALLBACK)
                os.kill(self.process, self.number)
            elif byte[0] in _ENDING and not number:
                number, began = byte[0], time.monotonic()
                deadline = began + _PATIENCE
        os.close(self.receiving)


@contextmanager
def prompt_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt and `Terminated` of signals; those that are ignored, or handled by others, stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: handler for number in _ENDING if (handler := signal.getsignal(number)) in usual}
    if not before:
        yield
        return
    signals = _Signals()
    for number in before:
        signal.signal(number, signals.handle)
    descriptor = signal.set_wakeup_fd(signals.sending, warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, signals.forgotten
    threading.Thread(target=signals.watch, name="ptaudit-signals", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        signal.set_wakeup_fd(descriptor)
        with suppress(OSError):
            os.write(signals.sending, _END)
        os.close(signals.sending)


def _end(number: int) -> NoReturn:
    with suppress(OSError):
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR)
        if number == signal.SIGINT:
            os.write(2, _MESSAGE)
    remove_all()
    os._exit(128 + number)
