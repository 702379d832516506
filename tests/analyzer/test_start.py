"""A cold start imports only what it uses; `benchmarks/bench_start.py` measures how long it takes."""

from __future__ import annotations

import subprocess
import sys

from tests.analyzer.conftest import CAPTURES


def test_an_audit_of_text_files_imports_no_library_that_it_does_not_use() -> None:
    heavy = ("drgn", "pandas", "construct", "elftools", "duckdb", "distributed", "rich", "jinja2", "numpy.ma", "email")
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


def test_a_fleet_imports_nothing_for_a_bundle() -> None:
    code = (
        "import sys\n"
        "from analyzer.fleet import server, unit\n"
        "server._warm_up()\n"
        "before = set(sys.modules)\n"
        "assert unit.audit_bundle(sys.argv[1])['status'] == 'audited'\n"
        "print(sorted(set(sys.modules) - before))"
    )
    for capture in ("dimm-6.12/02-dimm-online", "pmem-6.12-vuln/02-one-removed"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(CAPTURES / capture)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n"
