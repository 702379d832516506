"""Which bundles there are: directories and files that hold a capture, found without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

import click

from analyzer.output import printable
from parsers.errors import InputError
from parsers.expressions import expression
from parsers.kinds import kind_of_path

__all__ = ["Bundle", "find_bundles", "missing_hosts"]

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
_DUMPS = (".core", ".core.zst", ".kdump", ".elf.zst")
MAX_DEPTH = 8
_TREE = {"proc", "sys"}
_COLLECTED = expression(r"ptaudit-(.+)-\d{8}-\d{6}")


class Bundle(NamedTuple):
    """A bundle's absolute path, and the host: its path below what was asked for, without an archive's suffix."""

    path: str
    host: str


def find_bundles(paths: Iterable[str]) -> Iterator[Bundle]:
    """Bundles below ``paths`` in order: a directory that holds a capture, an archive, a crash dump.

    ``@FILE`` names a list, one path a line, ``@-`` one on standard input.  Raises `InputError` for a path
    or list that does not exist; a path in a list that does not is a bundle that cannot be read.
    """
    for path in paths:
        if path.startswith("@"):
            for line in _listed(path[1:]):
                yield from _bundles(line)
        elif not os.path.exists(path):  # noqa: PTH110 never raises, as below
            raise InputError("no such bundle", path=path)
        else:
            yield from _bundles(path)


def _bundles(path: str) -> Iterator[Bundle]:
    root = Path(os.path.abspath(path))  # noqa: PTH100 a link that was named keeps its name
    for found in _below(root, MAX_DEPTH, named=True):
        yield Bundle(str(found), _host(found, root))


def _host(bundle: Path, root: Path) -> str:
    name = root.name if bundle == root else str(bundle.relative_to(root))
    suffix = max((one for one in _ARCHIVES if name.endswith(one)), key=len, default="")
    return name.removesuffix(suffix) or name


def _listed(name: str) -> Iterator[str]:
    try:
        with click.open_file(name, encoding="utf-8", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, 1):
                if "\0" in line:
                    raise InputError("a NUL in a list: one path a line is expected", path=name, line=number)
                if line.strip() and not line.startswith("#"):
                    yield line.strip()
    except OSError as error:
        raise InputError(error.strerror or str(error), path=name) from error


def _below(path: Path, depth: int, *, named: bool = False) -> Iterator[Path]:
    """The bundle that ``path`` is, or those in it."""
    if not os.path.isdir(path):  # noqa: PTH112 a name too long for a file is not a directory
        if named or path.name.endswith(_ARCHIVES + _DUMPS):
            yield path
        return
    folders, files = _listing(path)
    inner = [name for name in folders if name not in _TREE and _is_capture(*_listing(path / name))]
    if (_is_capture(folders, files) and not inner) or (_is_empty(path) and not named):
        yield path  # of an empty one too: the host is there, and nothing came from it
    elif depth:
        for name in sorted([*folders, *(name for name in files if name.endswith(_ARCHIVES + _DUMPS))]):
            yield from _below(path / name, depth - 1)


def _listing(path: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder; none where it cannot be listed."""
    try:
        with os.scandir(path) as entries:
            named = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError as error:
        click.echo(printable(f"ptaudit: {path}: {error.strerror or error}"), err=True)
        return [], []
    return [name for name, folder in named if folder], [name for name, folder in named if not folder]


def _is_empty(path: Path) -> bool:
    """Whether a directory that can be listed has nothing in it."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def missing_hosts(bundles: Iterable[Bundle], expected: Path, root: str) -> Iterator[Bundle]:
    """The bundles, and after them one for each host that ``expected`` names, one a line, and no bundle is of.

    A host is named as its bundle, as the last part of its path, or as the script names it (``ptaudit-HOST-TIME``).
    """
    seen: set[str] = set()
    for one in bundles:
        last = PurePath(one.host).name
        collected = _COLLECTED.fullmatch(last)
        seen |= {one.host, last} | ({collected[1]} if collected else set())
        yield one
    for line in _listed(str(expected)):
        if line not in seen:
            yield Bundle(os.path.join(os.path.abspath(root), line), line)  # noqa: PTH100, PTH118 as in _bundles


def _is_capture(folders: list[str], files: list[str]) -> bool:
    """A capture has files that are understood, or is a copied tree."""
    return not _TREE.isdisjoint(folders) or any(kind.is_read for kind in map(kind_of_path, files) if kind is not None)
