"""Files cut short and files with flipped bits: ``python -m tests.fuzz.truncate [part of a fixture's path…]``.

**Texts.**  Prefixes of every text fixture that a reader takes, unpacked where it is compressed, by the reader of its kind
and, at the ends of lines, as a file of unknown kind.  Files of a kind are taken in the order of their contents, so
a prefix that two of them share is read once.  ``--every`` reads every prefix, which takes hours.  Without it, beyond
the first `EVERY` bytes of a file, lines are cut after every byte only if none of their shape (numbers, blanks and names
of options made equal) was cut so in that kind before, and the others at their end and one byte to either side: the
readers work line by line, so what half a line does depends on what it looks like, not on the number in it.

**Binaries.**  A thousand damages (``--damages``) of every dump, trace.dat and archive, half of them truncations, half
flipped bits, always the same ones; of compressed ones as they are and of what is in them.

What must hold is in `tests.fuzz.invariants`, and besides: text that ends inside of a line is an error, or has
a diagnostic that says so.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import random
import re
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import zstandard

from analyzer.sources.archive_format import archive_format
from analyzer.sources.found import UNENDED
from parsers.kinds import KINDS, SNIFF_BYTES, kind_of_content, kind_of_path
from tests.fuzz.invariants import Broken, hold
from tests.fuzz.targets import CORPUS, FIXTURES, Target, as_file

__all__ = ["Text", "binaries", "damaged", "lengths", "target_of", "texts"]

EVERY = 512
_SHAPELESS = re.compile(rb"CONFIG_\w+|(?:0x)?[0-9a-f]*[0-9][0-9a-f]*|[ \t]+")
_UNPACK = {"xz": lzma.decompress, "gzip": gzip.decompress, "zstd": lambda data: zstandard.decompress(data, 1 << 30)}


@dataclass(frozen=True)
class Text:
    """A fixture, and how much of it is also the beginning of the one before."""

    path: Path
    kind: str
    data: bytes = field(repr=False)
    shared: int


def texts(*parts: str) -> list[Text]:
    """Every text fixture whose name or content a reader knows, by kind, each content once; the kept corpus is none."""
    found: dict[tuple[str, bytes], Path] = {}
    for path in sorted(FIXTURES.rglob("*")):
        if not path.is_file() or path.suffix in {".json", ".md"} or CORPUS in path.parents or not _named(path, parts):
            continue
        data = path.read_bytes()
        data = _UNPACK[archive_format(data)](data) if archive_format(data) in _UNPACK else data
        kind = kind_of_path(path.name) or kind_of_content(data[:SNIFF_BYTES])
        if kind is not None and (kind.parse or kind.read) and data.strip() and b"\0" not in data[:SNIFF_BYTES]:
            found.setdefault((kind.name, data), path)
    made: list[Text] = []
    last = ("", b"")
    for kind_name, data in sorted(found):
        shared = _shared(last[1], data) if kind_name == last[0] else 0
        made.append(Text(found[kind_name, data], kind_name, data, shared))
        last = (kind_name, data)
    return made


def _shared(one: bytes, other: bytes) -> int:
    """Length of the common beginning."""
    size = min(len(one), len(other))
    unlike = np.frombuffer(one, np.uint8, size) != np.frombuffer(other, np.uint8, size)
    return int(unlike.argmax()) if unlike.any() else size


def _named(path: Path, parts: tuple[str, ...]) -> bool:
    return not parts or any(part in str(path) for part in parts)


def lengths(text: Text, shapes: set[bytes], *, every: bool) -> Iterator[int]:
    """Lengths of the prefixes that are read, ascending; ``shapes`` of lines that were cut after every byte grow."""
    start = 0
    for line in text.data.splitlines(keepends=True):
        end, shape = start + len(line), _SHAPELESS.sub(b"0", line)
        whole = every or shape not in shapes or start < EVERY
        shapes.add(shape)
        chosen = range(start + 1, end + 1) if whole else sorted({start + 1, end - 1, end})
        yield from (length for length in chosen if length > text.shared)
        start = end


@cache
def target_of(kind: str) -> Target:
    """The reader of a kind as the command line takes it; of an empty name, the one that finds the kind out."""
    from analyzer.sources.read import Request, read_sources

    def run(data: bytes) -> object:
        path = as_file(data)
        read = read_sources(Request((), {kind: path}) if kind else Request((path,)))
        notes = [each for source in read.sources for each in source.diagnostics]
        ends = data.endswith(b"\n") or kind not in KINDS
        if not ends and not any(each.message == UNENDED for each in notes):
            raise Broken("half a last line, and no word of it")
        return read.captured, notes

    return Target(f"cut-{kind or 'file'}", run, tuple, binary=not kind)


def binaries(*parts: str) -> list[tuple[str, bytes]]:
    """Every binary fixture, and what is inside of the compressed ones, by name."""
    from tests.fuzz import seeds

    found: dict[str, bytes] = {}
    for path in sorted(FIXTURES.rglob("*")):
        if path.suffix in {".zst", ".gz", ".xz", ".dat"} and CORPUS not in path.parents:
            data, name = path.read_bytes(), str(path.relative_to(FIXTURES))
            found[name] = data
            form = archive_format(data)
            if form in _UNPACK and b"\0" in (plain := _UNPACK[form](data))[:SNIFF_BYTES]:
                found[f"{name} unpacked"] = plain
    for name in ("cores", "traces"):
        found |= {f"seeds.{name}[{number}]": seed for number, seed in enumerate(getattr(seeds, name)())}
    for number, seed in enumerate(seeds.kdumps()):
        found[f"seeds.kdumps[{number}]"] = seeds.expanded(seed)
    found |= {f"seeds.archives[{number}]": seeds.packed(seed) for number, seed in enumerate(seeds.archives())}
    return [(name, data) for name, data in found.items() if _named(Path(name), parts)]


def damaged(name: str, data: bytes, count: int) -> Iterator[bytes]:
    """``data`` cut short, or with one to eight bits flipped, by turns; headers more often than the rest."""
    rng = random.Random(name)
    for number in range(count):
        near = rng.choice((len(data), len(data), min(len(data), 8192)))
        if number % 2:
            yield data[: rng.randrange(near)]
        else:
            flipped = bytearray(data)
            for _ in range(rng.choice((1, 1, 2, 8))):
                flipped[rng.randrange(near)] ^= 1 << rng.randrange(8)
            yield bytes(flipped)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.truncate", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help="fixtures whose path holds one of these (all)")
    parser.add_argument("--every", action="store_true", help="every prefix of every text")
    parser.add_argument("--damages", type=int, default=1000, help="of each binary (1000); 0 for texts alone")
    parser.add_argument("--no-texts", action="store_true", help="binaries alone")
    options = parser.parse_args()
    parts = tuple(options.parts)
    broken = 0 if options.no_texts else _cut_texts(parts, every=options.every)
    if options.damages:
        broken += sum(_damage(name, data, options.damages) for name, data in binaries(*parts))
    return 1 if broken else 0


def _cut_texts(parts: tuple[str, ...], *, every: bool) -> int:
    broken, known, by_kind = 0, texts(*parts), {}
    for text in known:
        by_kind.setdefault(text.kind, []).append(text)
    for kind, mine in sorted(by_kind.items(), key=lambda item: sum(len(text.data) for text in item[1])):
        outcomes, seconds, shapes = Counter[str](), time.monotonic(), set[bytes]()
        for text in mine:
            for length in lengths(text, shapes, every=every):
                cut = text.data[:length]
                broken += _holds(target_of(kind), cut, f"{text.path}, {length} bytes", outcomes)
                if cut.endswith(b"\n"):
                    broken += _holds(target_of(""), cut, f"{text.path}, {length} bytes, any kind", outcomes)
        _report(kind, f"{len(mine)} files", outcomes, seconds)
    return broken


def _damage(name: str, data: bytes, count: int) -> int:
    outcomes, seconds = Counter[str](), time.monotonic()
    broken = sum(
        _holds(target_of(""), one, f"{name}, damage {number}", outcomes)
        for number, one in enumerate(damaged(name, data, count))
    )
    _report(name, f"{len(data)} bytes", outcomes, seconds)
    return broken


def _holds(target: Target, data: bytes, what: str, outcomes: Counter[str]) -> int:
    """1 if an invariant does not hold, which is printed and kept."""
    try:
        outcomes[hold(target, data, twice=False)] += 1
    except Exception as error:
        outcomes["BROKEN"] += 1
        kept = Path(tempfile.gettempdir()) / f"ptaudit-cut-{zlib.crc32(data):08x}"
        kept.write_bytes(data)
        print(f"BROKEN {what}: {type(error).__name__}: {error} ({kept})", flush=True)
        return 1
    return 0


def _report(name: str, what: str, outcomes: Counter[str], begin: float) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    total = sum(outcomes.values())
    print(f"{name}: {what}, {total} inputs in {time.monotonic() - begin:.0f} s: {counts}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
