"""The textfile collector's conventions: one HELP and TYPE a family, no timestamps, escaped labels."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from pathlib import Path

SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? (\S+)')


def metrics(text: str) -> dict[str, dict[str, float]]:
    """Samples by family and label text; fails on a line that the format does not have."""
    families: dict[str, dict[str, float]] = {}
    announced: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, _ = line.split(" ", 3)
            announced[f"{word} {name}"] += 1
            families.setdefault(name, {})
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] == list(families)[-1], "samples stand under their family"
        assert (match[2] or "") not in families[match[1]], "a sample comes once"
        families[match[1]][match[2] or ""] = float(match[3])
    assert text.endswith("\n")
    assert set(announced.values()) == {1}
    assert set(announced) == {f"{word} {name}" for name in families for word in ("HELP", "TYPE")}
    return families


def test_counts_outcomes_and_the_last_run(ptaudit, damaged: Path) -> None:
    found = metrics(ptaudit("audit", damaged, "--format", "prometheus").out)
    assert found["ptaudit_findings"]['{severity="critical"}'] >= 1
    assert found["ptaudit_findings"]['{severity="medium"}'] == 0
    assert found["ptaudit_rule_outcome"]['{rule="VMM-02",severity="critical",outcome="fired"}'] == 1
    assert sum(found["ptaudit_rules"].values()) == len(found["ptaudit_rule_outcome"])
    assert abs(found["ptaudit_last_run_timestamp_seconds"][""] - time.time()) < 60
    (info,) = found["ptaudit_info"]
    assert 'kernel="6.12.117"' in info
    assert 'page_size="4096"' in info


def test_undecided_rules_are_counted(ptaudit, damaged: Path) -> None:
    found = metrics(ptaudit("audit", damaged / "kernel_page_tables", "--format", "prometheus").out)
    assert found["ptaudit_rules"]['{outcome="undecided"}'] > 10


def test_labels_are_escaped(ptaudit, damaged: Path, tmp_path: Path) -> None:
    shutil.copy(damaged / "kernel_page_tables", tmp_path)
    (tmp_path / "uname").write_text('Linux host 6.12.117-a"b\\c #1 SMP aarch64 GNU/Linux\n')
    found = metrics(ptaudit("audit", tmp_path, "--format", "prometheus").out)
    (info,) = found["ptaudit_info"]
    assert r"a\"b\\c" in info


def test_accepted_findings_are_counted_apart(ptaudit, damaged: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.toml"
    ptaudit("audit", damaged, "--write-baseline", baseline)
    found = metrics(ptaudit("audit", damaged, "--baseline", baseline, "--format", "prometheus").out)
    assert sum(found["ptaudit_findings"].values()) == 0
    assert found["ptaudit_accepted_findings"][""] >= 2
    assert found["ptaudit_stale_baseline_entries"][""] == 0
