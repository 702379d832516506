"""Traces of kernels, some lines changed."""

import re

from rules.engine import Outcome

FIRED, PASSED, UNDECIDED = Outcome.FIRED, Outcome.PASSED, Outcome.UNDECIDED


def counted(lines):
    """Lets the head count the entries that are there, as that of a trace does in which just these were written."""
    entries = sum(re.search(r"\[\d{3}\] \S+ +\d+\.\d+: ", line) is not None for line in lines)
    head = r"(# entries-in-buffer/entries-written: )\d+/\d+"
    return [re.sub(head, rf"\g<1>{entries}/{entries}", line) for line in lines]


def without(*patterns):
    """Leaves out the lines in which one is found."""
    return lambda lines: [line for line in lines if not any(re.search(one, line) for one in patterns)]


def replaced(pattern, text):
    return lambda lines: [re.sub(pattern, text, line) for line in lines]


def at_place(pattern, *more):
    """Puts lines in front of the first in which it is found."""

    def change(lines):
        at = next(at for at, line in enumerate(lines) if re.search(pattern, line))
        return [*lines[:at], *more, *lines[at:]]

    return change
