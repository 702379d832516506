"""Exit statuses, and the one place where whatever goes wrong becomes one of them and one line on standard error.

0 nothing found, 1 findings, 2 usage or input, 3 undecided under ``--strict``, 4 something failed inside, 130
interrupted.  A status that a command sets itself (`click` or ``sys.exit``) passes through.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from types import FrameType
from typing import NoReturn

import click

from analyzer.interrupt import prompt_interrupt
from parsers.errors import PtauditError

__all__ = ["Status", "status_of"]

_UNPRINTABLE_OUTPUT = "standard output is closed"
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Status(IntEnum):
    """What the program ends with."""

    NOTHING = 0
    FINDINGS = 1
    USAGE = 2
    UNDECIDED = 3
    FAILED = 4
    INTERRUPTED = 130


class _Terminated(BaseException):
    """A signal asks the program to end: temporary files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_EXPECTED = (KeyboardInterrupt, click.Abort, click.ClickException, click.exceptions.Exit, _Terminated)


def status_of(run: Callable[[list[str]], object]) -> int:
    """Run the command line with the arguments of this process; its exit status, with one line on what went wrong."""
    debug = "--debug" in sys.argv[1:]
    arguments = [one for one in sys.argv[1:] if one != "--debug"]
    if sys.stdout is None:
        return _say(_UNPRINTABLE_OUTPUT, Status.FAILED)
    if sys.flags.optimize > 1:
        return _say("python -OO removes the texts that rules are made of: run it without", Status.FAILED)
    try:
        with _signals(), prompt_interrupt():
            done = run(arguments)
            sys.stdout.flush()
    except SystemExit as end:
        return _ended(end)
    except BaseException as error:
        if debug and not isinstance(error, _EXPECTED):
            import traceback  # noqa: PLC0415 rarely needed

            with suppress(OSError, ValueError):
                traceback.print_exc()
        return _failed(error)
    return done if isinstance(done, int) else Status.NOTHING


def _ended(end: SystemExit) -> int:
    """The status that a command set, once what it printed has arrived."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        return _failed(error)
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def _failed(error: BaseException) -> int:  # noqa: PLR0911 one line a kind
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return Status.USAGE
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return _say("interrupted", Status.INTERRUPTED)
    if isinstance(error, _Terminated):
        return 128 + error.number
    if isinstance(error, PtauditError):
        return _say(str(error), Status.USAGE)
    if isinstance(error, BrokenPipeError):
        _forget_output()
        return Status.FAILED
    if isinstance(error, MemoryError):
        return _say("out of memory", Status.FAILED)
    words = " ".join(str(error).split())[:500]
    if isinstance(error, OSError):
        _forget_output()
        return _say(words, Status.FAILED)
    return _say(f"failed inside: {type(error).__name__}: {words} (--debug says where)", Status.FAILED)


def _say(message: str, status: Status) -> Status:
    from analyzer.output import printable  # noqa: PLC0415 only where something is said

    with suppress(OSError, ValueError):
        click.echo(f"ptaudit: {printable(message)}", err=True)
    return status


def _forget_output() -> None:
    """What is still buffered cannot be written: at its end Python would try again, and complain."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the program as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _terminate) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 the signature is Python's
    raise _Terminated(number)
