"""Which bundles there are: directories and files that hold a capture, found without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from analyzer.sources.kinds import kind_of_path
from parsers.errors import InputError

__all__ = ["find_bundles"]

_FILES = (
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".zip",
    ".core",
    ".core.zst",
    ".kdump",
    ".elf.zst",
)
MAX_DEPTH = 8
_TREE = {"proc", "sys"}


def find_bundles(paths: Iterable[str]) -> Iterator[str]:
    """Bundles below ``paths`` in order: a directory that holds a capture, an archive, a crash dump.

    ``@FILE`` names a list, one path a line.  Raises `InputError` for a path that does not exist.
    """
    for path in paths:
        if path.startswith("@"):
            yield from find_bundles(_listed(Path(path[1:])))
        elif not Path(path).exists():
            raise InputError("no such bundle", path=path)
        else:
            yield from _below(Path(path), MAX_DEPTH, named=True)


def _listed(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            yield from (line.strip() for line in lines if line.strip() and not line.startswith("#"))
    except OSError as error:
        raise InputError(error.strerror or str(error), path=str(path)) from error


def _below(path: Path, depth: int, *, named: bool = False) -> Iterator[str]:
    """The bundle that ``path`` is, or those in it."""
    if not path.is_dir():
        if named or path.name.endswith(_FILES):
            yield str(path)
        return
    folders, files = _listing(path)
    inner = [name for name in folders if name not in _TREE and _is_capture(*_listing(path / name))]
    if _is_capture(folders, files) and not inner:
        yield str(path)
    elif depth:
        for name in sorted([*folders, *(name for name in files if name.endswith(_FILES))]):
            yield from _below(path / name, depth - 1)


def _listing(path: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder."""
    with os.scandir(path) as entries:
        named = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    return [name for name, folder in named if folder], [name for name, folder in named if not folder]


def _is_capture(folders: list[str], files: list[str]) -> bool:
    """A capture has files that are understood, or is a copied tree."""
    return not _TREE.isdisjoint(folders) or any(map(kind_of_path, files))
