"""The code of real kernels as recorded in fixtures/kernels, and whether each has a bug by its release."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import zstandard

from parsers.image.code import Function, KernelCode
from parsers.uname import KernelRelease, parse_uname
from rules.model.bugs import KNOWN_BUGS, KnownBug

FIXTURE = Path(__file__).parents[1] / "fixtures" / "kernels" / "code.jsonl.zst"
REVERTED = {("6.12.117-lab-without-d4234d131b0a", "partial-section-pmd")}
"""Bugs of kernels that were built with the fix reverted."""
NO_CHANGELOG = {("cont-tlb-shatter", (7, 0)), ("pgtable-dtor", (7, 0)), ("mom-altmap", (7, 1))}
"""Backports into branches whose changelogs were not available: `rules.model.bugs` has them from the code itself."""


@dataclass(frozen=True)
class Recorded:
    name: str
    upstream: KernelRelease
    code: KernelCode

    def truth(self, bug: KnownBug) -> str | None:
        """``present`` or ``fixed`` by changelog, "" where no changelog says; None if the bug does not concern it."""
        if self.code.page_size not in bug.page_sizes or bug.is_newer_than(self.upstream):
            return None
        if (bug.key, self.upstream.series) in NO_CHANGELOG:
            return ""
        return "present" if (self.name, bug.key) in REVERTED or bug.possible_in(self.upstream) else "fixed"


def bug(key: str) -> KnownBug:
    return next(one for one in KNOWN_BUGS if one.key == key)


@cache
def recorded() -> tuple[Recorded, ...]:
    with zstandard.ZstdDecompressor().stream_reader(FIXTURE.open("rb")) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8").readlines()
    return tuple(one_of(json.loads(line)) for line in lines)


def one_of(record: dict) -> Recorded:  # type: ignore[type-arg]
    functions = {
        name: tuple(Function(clone, start, np.frombuffer(bytes.fromhex(words), "<u4")) for clone, start, words in found)
        for name, found in record["functions"].items()
    }
    code = KernelCode(
        path=f"vmlinuz-{record['name']}",
        functions=functions,
        unread=frozenset(),
        addresses=record["addresses"],
        release=record["release"],
        banner=record["banner"],
        page_size=record["page_size"] or 4096,
    )
    text = f"Linux host {record['upstream']} #1 SMP aarch64 GNU/Linux\n"
    return Recorded(record["name"], parse_uname(text.encode(), "uname"), code)
