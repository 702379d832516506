"""The memory_hotplug.memmap_on_memory parameter: whether hot-added blocks hold their own struct pages.

mm/memory_hotplug.c (5.13): N, Y, and since 6.6 ``force``; readable in
/sys/module/memory_hotplug/parameters/memmap_on_memory.
"""

from __future__ import annotations

from enum import StrEnum

from parsers.errors import Diagnostic, FormatError
from parsers.lines import text_of
from parsers.records import dataclass

__all__ = ["MemmapOnMemory", "MemmapOnMemoryMode", "parse_memmap_on_memory"]

MAX_BYTES = 4096


class MemmapOnMemoryMode(StrEnum):
    """What the parameter asks for."""

    OFF = "off"
    ON = "on"
    FORCE = "force"


_WORDS = {
    **dict.fromkeys(("n", "0", "off", "no", "false"), MemmapOnMemoryMode.OFF),
    **dict.fromkeys(("y", "1", "on", "yes", "true"), MemmapOnMemoryMode.ON),
    "force": MemmapOnMemoryMode.FORCE,
}


@dataclass(frozen=True, kw_only=True)
class MemmapOnMemory:
    """The parameter as captured.

    >>> parse_memmap_on_memory(b"Y\\n", "memmap_on_memory").mode
    <MemmapOnMemoryMode.ON: 'on'>
    """

    path: str
    mode: MemmapOnMemoryMode
    raw: str
    line: int = 1
    diagnostics: tuple[Diagnostic, ...] = ()


def parse_memmap_on_memory(data: bytes, path: str) -> MemmapOnMemory:
    """Read the parameter's value; FormatError for a word that it cannot have."""
    raw = text_of(data, path, limit=MAX_BYTES, what="module parameter").decode("utf-8", "replace").strip()
    mode = _WORDS.get(raw.lower())
    if mode is None:
        raise FormatError(f"{raw[:40]!r} is not a value of memmap_on_memory", path=path, line=1)
    return MemmapOnMemory(path=path, mode=mode, raw=raw)
