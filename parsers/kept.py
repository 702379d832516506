"""Bytes of a source that are looked at again after it was parsed: in memory, or in a file that is kept open."""

from __future__ import annotations

import os
import weakref

__all__ = ["Kept"]


class Kept:
    """The bytes of a source, to be quoted.

    A file that is moved or removed meanwhile is still read; of one that was written to since, nothing is.
    """

    def __init__(self, data: bytes | None, path: str = "") -> None:
        self._data = data
        self._descriptor = -1
        self.error: OSError | None = None
        """Why the file cannot be opened."""
        if data is None:
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self.error = error
            else:
                weakref.finalize(self, os.close, self._descriptor)
            self._state = _state(self._descriptor)

    @property
    def descriptor(self) -> int:
        """Of the file; -1 where there is none, or it cannot be opened."""
        return self._descriptor

    @property
    def size(self) -> int:
        """Bytes when it was opened; 0 for a file that the kernel generates for each reader."""
        if self._data is not None:
            return len(self._data)
        return self._state[0] if self._state else 0

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from an offset on; none if the file is not what was parsed."""
        if self._data is not None:
            return self._data[offset : offset + size]
        try:
            raw = os.pread(self._descriptor, size, offset)
        except OSError:
            return b""
        return raw if self._state and _state(self._descriptor) == self._state else b""


def _state(descriptor: int) -> tuple[int, int] | None:
    """What changes when a file is written to; None for what the kernel generates for each reader (tracefs)."""
    try:
        now = os.fstat(descriptor)
    except OSError:
        return None
    return (now.st_size, now.st_mtime_ns) if now.st_size else None
