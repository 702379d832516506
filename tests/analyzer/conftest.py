"""The command line as a user runs it, in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from analyzer.cli import main

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def ptaudit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    def run(*arguments: str | os.PathLike[str]) -> Done:
        monkeypatch.setattr(sys, "argv", ["ptaudit", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return run


@pytest.fixture
def damaged() -> Path:
    """Struct pages were lost: one finding is critical, some rules are undecided."""
    return CAPTURES / "pmem-6.12-vuln" / "02-one-removed"


@pytest.fixture
def sound() -> Path:
    return CAPTURES / "dimm-6.12" / "02-dimm-online"
