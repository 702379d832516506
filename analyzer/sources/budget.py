"""What reading one evidence set may cost, whatever it holds and however it is packed.

The limits are generous for what hosts produce, and are there because evidence comes from strangers: an archive of a few
kilobytes can claim any size.  Every reader of `analyzer.sources` draws on the same budget.
"""

from __future__ import annotations

import time
from dataclasses import field

from parsers.errors import InputError
from parsers.records import dataclass

__all__ = ["Bounds", "Budget"]


@dataclass(frozen=True)
class Bounds:
    """Of everything that one audit reads together, unless it says otherwise."""

    kept_bytes: int = 4 << 30
    """Held in memory, from files and archives."""
    unpacked_bytes: int = 64 << 30
    """Decompressed to get at it."""
    looks: int = 20_000
    """Files of unknown name that are looked into."""
    look_bytes: int = 32 << 20
    """Of one such file; a larger one has to be named."""
    looked_bytes: int = 2 << 30
    """Of all such files."""
    look_seconds: float = 60.0
    """For all such files; then what is left of them is listed as unread."""


@dataclass
class Budget:
    """What is left of the bounds."""

    bounds: Bounds = field(default_factory=Bounds)
    kept: int = 0
    unpacked: int = 0
    looks: int = 0
    looked: int = 0
    seconds: float = 0.0

    def keep(self, size: int, path: str) -> None:
        """Count bytes that are held; InputError where that is too much."""
        self.kept += size
        if self.kept > self.bounds.kept_bytes:
            raise InputError(f"more than {self.bounds.kept_bytes >> 20} MiB to read in all", path=path)

    def unpack(self, size: int, path: str) -> None:
        """Count decompressed bytes; InputError where that is too much."""
        self.unpacked += size
        if self.unpacked > self.bounds.unpacked_bytes:
            raise InputError(f"unpacks to more than {self.bounds.unpacked_bytes >> 30} GiB in all", path=path)

    def may_look(self, size: int) -> str:
        """Why a file of this size and unknown name is not looked into; empty if it is, and then it is counted."""
        bounds = self.bounds
        if size > bounds.look_bytes:
            return f"its name is not known, and it is larger than {bounds.look_bytes >> 20} MiB: name its kind"
        if self.looks >= bounds.looks or self.looked + size > bounds.looked_bytes or self.seconds > bounds.look_seconds:
            return "its name is not known, and too many such files were examined: name it or its kind"
        self.looks += 1
        self.looked += size
        return ""

    def spend(self, since: float) -> None:
        """Count the time since a `time.monotonic` as spent on looking."""
        self.seconds += time.monotonic() - since
