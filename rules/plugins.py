"""Entry points of other distributions, which bring their own rules.

`importlib.metadata` costs a tenth of a cold start and hardly any environment has a plug-in, so it is imported only
where a file of entry points names the group.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

__all__ = ["entry_points"]

_INFO = ("*.dist-info", "*.egg-info", "EGG-INFO")
"""Directories of metadata: of wheels, of source installations, inside of an egg."""


def entry_points(group: str) -> Iterable[EntryPoint]:
    """What `importlib.metadata.entry_points` returns for the group."""
    if not (_has_other_finders() or any(_may_define(Path(entry), group.encode()) for entry in sys.path)):
        return ()
    from importlib import metadata  # noqa: PLC0415 see above

    return metadata.entry_points(group=group)


def _has_other_finders() -> bool:
    """Whether distributions can come from elsewhere than ``sys.path``."""
    return any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path)


@cache
def _may_define(entry: Path, group: bytes) -> bool:
    """Whether a distribution in this entry of ``sys.path`` may have entry points of the group."""
    try:
        if not entry.is_dir():
            return entry.exists()  # a zip file
        files = [file for kind in _INFO for file in entry.glob(f"{kind}/entry_points.txt")]
        return any(group in file.read_bytes() for file in files)
    except OSError:
        return True
