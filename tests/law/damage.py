"""Evidence taken away from a capture, in every way that transport does it, and what becomes of the rules that fired."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers.errors import PtauditError
from rules.engine import Outcome
from rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DAMAGES", "Case", "Violation", "cases", "severe_rules", "violations"]

FIXTURES = Path(__file__).parents[2] / "fixtures"
NOT_EVIDENCE = frozenset({"expected.json", "trace.dat"})
REASSURING = frozenset({Outcome.PASSED, Outcome.NOT_APPLICABLE})

_ERROR_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"


def _cut(percent: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: len(data) * percent // 100]


def _cut_line(percent: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: data.rfind(b"\n", 0, len(data) * percent // 100) + 1]


def _middle_lost(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 3] + lines[2 * len(lines) // 3 :])


def _head_lost(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[len(lines) // 3 :])


def _thinned(keep: int, of: int) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(line for at, line in enumerate(data.splitlines(keepends=True)) if at % of < keep)


DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    "removed": None,
    "emptied": lambda _: b"",
    "zeroed": lambda data: bytes(len(data)),
    "error page": lambda _: _ERROR_PAGE,
    **{f"cut at {percent} %": _cut(percent) for percent in (25, 50, 75, 95)},
    **{f"cut at a line, {percent} %": _cut_line(percent) for percent in (25, 50, 75, 95)},
    "thinned to 2 of 3 lines": _thinned(2, 3),
    "thinned to 1 of 2 lines": _thinned(1, 2),
    "without its middle": _middle_lost,
    "without its head": _head_lost,
}
"""How a file is damaged; None removes it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file of one fixture."""

    fixture: Path
    file: str

    def __str__(self) -> str:
        return f"{self.fixture.relative_to(FIXTURES)}/{self.file}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that fired, and reassures when a file is damaged."""

    case: Case
    damage: str
    rule: str
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.case}, {self.damage}: {self.rule} {self.outcome}"


def cases() -> Iterator[Case]:
    """Every file of every fixture that is one capture."""
    fixtures = sorted((*FIXTURES.glob("captures/*/*"), *FIXTURES.glob("rules/*/fires*")))
    for fixture in fixtures:
        if fixture.is_dir() and not (fixture / "earlier_page_tables").exists():
            names = sorted(path.name for path in fixture.iterdir() if path.is_file())
            yield from (Case(fixture, name) for name in names if name not in NOT_EVIDENCE)


def severe_rules(fixture: Path) -> set[str]:
    """Rules that report something of high severity or above in the whole fixture."""
    return {one.rule.code for one in audit(Request((fixture,))).findings if one.severity >= Severity.HIGH}


def violations(case: Case, fired: set[str], damages: tuple[str, ...] = tuple(DAMAGES)) -> Iterator[Violation]:
    """What the law forbids, for one file.  An audit that refuses the evidence reassures nobody."""
    original = (case.fixture / case.file).read_bytes()
    with tempfile.TemporaryDirectory(prefix="law-") as folder:
        copy = Path(folder) / "capture"
        shutil.copytree(case.fixture, copy, ignore=shutil.ignore_patterns(*NOT_EVIDENCE))
        for name in damages:
            damage = DAMAGES[name]
            (copy / case.file).unlink(missing_ok=True)
            if damage is not None:
                (copy / case.file).write_bytes(damage(original))
            try:
                report = audit(Request((copy,)))
            except PtauditError:
                continue
            for verdict in report.verdicts:
                if verdict.rule.code in fired and verdict.outcome in REASSURING:
                    yield Violation(case, name, verdict.rule.code, verdict.outcome)
