"""Writing reports: a reader sees the old file or the new one, never a part of it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from analyzer.temporary import file_beside
from parsers.errors import UsageError
from parsers.expressions import expression

__all__ = [
    "as_json",
    "is_directory",
    "make_directory",
    "printable",
    "refuse_evidence",
    "shows_colour",
    "visible",
    "write_bytes",
    "write_text",
]

_UNPRINTABLE = expression(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e0fff]"
)
"""Control characters but tab and newline (C0, DEL, C1), and what reorders or hides text (bidi, zero width)."""


def printable(text: str) -> str:
    """Captured text with control characters made visible: a dump must not drive the reader's terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text.replace("\t", " "))


def shows_colour(stream: TextIO) -> bool:
    """Whether colours are wanted there: on a terminal that has them, without NO_COLOR (no-color.org)."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def visible(text: str, form: str) -> str:
    """A rendered report of some format without control characters from evidence, and still of that format."""
    if form == "text":
        return text  # its own colours are control characters: it makes each field printable itself
    if form in {"json", "sarif"}:
        return _UNPRINTABLE.sub(lambda match: _escaped(match[0]), text)
    return _UNPRINTABLE.sub("\ufffd" if form == "html" else lambda match: f"\\x{ord(match[0]):02x}", text)


def _escaped(char: str) -> str:
    """A character as JSON escapes it."""
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def as_json(document: object) -> str:
    """Plain data as JSON text that is safe on a terminal."""
    return visible(json.dumps(document, indent=2, ensure_ascii=False), "json")


def refuse_evidence(output: Path, evidence: Iterable[str]) -> None:
    """UsageError where ``output`` is one of these files."""
    try:
        target = output.stat()
    except OSError:
        return
    for name in evidence:
        with contextlib.suppress(OSError):
            if os.path.samestat(target, os.stat(name)):  # noqa: PTH116 names of any kind
                raise UsageError("is evidence: name another file to write", path=str(output))


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
    """Write a file whole: into a temporary file next to it, which is then renamed.

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
    with file_beside(target) as (handle, temporary):
        with open(handle, "wb") as file:  # noqa: PTH123 a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode(target))
        temporary.replace(target)


def _mode(target: Path) -> int:
    """The mode of the file that is replaced, or what a new file gets: other users' collectors must be able to read."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
