"""What lies below a directory, in the order of the paths, however it was made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from parsers.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["below"]

MAX_DEPTH = 200
MAX_FILES = 2_000_000


def below(root: Path) -> Iterator[tuple[str, Path]]:
    """Relative path and path of everything but directories, which are searched; links are not followed.

    A directory that cannot be listed, or lies in ``MAX_DEPTH`` others, comes as itself.  Raises `InputError` where
    ``root`` cannot be listed, and for more than ``MAX_FILES`` files.
    """
    pending, count = [("", 0, True)], 0
    while pending:
        relative, depth, folder = pending.pop()
        path = root / relative
        if not folder:
            count += 1
            if count > MAX_FILES:
                raise InputError(f"more than {MAX_FILES} files", path=str(root))
            yield relative, path
            continue
        if depth > MAX_DEPTH:
            yield relative, path
            continue
        try:
            with os.scandir(path) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            if not relative and not isinstance(error, PermissionError):
                raise InputError(error.strerror or str(error), path=str(path)) from error
            yield relative, path
        else:
            pending += [(f"{relative}/{name}".lstrip("/"), depth + 1, is_folder) for name, is_folder in reversed(found)]
