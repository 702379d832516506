"""How a reader checks a finding: the shell command that prints each line it quotes, or what to type into crash."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analyzer.sources.read import Source
    from rules.finding import Finding

__all__ = ["reproduce"]

MAX_COMMANDS = 12
_UNPACK = {".gz": "zcat", ".xz": "xzcat", ".bz2": "bzcat", ".zst": "zstdcat", ".lzma": "xzcat", ".lz4": "lz4cat"}


def reproduce(finding: Finding, sources: Sequence[Source]) -> list[str]:
    """Commands, each printing one piece of the evidence; for a crash dump ``crash: vtop 0x…`` and ``crash: rd …``."""
    archives = [one.path for one in sources if one.kind == "archive"]
    dumps = {one.path for one in sources if one.kind == "vmcore"}
    found: list[str] = []
    for one in finding.hit.evidence:
        if one.line is not None and one.source not in dumps:
            found.append(f"{_printed(one.source, archives)}sed -n {one.line}p{_name(one.source, archives)}")
        elif one.address is not None and one.source in dumps:
            found.append(f"crash: rd -64 {one.address:#x}")
    if dumps:
        found += [f"crash: vtop {va.start:#x}" for va in finding.hit.vas]
        found += [f"crash: kmem -p {lo:#x}" for lo, _ in finding.hit.pfns.tuples()[:1] if not finding.hit.vas]
    return list(dict.fromkeys(found))[:MAX_COMMANDS]


def _archive_of(source: str, archives: Sequence[str]) -> str:
    return next((one for one in archives if source.startswith(f"{one}:")), "")


def _printed(source: str, archives: Sequence[str]) -> str:
    """What goes before ``| sed`` for a file that is in an archive or compressed."""
    archive = _archive_of(source, archives)
    if archive:
        unpack = "unzip -p" if archive.endswith(".zip") else "tar -xOf"
        return f"{unpack} {shlex.quote(archive)} {shlex.quote(source[len(archive) + 1 :])} | "
    tool = _UNPACK.get(PurePath(source).suffix)
    return f"{tool} {shlex.quote(source)} | " if tool else ""


def _name(source: str, archives: Sequence[str]) -> str:
    piped = _archive_of(source, archives) or PurePath(source).suffix in _UNPACK
    return "" if piped else f" {shlex.quote(source)}"
