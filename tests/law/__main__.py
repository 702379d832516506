"""The whole law: every file of every fixture with a severe finding, every damage.  Minutes to an hour of CPU time.

    python -m tests.law [-j N] [--in DIRECTORY]... [PART OF A NAME...]

``--in`` tries it on the captures below a directory instead of on the fixtures.  Exit status 1, and a line a violation,
where the law is broken.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.law.damage import Case, Violation, severe_rules, violations
from tests.law.fixtures import captures_below, fixtures

if TYPE_CHECKING:
    from tests.law.fixtures import Fixture


def _judge(fixture: Fixture) -> tuple[int, list[Violation]]:
    fired = severe_rules(fixture)
    if not fired:
        return 0, []
    cases = [Case(fixture, file) for file in fixture.files]
    return len(cases), [one for case in cases for one in violations(case, fired)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.law", description=__doc__)
    parser.add_argument("-j", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--in", dest="roots", action="append", type=Path, default=[], metavar="DIRECTORY")
    parser.add_argument("parts", nargs="*", help="parts of the names of fixtures; all without any")
    given = parser.parse_args()
    every = [one for root in given.roots for one in captures_below(root)] if given.roots else list(fixtures())
    wanted = [one for one in every if not given.parts or any(part in one.name for part in given.parts)]
    files, sets = 0, 0
    found: list[Violation] = []
    with ProcessPoolExecutor(given.j) as pool:
        for count, broken in pool.map(_judge, wanted):
            files += count
            sets += count > 0
            found += broken
            for one in broken:
                sys.stdout.write(f"{one}\n")
                sys.stdout.flush()
    kinds = {(str(one.case), one.rule) for one in found}
    sys.stderr.write(
        f"{files} files of {sets} fixtures damaged: {len(found)} violations in {len(kinds)} groups of file and rule\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
