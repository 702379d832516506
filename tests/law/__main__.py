"""The whole law: every file of every fixture with a severe finding, every damage.  Minutes to an hour of CPU time.

    python -m tests.law [-j N] [PART OF A PATH...]

Exit status 1, and a line a violation, where the law is broken.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby

from tests.law.damage import Case, Violation, cases, severe_rules, violations


def _judge(group: tuple[Case, ...]) -> tuple[int, list[Violation]]:
    fired = severe_rules(group[0].fixture)
    if not fired:
        return 0, []
    return len(group), [one for case in group for one in violations(case, fired)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.law", description=__doc__)
    parser.add_argument("-j", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("parts", nargs="*", help="parts of the paths of fixtures; all without any")
    given = parser.parse_args()
    wanted = [case for case in cases() if not given.parts or any(part in str(case) for part in given.parts)]
    groups = [tuple(group) for _, group in groupby(wanted, key=lambda case: case.fixture)]
    files = 0
    found: list[Violation] = []
    with ProcessPoolExecutor(given.j) as pool:
        for count, broken in pool.map(_judge, groups):
            files += count
            found += broken
            for one in broken:
                sys.stdout.write(f"{one}\n")
                sys.stdout.flush()
    kinds = {(str(one.case), one.rule) for one in found}
    sys.stderr.write(f"{files} files damaged: {len(found)} violations in {len(kinds)} groups of file and rule\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
