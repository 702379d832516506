"""/proc/sys/kernel/random/boot_id: a UUID that is generated at every boot (drivers/char/random.c)."""

from __future__ import annotations

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import text_of
from parsers.records import dataclass

__all__ = ["BootId", "parse_boot_id"]

MAX_BYTES = 4096
_UUID = expression(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class BootId:
    """Which boot it was.

    >>> parse_boot_id(b"5c0ef2d4-6a0e-4d0f-8d3a-0f3a4b5c6d7e\\n", "boot_id").value
    '5c0ef2d4-6a0e-4d0f-8d3a-0f3a4b5c6d7e'
    """

    path: str
    value: str
    diagnostics: tuple[Diagnostic, ...] = ()


def parse_boot_id(data: bytes, path: str) -> BootId:
    """Read the UUID; FormatError where there is none."""
    text = text_of(data, path, limit=MAX_BYTES, what="boot id").decode("utf-8", "replace").strip().lower()
    if not _UUID.fullmatch(text):
        raise FormatError(f"{text[:40]!r} is not a boot id", path=path, line=1)
    return BootId(path=path, value=text)
