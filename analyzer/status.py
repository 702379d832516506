"""Exit statuses, and the one place where whatever goes wrong becomes one of them and one line on standard error.

0 nothing found, 1 findings, 2 usage or input, 3 undecided under ``--strict``, 4 something failed inside, 130
interrupted, 128 and its number after another signal.  A status that a command sets itself (`click` or ``sys.exit``)
passes through.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum

import click

from analyzer.interrupt import Terminated, prompt_signals
from analyzer.memory import allowed_bytes, at_most
from parsers.errors import PtauditError

__all__ = ["Status", "status_of"]

_UNPRINTABLE_OUTPUT = "standard output is closed"


class Status(IntEnum):
    """What the program ends with."""

    NOTHING = 0
    FINDINGS = 1
    USAGE = 2
    UNDECIDED = 3
    FAILED = 4
    INTERRUPTED = 130


_EXPECTED = (KeyboardInterrupt, click.Abort, click.ClickException, click.exceptions.Exit, Terminated)


def status_of(run: Callable[[list[str]], object]) -> int:
    """Run the command line with the arguments of this process; its exit status, with one line on what went wrong."""
    debug = "--debug" in sys.argv[1:]
    arguments = [one for one in sys.argv[1:] if one != "--debug"]
    if sys.stdout is None:
        return _say(_UNPRINTABLE_OUTPUT, Status.FAILED)
    if sys.flags.optimize > 1:
        return _say("python -OO removes the texts that rules are made of: run it without", Status.FAILED)
    try:
        with prompt_signals(), at_most(allowed_bytes()):
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
    if isinstance(error, Terminated):
        return 128 + error.number
    if isinstance(error, PtauditError):
        return _say(str(error), Status.USAGE)
    if isinstance(error, BrokenPipeError):
        _forget_output()
        return Status.FAILED
    if isinstance(error, MemoryError):
        most = allowed_bytes()
        bound = "" if most is None else f" (at most {most >> 20} MiB, three quarters of what this host has)"
        return _say(f"out of memory{bound}", Status.FAILED)
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
