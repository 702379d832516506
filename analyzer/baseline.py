"""Known findings that somebody has accepted, with a reason and a day on which that ends.

A baseline is TOML::

    schema = "ptaudit.baseline/1"

    [[accept]]
    rule = "VMM-07"
    fingerprint = "1331399761439fc0"
    reason = "base pages after fragmentation, checked by the memory team"
    expires = 2027-03-31

``expires`` may be left out; on that day the entry still holds.  Fingerprints do not change while the
damage stays where it is, so one file serves every later capture of a host.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from parsers.errors import FormatError, InputError
from parsers.records import dataclass
from rules.engine import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from analyzer.audit import Report
    from rules.engine import Verdict
    from rules.finding import Finding

__all__ = ["SCHEMA", "Baseline", "Entry", "read_baseline", "render_baseline"]

SCHEMA = "ptaudit.baseline/1"
VALID_DAYS = 90
"""How long a written entry holds until somebody looks at it again."""
MAX_BYTES = 16 << 20
MAX_LINE = 16 << 10
_KEYS = {"rule": str, "fingerprint": str, "reason": str, "expires": date}


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted finding."""

    rule: str
    fingerprint: str
    reason: str
    expires: date | None = None

    def holds(self, today: date) -> bool:
        """Whether it has not expired."""
        return self.expires is None or today <= self.expires


@dataclass(frozen=True)
class Baseline:
    """The accepted findings of a file."""

    path: str = ""
    entries: tuple[Entry, ...] = ()

    @cached_property
    def _named(self) -> dict[tuple[str, str], list[Entry]]:
        """Entries by rule and fingerprint."""
        named: dict[tuple[str, str], list[Entry]] = {}
        for one in self.entries:
            named.setdefault((one.rule, one.fingerprint), []).append(one)
        return named

    def accepting(self, finding: Finding, today: date) -> Entry | None:
        """The entry by which a finding is accepted today."""
        if not self.entries:
            return None
        return next((one for one in self._named.get(_name(finding), ()) if one.holds(today)), None)

    def stale(self, verdicts: Iterable[Verdict], today: date) -> list[tuple[Entry, str]]:
        """Entries that have expired, and entries of rules that were decided and did not find that.

        A rule that was left out or is undecided leaves its entries open.
        """
        decided = {
            verdict.rule.code: {_name(one) for one in verdict.findings} for verdict in verdicts if _is_decided(verdict)
        }
        found: list[tuple[Entry, str]] = []
        for entry in self.entries:
            if not entry.holds(today):
                found.append((entry, f"expired on {entry.expires}"))
            elif entry.rule in decided and (entry.rule, entry.fingerprint) not in decided[entry.rule]:
                found.append((entry, "not found any more"))
        return found


def _name(finding: Finding) -> tuple[str, str]:
    return finding.rule.code, finding.fingerprint


def _is_decided(verdict: Verdict) -> bool:
    return verdict.outcome in {Outcome.FIRED, Outcome.PASSED, Outcome.NOT_APPLICABLE} and not (
        verdict.outcome is Outcome.FIRED and verdict.reason
    )


def read_baseline(path: Path) -> Baseline:
    """Read a baseline; FormatError, with the entry, where it is not one."""
    import tomllib  # noqa: PLC0415 only where there is a baseline

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"larger than {MAX_BYTES >> 20} MiB, no baseline", path=str(path))
        text = path.read_text(encoding="utf-8")
        if max(map(len, text.split("\n"))) > MAX_LINE:
            raise FormatError(f"a line of more than {MAX_LINE} characters, no baseline", path=str(path))
        document = tomllib.loads(text)
    except OSError as error:
        raise InputError(error.strerror or str(error), path=str(path)) from error
    except (ValueError, RecursionError) as error:  # numbers of too many digits, lists in lists without end
        raise FormatError(f"no baseline, which is TOML: {error}", path=str(path)) from error
    if document.get("schema") != SCHEMA:
        raise FormatError(f'no baseline: schema = "{SCHEMA}" is missing', path=str(path))
    entries = document.get("accept", [])
    if not isinstance(entries, list):
        raise FormatError("accept is not a list: [[accept]] begins an entry", path=str(path))
    return Baseline(str(path), tuple(_entry(number, one, str(path)) for number, one in enumerate(entries, 1)))


def _entry(number: int, entry: Any, path: str) -> Entry:  # noqa: ANN401 whatever TOML holds
    where = f"[[accept]] number {number}"
    if not isinstance(entry, dict):
        raise FormatError(f"{where} is not a table", path=path)
    for key, value in entry.items():
        wanted = _KEYS.get(key)
        if wanted is None:
            raise FormatError(f"{where}: unknown key {key!r}; known: {', '.join(_KEYS)}", path=path)
        if type(value) is not wanted:
            raise FormatError(f"{where}: {key} is not {'a date (2027-03-31)' if wanted is date else 'text'}", path=path)
    for key in ("rule", "fingerprint", "reason"):
        if not entry.get(key, "").strip():
            raise FormatError(f"{where}: {key} is missing", path=path)
    return Entry(**entry)


def render_baseline(report: Report) -> str:
    """A baseline that keeps the entries that accept something and accepts the other findings for `VALID_DAYS`."""
    today = report.when.date()
    until = today + timedelta(days=VALID_DAYS)
    entries = report.accepted + [
        (one, Entry(one.rule.code, one.fingerprint, f"accepted on {today}, not yet reviewed", until))
        for one in report.findings
    ]
    return "\n".join([f'schema = "{SCHEMA}"\n', *(_rendered(finding, entry) for finding, entry in entries)])


def _rendered(finding: Finding, entry: Entry) -> str:
    title = "".join(char if char.isprintable() else " " for char in finding.hit.title)
    lines = [f"# {finding.severity}: {title}", "[[accept]]"]
    lines += [f"{key} = {_quoted(getattr(entry, key))}" for key in ("rule", "fingerprint", "reason")]
    if entry.expires is not None:
        lines.append(f"expires = {entry.expires}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string, whose escapes are JSON's."""
    import json  # noqa: PLC0415 only where a baseline is written

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
