"""A last line against evidence that takes all memory: RLIMIT_DATA, where every other bound has failed.

It counts what a process allocates, with threads and libraries, and neither files that are mapped nor code.  An
allocation beyond it fails, which Python, numpy and DuckDB raise as an error; without it the host would swap, or kill
other processes.  Only the soft limit is touched, and never raised.
"""

from __future__ import annotations

import resource
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SHARE", "allowed_bytes", "at_most", "more_than_now"]

SHARE = 3, 4
"""Of the memory of this host: the program may take three quarters."""
_STATUS = Path("/proc/self/status")
_MEMORY = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def allowed_bytes() -> int | None:
    """Bytes that the program may allocate on this host, or in its container; None where that is not known."""
    amounts = []
    with suppress(OSError, ValueError, IndexError):
        amounts.append(int(_MEMORY.read_text(encoding="ascii").split()[1]) << 10)
    with suppress(OSError, ValueError):
        amounts.append(int(_CGROUP.read_text(encoding="ascii")))
    return min(amounts) * SHARE[0] // SHARE[1] if amounts else None


def more_than_now(size: int) -> int | None:
    """What this process has allocated, and ``size`` bytes; None where that is not known."""
    with suppress(OSError, ValueError, StopIteration):
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return (int(next(line for line in lines if line.startswith("VmData:")).split()[1]) << 10) + size
    return None


@contextmanager
def at_most(size: int | None) -> Iterator[None]:
    """Let allocations beyond ``size`` bytes of this process fail meanwhile; None is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if size is None or sys.platform != "linux" or (soft != resource.RLIM_INFINITY and soft <= size):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
