"""Accepted findings: they do not count, they are listed with their reason, and stale entries are reported."""

from __future__ import annotations

import json
import tomllib
from datetime import date, timedelta
from pathlib import Path

import pytest

from analyzer.baseline import VALID_DAYS

HEAD = 'schema = "ptaudit.baseline/1"\n'
KNOWN = "1331399761439fc0"


def entry(rule: str = "VMM-02", fingerprint: str = KNOWN, expires: date | None = None) -> str:
    until = f"expires = {expires}\n" if expires else ""
    return f'[[accept]]\nrule = "{rule}"\nfingerprint = "{fingerprint}"\nreason = "spare host"\n{until}'


@pytest.fixture
def baseline(tmp_path: Path):
    def write(*entries: str) -> Path:
        path = tmp_path / "baseline.toml"
        path.write_text(HEAD + "\n".join(entries))
        return path

    return write


def test_written_baseline_accepts_everything_found(ptaudit, damaged: Path, tmp_path: Path) -> None:
    path = tmp_path / "baseline.toml"
    assert ptaudit("audit", damaged, "--write-baseline", path).status == 1
    written = tomllib.loads(path.read_text())
    assert KNOWN in {one["fingerprint"] for one in written["accept"]}
    assert {one["expires"] - date.today() for one in written["accept"]} <= {
        timedelta(VALID_DAYS + days) for days in (-1, 0, 1)
    }
    done = ptaudit("audit", damaged, "--baseline", path, "--fail-on", "info")
    assert done.status == 0
    assert "0 findings" in done.out


def test_accepted_finding_is_listed_folded_with_its_reason(ptaudit, damaged: Path, baseline) -> None:
    done = ptaudit("audit", damaged, "--select", "VMM-02", "--baseline", baseline(entry()))
    assert done.status == 0
    (line,) = (line for line in done.out.splitlines() if KNOWN in line)
    assert "spare host" in line
    assert "stale" not in done.out


def test_entry_of_another_rule_accepts_nothing(ptaudit, damaged: Path, baseline) -> None:
    done = ptaudit("audit", damaged, "--baseline", baseline(entry(rule="VMM-03")))
    assert done.status == 1


def test_expired_entry_counts_again_and_is_reported(ptaudit, damaged: Path, baseline) -> None:
    yesterday = date.today() - timedelta(2)
    done = ptaudit("audit", damaged, "--baseline", baseline(entry(expires=yesterday)))
    assert done.status == 1
    assert f"expired on {yesterday}" in done.out


def test_entry_holds_on_its_last_day(ptaudit, damaged: Path, baseline) -> None:
    done = ptaudit("audit", damaged, "--select", "VMM-02", "--baseline", baseline(entry(expires=date.max)))
    assert done.status == 0


def test_entry_that_matches_nothing_is_stale(ptaudit, sound: Path, baseline) -> None:
    path = baseline(entry())
    document = json.loads(ptaudit("audit", sound, "--baseline", path, "--format", "json").out)
    (stale,) = document["stale_baseline"]
    assert stale["fingerprint"] == KNOWN
    assert stale["why"] == "not found any more"


def test_entry_of_a_rule_that_did_not_decide_is_not_stale(ptaudit, damaged: Path, sound: Path, baseline) -> None:
    undecided = entry("SEC-03", "0" * 16)
    assert "stale" not in ptaudit("audit", damaged / "kernel_page_tables", "--baseline", baseline(undecided)).out
    assert "stale" not in ptaudit("audit", sound, "--ignore", "VMM", "--baseline", baseline(entry())).out


def test_rewriting_keeps_reasons(ptaudit, damaged: Path, baseline) -> None:
    path = baseline(entry(expires=date.max), entry(fingerprint="f" * 16))
    ptaudit("audit", damaged, "--baseline", path, "--write-baseline", path)
    written = {one["fingerprint"]: one for one in tomllib.loads(path.read_text())["accept"]}
    assert written[KNOWN]["reason"] == "spare host"
    assert written[KNOWN]["expires"] == date.max
    assert "f" * 16 not in written


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "schema"),
        ("not toml at all [", "TOML"),
        ('schema = "ptaudit.baseline/2"', "schema"),
        (HEAD + "accept = 3", "list"),
        (HEAD + "accept = [3]", "number 1 is not a table"),
        (HEAD + entry().replace('reason = "spare host"', 'reason = " "'), "reason is missing"),
        (HEAD + entry() + "expires = 'tomorrow'", "expires is not a date"),
        (HEAD + entry() + "expires = 2027-01-01T00:00:00Z", "expires is not a date"),
        (HEAD + entry() + "until = 2027-01-01", "unknown key 'until'"),
        (HEAD + entry().replace('"VMM-02"', "2"), "rule is not text"),
    ],
)
def test_bad_baseline_is_one_clear_line(ptaudit, sound: Path, tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    done = ptaudit("audit", sound, "--baseline", path)
    assert done.status == 2
    assert done.err.startswith(f"ptaudit: {path}: ")
    assert word in done.err
    assert "Traceback" not in done.err


def test_missing_and_binary_baseline(ptaudit, sound: Path, tmp_path: Path) -> None:
    assert ptaudit("audit", sound, "--baseline", tmp_path / "none").status == 2
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    assert ptaudit("audit", sound, "--baseline", tmp_path / "noise").status == 2
