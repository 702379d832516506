"""Writing reports: a reader sees the old file or the new one, never a part of it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from parsers.errors import UsageError

__all__ = ["is_directory", "make_directory", "write_bytes", "write_text"]


def is_directory(path: str) -> bool:
    """Whether a path names a directory: one that exists, or one that is written with a slash at its end."""
    return path.endswith(("/", os.sep)) or Path(path).is_dir()


def make_directory(path: Path) -> None:
    """Make a directory where there is none; UsageError where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot be made: {error.strerror or error}", path=str(path)) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of text."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole: into a temporary file beside it, which then takes its name.

    A pipe or device is written to directly.  UsageError, with the path, where that fails.
    """
    try:
        target = path.resolve() if path.is_symlink() else path
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_bytes(data)
            return
        _replace(target, data)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", path=str(path)) from error


def _replace(target: Path, data: bytes) -> None:
    # The name ends in .tmp, so that a collector of *.prom files does not read it.
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode(target))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mode(target: Path) -> int:
    """The mode of the file that is replaced, or what a new file gets: other users' collectors must be able to read."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
