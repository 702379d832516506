"""What the collecting script says of its own work: one line a file, tab-separated, the last field how it went.

Written by ``analyzer/collect/collect.sh``: name, seconds since the boot, seconds it took, bytes, ``ok`` or the error.
A file that was read again, because memory changed meanwhile, has several lines; the last one counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import numbered, text_of, unread_lines
from parsers.records import dataclass

__all__ = ["Manifest", "parse_manifest"]

_LIMIT = 1 << 20
_HEADER = b"name\tuptime\tseconds\tbytes\tresult"
_LINE = expression(rb"^([^\t\n]+)\t[^\t\n]*\t[^\t\n]*\t[^\t\n]*\t([^\t\n]*)$", re.MULTILINE)
_OK = "ok"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How collecting went, by the name of each file in the capture.

    >>> head = b"name\\tuptime\\tseconds\\tbytes\\tresult\\n"
    >>> taken = b"uname\\t9\\t0\\t80\\tok\\n"
    >>> refused = b"iomem\\t9\\t0\\t0\\tPermission denied\\n"
    >>> manifest = parse_manifest(head + taken + refused, "manifest")
    >>> manifest.why_not("iomem"), manifest.why_not("uname"), manifest.why_not("dmesg")
    ('Permission denied', '', '')
    """

    path: str
    results: Mapping[str, str]
    """``ok``, or what went wrong."""
    diagnostics: tuple[Diagnostic, ...] = ()

    def why_not(self, name: str) -> str:
        """What went wrong with a file; empty where it was taken, or not tried."""
        result = self.results.get(name, _OK)
        return "" if result == _OK else result


def parse_manifest(data: bytes, path: str) -> Manifest:
    """Read a manifest; FormatError where its first line is not the heading."""
    text = text_of(data, path, limit=_LIMIT, what="manifest")
    head, _, body = text.partition(b"\n")
    if head != _HEADER:
        raise FormatError("not a manifest of the collecting script: its heading is missing", path=path, line=1)
    found = list(numbered(_LINE, body))
    results = {match[1].decode("utf-8", "replace"): match[2].decode("utf-8", "replace") for _, match in found}
    unread = unread_lines(body, [line for line, _ in found], path)
    notes = tuple(replace(note, line=note.line + 1) if note.line else note for note in unread)
    return Manifest(path=path, results=MappingProxyType(results), diagnostics=notes)
