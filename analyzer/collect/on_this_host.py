"""Collecting on a host: the same shell script that hosts without Python run (``collect.sh``)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from parsers.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from analyzer.sources.read import Request

__all__ = ["collect", "live", "script"]

CAPTURE = "capture/"


def script() -> str:
    """The collecting script, POSIX sh."""
    return resources.files("analyzer.collect").joinpath("collect.sh").read_text(encoding="utf-8")


def collect(arguments: Sequence[str]) -> int:
    """Run the script on this host, its notes on standard error; its exit status."""
    shell = shutil.which("sh")
    if shell is None:
        raise MissingDependencyError("collecting needs a shell, and there is no sh")
    done = subprocess.run([shell, "-s", "--", *arguments], input=script(), text=True, check=False)  # noqa: S603 our own script
    return done.returncode


@contextmanager
def live(request: Request, keep: Path | None) -> Iterator[Request]:
    """The request with a capture of this host beside its paths; ``keep``, if given, is where the capture stays."""
    with tempfile.TemporaryDirectory(prefix="ptaudit-") as temporary:
        home = f"{keep or temporary}/{CAPTURE}"
        if collect(["-o", home]) != 0:
            raise InputError("this host could not be captured", path=home)
        yield replace(request, paths=(*request.paths, Path(home)))
