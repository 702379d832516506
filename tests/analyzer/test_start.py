"""A cold start is quick: by CPU time, which neighbours on the machine cost little of, and by what is imported."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.analyzer.conftest import CAPTURES

MAIN = [sys.executable, "-P", "-c", "from analyzer.cli import main; main()"]
RUNS = 5


def cpu_seconds(*arguments: str) -> float:
    """Of the quickest of some runs."""
    costs = []
    for _ in range(RUNS):
        before = os.times()
        subprocess.run([*MAIN, *arguments], stdout=subprocess.DEVNULL, check=False, cwd=CAPTURES.parents[1])
        after = os.times()
        costs.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(costs)


def test_help_starts_in_150_ms() -> None:
    assert cpu_seconds("--help") < 0.15


def test_a_bundle_of_normal_size_is_audited_in_a_second() -> None:
    assert cpu_seconds("audit", str(CAPTURES / "pmem-6.12-vuln" / "02-one-removed")) < 1.0


def test_an_audit_of_text_files_imports_no_library_for_crash_dumps() -> None:
    heavy = ("drgn", "pandas", "construct", "elftools", "duckdb", "distributed", "rich", "jinja2")
    code = (
        "import sys\n"
        "from analyzer.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(' '.join(sorted(set({heavy!r}) & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "audit", str(CAPTURES / "dimm-6.12" / "02-dimm-online")],
        capture_output=True, text=True, check=False, cwd=CAPTURES.parents[1],
    )  # fmt: skip
    assert done.stderr == ""
