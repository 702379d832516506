"""Both laws: every file of every fixture, every damage.  Hours of CPU time.

    python -m tests.law [-j N] [--in DIRECTORY]... [PART OF A NAME...]

``--in`` tries them on the captures below a directory instead of on the fixtures.  Exit status 1, and a line a
violation, where one is broken.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.law.damage import Case, Violation, severe_rules, trials
from tests.law.fixtures import captures_below, fixtures

if TYPE_CHECKING:
    from tests.law.fixtures import Fixture


@dataclass(frozen=True)
class _Tally:
    """What was tried on one fixture."""

    severe: bool = False
    files: int = 0
    trials: int = 0
    broken: tuple[Violation, ...] = ()


def _judge(fixture: Fixture) -> _Tally:
    fired = severe_rules(fixture)
    if fired is None:
        return _Tally()
    tried = [broken for file in fixture.damaged for _, broken in trials(Case(fixture, file), fired)]
    return _Tally(bool(fired), len(fixture.damaged), len(tried), tuple(one for broken in tried for one in broken))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.law", description=__doc__)
    parser.add_argument("-j", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--in", dest="roots", action="append", type=Path, default=[], metavar="DIRECTORY")
    parser.add_argument("parts", nargs="*", help="parts of the names of fixtures; all without any")
    given = parser.parse_args()
    every = [one for root in given.roots for one in captures_below(root)] if given.roots else list(fixtures())
    wanted = [one for one in every if not given.parts or any(part in one.name for part in given.parts)]
    tallies: list[_Tally] = []
    with ProcessPoolExecutor(given.j) as pool:
        for tally in pool.map(_judge, wanted):
            tallies.append(tally)
            for one in tally.broken:
                sys.stdout.write(f"{one}\n")
                sys.stdout.flush()
    for name, law in (("severe findings", True), ("no severe finding", False)):
        mine = [one for one in tallies if one.files and one.severe is law]
        found = [one for tally in mine for one in tally.broken]
        sys.stderr.write(
            f"{len(mine)} fixtures with {name}: {sum(one.files for one in mine)} files, "
            f"{sum(one.trials for one in mine)} damages, {len(found)} violations in "
            f"{len({(str(one.case), one.rule) for one in found})} groups of file and rule\n"
        )
    found = [one for tally in tallies for one in tally.broken]
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
