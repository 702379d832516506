"""The cases of the rules: captures that differ in little from another, put together from what they differ in.

``fixtures/rules/<CODE>/<CASE>/`` holds the files of a case.  Those that another capture has as well are named in its
file ``base`` instead, one line a directory below ``fixtures/``::

    captures/pmem-6.12-vuln/02-one-removed: dmesg memory_blocks uname
    captures/pmem-6.12-vuln/01-three-namespaces: earlier_page_tables=kernel_page_tables

``NAME=OTHER`` takes the other directory's file OTHER as NAME.  A directory that is named has its files itself.

    python -m tests.cases VMM-02/fires DIRECTORY    write a case out, to audit it by hand
    python -m tests.cases fold [CODE/CASE...]       replace files that exist elsewhere by a line of ``base``
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["CAPTURES", "CASES", "FIXTURES", "RULES", "case", "case_file", "files_of"]

FIXTURES = Path(__file__).parents[1] / "fixtures"
RULES = FIXTURES / "rules"
CAPTURES = FIXTURES / "captures"
CASES = sorted(str(path.relative_to(RULES)) for path in RULES.glob("*/*") if path.is_dir())
"""Every case: ``<CODE>/<name>``."""
OWN = frozenset({"base", "expected.json"})
"""What is not evidence."""


def files_of(name: str) -> dict[str, Path]:
    """The evidence of a case: its files by name, and where each lies."""
    home = RULES / name
    found = {path.name: path for path in home.iterdir() if path.name not in OWN}
    base = home / "base"
    for line in base.read_text().splitlines() if base.exists() else ():
        where, _, names = line.partition(": ")
        for word in names.split():
            mine, _, theirs = word.partition("=")
            assert mine not in found, f"{name}: {mine} is there twice"
            found[mine] = FIXTURES / where / (theirs or mine)
    return dict(sorted(found.items()))


def case_file(name: str, file: str) -> Path:
    """One file of a case."""
    return files_of(name)[file]


@cache
def _built() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="ptaudit-cases-")


@cache
def case(name: str) -> Path:
    """The directory of a case with all its files: its own if it has them all, else one that is made for the run."""
    if not (RULES / name / "base").exists():
        return RULES / name
    target = Path(_built().name) / "rules" / name
    write(name, target)
    return target


def write(name: str, target: Path) -> None:
    """Write the files of a case into a directory."""
    target.mkdir(parents=True, exist_ok=True)
    for file, source in files_of(name).items():
        shutil.copyfile(source, target / file)


def fold(names: list[str]) -> int:
    """Replace files that a capture or an earlier case has by lines of ``base``; the number of files that went."""
    places: dict[bytes, list[Path]] = defaultdict(list)
    for root in (FIXTURES / "captures", RULES):
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.name not in OWN:
                places[_digest(path)].append(path)
    named = {source for one in CASES for source in files_of(one).values() if source.parent != RULES / one}
    gone = 0
    for name in names:
        home = RULES / name
        mine = [path for path in home.iterdir() if path.name not in OWN and path not in named]
        others = {path: _elsewhere(path, places) for path in mine}
        shared = Counter(other.parent for found in others.values() for other in found)
        lines = _lines_of(home / "base")
        for path, found in sorted(others.items()):
            if found:
                chosen = min(found, key=lambda one: (-shared[one.parent], one.name != path.name, one))
                where = str(chosen.parent.relative_to(FIXTURES))
                lines[where].append(path.name if chosen.name == path.name else f"{path.name}={chosen.name}")
                path.unlink()
                gone += 1
        if lines:
            text = "".join(f"{where}: {' '.join(sorted(words))}\n" for where, words in sorted(lines.items()))
            (home / "base").write_text(text)
    return gone


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _elsewhere(path: Path, places: dict[bytes, list[Path]]) -> list[Path]:
    """The files of captures, or else the first of the cases, with the same content; none if that is ``path`` itself."""
    same = places[_digest(path)]
    captured = [one for one in same if RULES not in one.parents]
    return captured or [one for one in same[:1] if one != path]


def _lines_of(base: Path) -> defaultdict[str, list[str]]:
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for line in base.read_text().splitlines() if base.exists() else ():
        where, _, names = line.partition(": ")
        lines[where] += names.split()
    return lines


def main(arguments: list[str]) -> int:
    """Write a case out, or fold cases."""
    if arguments[:1] == ["fold"]:
        print(f"{fold(arguments[1:] or CASES)} files went")
    elif len(arguments) == 2:
        write(arguments[0], Path(arguments[1]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
