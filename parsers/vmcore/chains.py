"""Records that follow each other without an index: each one says only where the next one starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parsers.mapping import I64

__all__ = ["chain"]

_DOUBLINGS = 4  # a jump over 2**4 records; each doubling is an array as long as the data


def chain(jump: I64) -> I64:
    """Positions reachable from 0, ascending: ``jump[i]`` is where the next record starts if one starts at i.

    ``jump`` only goes forward; positions of ``jump.size`` or more end the chain.  The jumps are doubled, so that a
    loop in Python takes one step for 16 records, and array operations find those between.
    """
    size = jump.size
    if not size:
        return np.zeros(0, dtype=np.int64)
    steps: list[NDArray[np.int32]] = [np.append(np.minimum(jump, size), size).astype(np.int32)]  # the end: to itself
    for _ in range(_DOUBLINGS):
        steps.append(steps[-1][steps[-1]])
    longest, at, marks = steps.pop(), 0, []
    while at < size:
        marks.append(at)
        at = int(longest[at])
    found = np.array(marks, dtype=np.int64)
    for step in reversed(steps):
        found = np.stack((found, step[found].astype(np.int64)), axis=1).ravel()
    return found[found < size]
