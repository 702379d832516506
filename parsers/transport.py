r"""What mail does to rows of evidence, undone before anything is recognised: quoted, indented and wrapped lines.

Mailers wrap at 72 to 76 columns, between words.  The pieces of a wrapped row are joined on its first line, and the
lines that the others had are left empty, so that line numbers stay those of the text.  Only rows of known shape are
joined, and only with what continues such a row; prose is left alone.

>>> row = b"> 0xffff000000000000-0xffff000000200000           2M PMD       RW NX SHD"
>>> carried(row + b"\n> AF        BLK UXN    MEM/NORMAL\n")
b'0xffff000000000000-0xffff000000200000           2M PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL\n\n'
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from parsers.expressions import expression
from parsers.lines import without_transport

__all__ = ["MAX_BYTES", "carried"]

MAX_BYTES = 128 << 20
"""Longer texts did not come by mail, and are of one kind: traces and page-table dumps of large hosts."""
_BINARY_BYTES = 4096
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAX_PIECES = 4

_PAGE_TABLE_ROW = rb"(?:0x)?[0-9a-f]{16}-(?:0x)?[0-9a-f]{16}\b"
_ATTRIBUTE = (
    rb"(?:ro|RW|NX|x|USR|NG|SHD|AF|CON|BLK|TBL|UXN|PXN|GP|F|PTE|PMD|PUD|P4D|PGD|\d+[KMGTPE]"
    rb"|MEM/[A-Z-]+|DEVICE/\w+|DEVICE/GRE|unknown)"
)
_TRACE_ROW = rb"[ \t]{0,24}[^\s#][^\n]{0,24}-\d+ +(?:\( *[\d-]+\) +)?\[\d{3}\] "
_TRACE_WORD = rb"(?:\w+:|\w+=\S*|\(?[\w.]+\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?\)?|<-\S*|[\w.]+\)|0x[0-9a-f]+|-?\d+)"
_IOMEM_ROW = rb"[ \t]*[0-9a-f]{8,16}-[0-9a-f]{8,16}"


class _Shape(NamedTuple):
    """A kind of row, how a line of it begins, and what the next line of a wrapped one consists of."""

    needle: bytes
    wrapped: re.Pattern[bytes]
    indented: re.Pattern[bytes] | None = None


def _wrapped(row: bytes, word: bytes, least: int) -> re.Pattern[bytes]:
    """A row of at least that many characters, a newline, and a line of such words alone."""
    return expression(
        rb"\n(?=%b)(?=[^\n]{%d})([^\n]*)((?:\n[ \t]*(?:%b)(?:[ \t]+(?:%b))*[ \t]*(?=\n|\Z)){1,%d})"
        % (row, least, word, word, _MAX_PIECES)
    )


_SHAPES = (
    _Shape(
        b"-0x",
        _wrapped(_PAGE_TABLE_ROW, _ATTRIBUTE, 37),
        expression(rb"\n[ \t]+(?=0x[0-9a-f]{16}-0x[0-9a-f]{16}\b|---\[ )"),
    ),
    _Shape(b" [0", _wrapped(_TRACE_ROW, _TRACE_WORD, 36)),
    _Shape(b" : ", _wrapped(_IOMEM_ROW, rb": [^\n]{1,80}", 0)),
    _Shape(b"CONFIG_", expression(rb"(?!)"), expression(rb"\n[ \t]+(?=CONFIG_\w+=|# CONFIG_\w+ is not set)")),
)


def carried(data: bytes) -> bytes:
    """A text as it was before mail carried it; binary data, and texts of more than `MAX_BYTES`, unchanged."""
    if len(data) > MAX_BYTES or (b"\0" in data[:_BINARY_BYTES] and not data.startswith(_MARKS)):
        return data
    plain = _without_indent(_without_prefix(without_transport(data)))
    for shape in _SHAPES:
        if shape.needle not in plain:
            continue
        if shape.indented is not None:
            plain = shape.indented.sub(b"\n", b"\n" + plain)[1:]
        plain = shape.wrapped.sub(_joined, b"\n" + plain)[1:]
    return plain


def _joined(found: re.Match[bytes]) -> bytes:
    """The pieces on one line, then as many empty lines as the others had."""
    pieces = found[2].split(b"\n")[1:]
    return b"\n" + b" ".join([found[1].rstrip(), *(piece.strip() for piece in pieces)]) + b"\n" * len(pieces)


_MOMENT = (
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    rb"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,]{0,10}(?:Z|[+-]\d\d:?\d\d)?\]?)"
)
_PREFIXES = tuple(
    expression(rb"\n(?:%b)" % prefix)
    for prefix in (
        rb"(?:[\w.-]{1,40} {0,20})?\| ?",  # docker compose, or a quote
        rb"%b [\w.-]{1,64} [\w./-]{1,40}(?:\[\d{1,8}\])?: ?" % _MOMENT,  # syslog, journald
        rb"%b (?:std(?:out|err) [FP] )?" % _MOMENT,  # what runs containers
    )
)
_NUMBERED = expression(rb"\n(\d{1,7}):")
"""As ``grep -n ''`` and some pastes do."""
_SAMPLE = 16384
_NEARLY_ALL = 0.9


def _without_prefix(data: bytes) -> bytes:
    """The text without what a collector put before each line of it; logs of the kernel keep what they have."""
    head = b"\n" + data[:_SAMPLE]
    lines = sum(1 for line in head.split(b"\n") if line.strip())
    if lines < 2 or b"kernel: " in head or b"kernel[" in head:
        return data
    numbers = [int(number) for number in _NUMBERED.findall(head)]
    if len(numbers) >= lines * _NEARLY_ALL - 1 and numbers[:1] and numbers == [*range(numbers[0], numbers[-1] + 1)]:
        return _NUMBERED.sub(b"\n", b"\n" + data)[1:]
    for prefix in _PREFIXES:
        if len(prefix.findall(head)) >= max(2, lines * _NEARLY_ALL - 1):
            return prefix.sub(b"\n", b"\n" + data)[1:]
    return data


def _without_indent(data: bytes) -> bytes:
    """The text without what every line of it is indented by."""
    width = min(_indents(data), default=0)
    return re.sub(rb"\n[ \t]{%d}" % width, b"\n", b"\n" + data)[1:] if width else data


def _indents(data: bytes) -> Iterator[int]:
    """How far lines are indented, until one is not: of most texts that is the first."""
    for match in re.finditer(rb"\n([ \t]*)[^\s]", b"\n" + data):
        width = len(match[1])
        yield width
        if not width:
            return
