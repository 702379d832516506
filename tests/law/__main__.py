"""Both laws: every file of every fixture, every damage.  Hours of CPU time.

    python -m tests.law [-j N] [--in DIRECTORY]... [--file NAME]... [--shard I/N] [PART OF A NAME...]

``--in`` tries them on the captures below a directory instead of on the fixtures, ``--file`` damages only the files
of these names, ``--shard 2/3`` takes the second third of the fixtures.  A line a violation goes to standard output and
a line a fixture to standard error as each fixture is done.  Exit status 1 where a law is broken.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
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


def _judge(fixture: Fixture, names: tuple[str, ...]) -> _Tally:
    fired = severe_rules(fixture)
    if fired is None:
        return _Tally()
    files = [file for file in fixture.damaged if not names or file.rsplit("/", 1)[-1] in names]
    tried = [broken for file in files for _, broken in trials(Case(fixture, file), fired)]
    return _Tally(bool(fired), len(files), len(tried), tuple(one for broken in tried for one in broken))


def _shard(text: str) -> tuple[int, int]:
    part, _, of = text.partition("/")
    if not (part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2/3")
    return int(part), int(of)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.law", description=__doc__)
    parser.add_argument("-j", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--in", dest="roots", action="append", type=Path, default=[], metavar="DIRECTORY")
    parser.add_argument("--file", dest="files", action="append", default=[], metavar="NAME")
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N")
    parser.add_argument("parts", nargs="*", help="parts of the names of fixtures; all without any")
    given = parser.parse_args()
    every = [one for root in given.roots for one in captures_below(root)] if given.roots else list(fixtures())
    wanted = [one for one in every if not given.parts or any(part in one.name for part in given.parts)]
    shard, shards = given.shard
    wanted = wanted[shard - 1 :: shards]
    tallies: list[_Tally] = []
    with ProcessPoolExecutor(given.j) as pool:
        started = {pool.submit(_judge, one, tuple(given.files)): one for one in wanted}
        for done in as_completed(started):
            tally = done.result()
            tallies.append(tally)
            for one in tally.broken:
                sys.stdout.write(f"{one}\n")
            sys.stdout.flush()
            name = started[done].name
            sys.stderr.write(
                f"{len(tallies)} of {len(wanted)}: {name}, {tally.trials} damages, {len(tally.broken)} violations\n"
            )
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
