"""Line-oriented text as mail, terminals and ``grep`` leave it: bounded, numbered, searched as one buffer.

A parser of a small text describes its lines by one expression over the whole buffer; nothing here
runs Python for a line that does not match.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from parsers.encodings import decoded
from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression

__all__ = [
    "at_lines",
    "grep_listing",
    "name_listing",
    "numbered",
    "text_of",
    "unread_lines",
    "without_lines",
    "without_prompts",
    "without_transport",
]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# As a terminal gets it, and as `cat -v` and pagers show it.
_ESCAPE_SEQUENCE = expression(rb"(?:\x1b|\^\[)\[[0-9;?=]*[A-Za-z]|\x1b\][^\x07\x1b\n]{0,200}(?:\x07|\x1b\\)")
_COLOUR = expression(rb"\[\d{1,3}(?:;\d{1,3}){0,4}m")
"""What is left of a sequence whose escape character was lost."""
_SHOWN_RETURNS = expression(rb"(?<!\^M)(?:\^M)+$", re.MULTILINE)
_QUOTE = expression(rb"\n(?:> ?)+")  # a newline is found byte by byte, many times faster than "^"
MAX_QUOTES = 8
_RETURNS = 8
"""Carriage returns to a newline: a text with more has lines that end in them alone."""
_NOT_BLANK = expression(rb"^[^\S\n]*[^\s\x00]", re.MULTILINE)
_PROMPT = expression(
    rb"^(?:\[[^\]\n]*\]|[\w.@:~/-]*) ?[#$] ?(?:sudo )?(?:cat|uname|head|zcat|dmesg|ssh)\b.*$", re.MULTILINE
)


def text_of(data: bytes, path: str, *, limit: int, what: str) -> bytes:
    """``data`` without what transport added: encodings, byte order mark, terminal colours, CR, ``> `` of quoted mail.

    Line numbers stay true.  Raises FormatError if it is empty, longer than ``limit`` bytes, or holds
    NUL bytes.
    """
    if len(data) > limit:
        raise FormatError(f"{len(data)} bytes, and no {what} has more than {limit}", path=path)
    if not data.strip():
        raise FormatError(f"empty, no {what}", path=path)
    text = without_transport(data)
    if b"\0" in text:
        raise FormatError(f"binary data, no {what}", path=path, offset=data.index(b"\0"))
    return text


def without_transport(data: bytes) -> bytes:
    """`text_of` without its checks, for text that may hold anything: a console log."""
    data = decoded(data).removeprefix(_BYTE_ORDER_MARK)
    shown = b"^" in data  # one rare character is found much faster than three common ones
    if b"\x1b" in data or (shown and b"^[[" in data):
        data = _ESCAPE_SEQUENCE.sub(b"", data)
    if b"[0m" in data:
        data = _COLOUR.sub(b"", data)
    if shown and b"^M\n" in data:
        data = _SHOWN_RETURNS.sub(b"", data)
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    if b"\r" in data and data.count(b"\r") > _RETURNS * data.count(b"\n"):
        data = data.replace(b"\r", b"\n")
    if data.startswith(b">") or b"\n>" in data:
        data = _unquoted(b"\n" + data)[1:]
    return data


def _unquoted(data: bytes) -> bytes:
    """Every line without its ``> ``: a few plain replacements are many times faster than the expression."""
    for _ in range(MAX_QUOTES):
        if b"\n>" not in data:
            return data
        # Never both in one pass: the second would leave the blank of a third level behind.
        mark = b"\n> " if b"\n> " in data else b"\n>"
        data = data.replace(mark, b"\n")
    return _QUOTE.sub(b"\n", data)


def numbered(pattern: re.Pattern[bytes], data: bytes) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Each match of ``pattern`` with the 1-based line that it starts on."""
    line, counted = 1, 0
    for match in pattern.finditer(data):
        line += data.count(b"\n", counted, match.start())
        counted = match.start()
        yield line, match


def unread_lines(data: bytes, read: Collection[int], path: str) -> tuple[Diagnostic, ...]:
    """One diagnostic for all lines of ``data`` that are neither blank nor numbered in ``read``."""
    known = frozenset(read)
    return at_lines("not understood", [line for line, _ in numbered(_NOT_BLANK, data) if line not in known], path)


def at_lines(message: str, lines: Sequence[int], path: str) -> tuple[Diagnostic, ...]:
    """One diagnostic at the first of ``lines`` that says how many more there are; none for no line.

    Line 0 means that there is no line.
    """
    if not lines:
        return ()
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return (Diagnostic(message + more, path, lines[0] or None),)


def grep_listing(files: Mapping[str, bytes], path: str) -> bytes:
    """What ``grep -H .`` prints of files by path below ``path``: the first line of each after its name.

    Raises FormatError for the first file that holds a NUL byte: its offset in the listing would say nothing.
    """
    for name, value in files.items():
        if b"\0" in value or "\0" in name:
            raise FormatError("binary data", path=f"{path}/{name}", offset=max(value.find(b"\0"), 0))
    return b"".join(b"%b:%b\n" % (_path(name), value.strip().partition(b"\n")[0]) for name, value in files.items())


def name_listing(names: Iterable[str]) -> bytes:
    """What ``ls`` prints of paths: one a line."""
    return b"".join(b"%b\n" % _path(name) for name in names)


def without_lines(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The diagnostics of a listing that no file holds."""
    return tuple(replace(each, line=None) for each in diagnostics)


def _path(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape").replace(b"\n", b"?")


def without_prompts(data: bytes) -> bytes:
    """``data`` with shell prompts that ask for a file blanked out: ``[root@host ~]# cat /proc/cmdline``."""
    return _PROMPT.sub(b"", data)
