"""Whether a crash kernel is loaded: /sys/kernel/kexec_crash_loaded (kernel/ksysfs.c, 2.6.23).

A reservation ("Crash kernel" in /proc/iomem) is there from the start of the boot; the image that dumps is loaded later,
by a service, or never.
"""

from __future__ import annotations

from parsers.errors import Diagnostic, FormatError
from parsers.lines import text_of
from parsers.records import dataclass

__all__ = ["KexecCrash", "parse_kexec_crash_loaded"]

MAX_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class KexecCrash:
    """The flag as captured.

    >>> parse_kexec_crash_loaded(b"1\\n", "kexec_crash_loaded").loaded
    True
    """

    path: str
    loaded: bool
    line: int = 1
    diagnostics: tuple[Diagnostic, ...] = ()


def parse_kexec_crash_loaded(data: bytes, path: str) -> KexecCrash:
    """Read the flag; FormatError for anything but 0 and 1."""
    raw = text_of(data, path, limit=MAX_BYTES, what="flag").decode("utf-8", "replace").strip()
    if raw not in {"0", "1"}:
        raise FormatError(f"{raw[:40]!r} is not a value of kexec_crash_loaded", path=path, line=1)
    return KexecCrash(path=path, loaded=raw == "1")
