"""All evidence that the law is tried on, as sets of files of one machine at one time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cases import CASES, FIXTURES, files_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["AFTER", "BEFORE", "Fixture", "capture", "captures_below", "fixtures"]

NOT_EVIDENCE = frozenset({"expected.json", "trace.dat", "run.json", "README.md", "provenance.json"})
"""Files that are not damaged: what is not evidence, and the same trace once more."""
_MARKS = ("kernel_page_tables", "dmesg", "iomem", "memory_blocks", "trace")
BEFORE, AFTER = "before", "after"
"""Directories of a fixture that holds two captures of one machine."""
_LOGS = ("field/logs", "field/min", "field/transports", "oops", "host/samples")
_CORES = ("vmcore", "kcore")


@dataclass(frozen=True)
class Fixture:
    """Files of one capture by their names in it, and where each lies."""

    name: str
    files: Mapping[str, Path] = field(hash=False, compare=False)

    @property
    def damaged(self) -> list[str]:
        """The files that are damaged: of two captures those of the first, and the page tables of the second."""
        return [
            name for name in self.files if not name.startswith(f"{AFTER}/") or name == f"{AFTER}/kernel_page_tables"
        ]


def capture(name: str) -> Fixture:
    """The fixture in a directory below ``fixtures/``."""
    return _directory(FIXTURES / name, name)


def _directory(home: Path, name: str) -> Fixture:
    files = sorted(path for path in home.iterdir() if path.is_file() and path.name not in NOT_EVIDENCE)
    return Fixture(name, {path.name: path for path in files})


def captures_below(root: Path) -> Iterator[Fixture]:
    """Every directory below ``root`` that holds a capture, and every log and dump beside them by itself."""
    for home in sorted(path for path in (root, *root.rglob("*")) if path.is_dir()):
        if any((home / mark).exists() for mark in _MARKS):
            yield _directory(home, str(home.relative_to(root)))
        else:
            alone = sorted(path for path in home.iterdir() if path.is_file() and path.suffix in {".log", ".zst"})
            yield from (Fixture(str(path.relative_to(root).parent), {path.name: path}) for path in alone)


def fixtures() -> Iterator[Fixture]:
    """Captures, cases of rules, logs of the field, dumps with what was captured beside them."""
    homes = (home for pattern in ("captures/*/*", "whatif/*/*", "host/*/*") for home in sorted(FIXTURES.glob(pattern)))
    yield from (capture(str(home.relative_to(FIXTURES))) for home in homes if home.is_dir())
    yield from _pairs()
    yield from (Fixture(f"rules/{name}", files_of(name)) for name in CASES)
    for folder in _LOGS:
        for path in sorted((FIXTURES / folder).iterdir()):
            if path.is_file() and path.suffix in {".txt", ".eml", ".log"}:
                yield Fixture(folder, {path.name: path})
    for folder in _CORES:
        yield from _dumps(folder)


def _pairs() -> Iterator[Fixture]:
    """The last two captures of each machine, the first as the state before."""
    for home in sorted(FIXTURES.glob("captures/*/")):
        captures = sorted(path for path in home.iterdir() if path.is_dir())[-2:]
        if len(captures) == 2:
            both = zip((BEFORE, AFTER), captures, strict=True)
            files = {f"{where}/{name}": path for where, one in both for name, path in _directory(one, "").files.items()}
            yield Fixture(f"pairs/{home.name}", files)


def _dumps(folder: str) -> Iterator[Fixture]:
    """Each dump with the files whose names begin as its own does."""
    texts: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    dumps = []
    for path in sorted((FIXTURES / folder).iterdir()):
        stem, _, kind = path.name.removesuffix(".zst").rpartition(".")
        if path.suffix == ".zst":
            dumps.append((stem, kind, path))
        elif kind not in {"md", "crash"}:
            texts[stem][kind] = path
    for stem, kind, path in dumps:
        beside = {} if kind == "hypervisor" else texts[stem]
        yield Fixture(f"{folder}/{stem}.{kind}", {path.name: path} | beside)
