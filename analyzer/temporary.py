"""Temporary files and folders with a name, which go away however the program ends.

Each is removed when its block ends, also by an exception that a signal raises.  Where a signal finds compiled code that
does not return, no block ends: `remove_all` is called before the process does (`analyzer.interrupt`).
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["file_beside", "folder", "remove_all"]

_ours: dict[str, int] = {}
"""What is there now, with the process that made it: a forked one removes only its own."""


@contextmanager
def folder(*, beside: Path | None = None) -> Iterator[Path]:
    """A folder that only its owner can read, in ``beside`` or where temporary files are; OSError as of mkdtemp."""
    import tempfile  # noqa: PLC0415 most commands make none

    name = tempfile.mkdtemp(prefix="ptaudit-" if beside is None else ".ptaudit-", dir=beside)
    with _owned(name):
        yield Path(name)


@contextmanager
def file_beside(target: Path) -> Iterator[tuple[int, Path]]:
    """A new file next to ``target``, as descriptor and path; removed unless the block renamed it.

    Its name ends in .tmp, so that a collector of *.prom files does not read it.  OSError as of mkstemp.
    """
    import tempfile  # noqa: PLC0415 for a file only

    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    with _owned(name):
        yield handle, Path(name)


@contextmanager
def _owned(name: str) -> Iterator[None]:
    _ours[name] = os.getpid()
    try:
        yield
    finally:
        _remove(name)
        _ours.pop(name, None)


def _remove(name: str) -> None:
    with suppress(OSError):
        Path(name).unlink()
        return
    import shutil  # noqa: PLC0415 for a folder only

    shutil.rmtree(name, ignore_errors=True)


def remove_all() -> None:
    """Remove what is there, for a process that ends at once."""
    for name, process in list(_ours.items()):
        if process == os.getpid():
            _remove(name)
