"""Evidence taken away from a capture, in every way that transport does it, and what the rules say of what is left."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.audit import audit
from analyzer.sources.read import Request
from analyzer.sources.sniff import is_kernel_dump
from parsers.errors import PtauditError
from rules.engine import Outcome
from rules.finding import Severity
from tests.law.dumps import damaged_dumps
from tests.law.fixtures import AFTER, BEFORE, Fixture
from tests.law.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Damage = Callable[[bytes], bytes]

__all__ = ["DAMAGES", "Case", "Violation", "severe_rules", "trials", "violations"]

EARLIER = "earlier_page_tables"
REASSURING = frozenset({Outcome.PASSED, Outcome.NOT_APPLICABLE})

_ERROR_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"


def _cut(percent: int) -> Damage:
    return lambda data: data[: len(data) * percent // 100]


def _cut_line(percent: int) -> Damage:
    return lambda data: data[: data.rfind(b"\n", 0, len(data) * percent // 100) + 1]


def _middle_lost(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 3] + lines[2 * len(lines) // 3 :])


def _head_lost(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[len(lines) // 3 :])


def _thinned(keep: int, of: int) -> Damage:
    return lambda data: b"".join(line for at, line in enumerate(data.splitlines(keepends=True)) if at % of < keep)


_ANY: dict[str, Damage | None] = {
    "removed": None,
    "emptied": lambda _: b"",
    "zeroed": lambda data: bytes(len(data)),
    "error page": lambda _: _ERROR_PAGE,
    **{f"cut at {percent} %": _cut(percent) for percent in (25, 50, 75, 95)},
}
_LINES: dict[str, Damage | None] = {
    **{f"cut at a line, {percent} %": _cut_line(percent) for percent in (25, 50, 75, 95)},
    "thinned to 2 of 3 lines": _thinned(2, 3),
    "thinned to 1 of 2 lines": _thinned(1, 2),
    "without its middle": _middle_lost,
    "without its head": _head_lost,
}
DAMAGES: dict[str, Damage | None] = _ANY | _LINES
"""How a file of lines is damaged; None removes it.  Of dumps see `tests.law.dumps`."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file of one fixture."""

    fixture: Fixture
    file: str

    def __str__(self) -> str:
        return f"{self.fixture.name}/{self.file}"


@dataclass(frozen=True, slots=True)
class Violation:
    """What a rule says when a file is damaged, and must not; the whole audit failed if ``rule`` is empty."""

    case: Case
    damage: str
    rule: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.case}, {self.damage}: {self.rule or 'the audit'} {self.outcome}"


def _request(home: Path) -> Request:
    earlier = home / EARLIER
    if (home / BEFORE).is_dir():
        return Request(tuple(one for one in (home / BEFORE, home / AFTER) if one.is_dir()))
    return Request((earlier, home) if earlier.exists() else (home,))


def _put_together(fixture: Fixture, home: Path) -> Path:
    for name, source in fixture.files.items():
        target = home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return home


def severe_rules(fixture: Fixture) -> set[str] | None:
    """Rules that report something of high severity or above in the whole fixture; None where it is refused."""
    with tempfile.TemporaryDirectory(prefix="law-") as folder:
        try:
            report = audit(_request(_put_together(fixture, Path(folder) / "capture")))
        except PtauditError:
            return None
    return {one.rule.code for one in report.findings if one.severity >= Severity.HIGH}


def _damaged(source: Path, damages: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """What was done to a file, and what is left of it; None if it is gone."""
    original = source.read_bytes()
    dump = is_kernel_dump(source)
    wanted = tuple(damages) or tuple(_ANY if dump else DAMAGES)
    for name in wanted:
        damage = DAMAGES[name]
        yield name, None if damage is None else damage(original)
    if dump and not damages:
        yield from damaged_dumps(source)


def violations(case: Case, fired: set[str], damages: Iterable[str] = ()) -> Iterator[Violation]:
    """What the laws forbid, for one file: see `trials`."""
    for _, broken in trials(case, fired, damages):
        yield from broken


def trials(case: Case, fired: set[str], damages: Iterable[str] = ()) -> Iterator[tuple[str, list[Violation]]]:
    """Each damage that was done to one file, and what it made the rules say that the laws forbid.

    Rules that ``fired`` in the whole fixture must not reassure.  Where none did, none may report anything of high
    severity or above; where a crash dump is damaged, no other rule may.  An audit that refuses the evidence breaks
    neither law.

    ``damages`` are some of the names of `DAMAGES`; without any, each is done that leaves something else than another.
    """
    source = case.fixture.files[case.file]
    done = {hashlib.sha256(source.read_bytes()).digest()}
    memory = Memory()
    with tempfile.TemporaryDirectory(prefix="law-") as folder:
        home = _put_together(case.fixture, Path(folder) / "capture")
        for name, data in _damaged(source, damages):
            (home / case.file).unlink(missing_ok=True)
            if data is not None:
                digest = hashlib.sha256(data).digest()
                if digest in done:
                    continue
                done.add(digest)
                (home / case.file).write_bytes(data)
            with memory.used():
                broken = list(_judged(case, name, home, fired, dump=is_kernel_dump(source)))
            yield name, broken


def _judged(case: Case, damage: str, home: Path, fired: set[str], *, dump: bool) -> Iterator[Violation]:
    try:
        report = audit(_request(home), only=() if dump else fired)
    except PtauditError:
        return
    except Exception as error:  # whatever it is, it is a violation
        yield Violation(case, damage, "", f"{type(error).__name__}: {error}")
        return
    for verdict in report.verdicts:
        reassures = verdict.rule.code in fired and verdict.outcome in REASSURING
        if verdict.outcome is Outcome.ERROR or reassures:
            yield Violation(case, damage, verdict.rule.code, f"{verdict.outcome} {verdict.reason}".rstrip())
    if not fired or dump:
        created = {one.rule.code: one for one in reversed(report.findings) if one.severity >= Severity.HIGH}
        for code, one in sorted(created.items()):
            if code in fired:
                continue
            yield Violation(case, damage, code, f"reports {one.severity.name.lower()}: {one.hit.title}")
