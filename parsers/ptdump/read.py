"""Reading a dump: regular rows in bulk, the other lines one by one, then what the rows say together."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from parsers.errors import FormatError
from parsers.mapping import Marker
from parsers.ptdump import foreign
from parsers.ptdump.blocks import blocks
from parsers.ptdump.diagnostics import DiagnosticLog
from parsers.ptdump.rows import Rows
from parsers.ptdump.scan import Scan
from parsers.ptdump.settle import settle
from parsers.ptdump.table import PageTableDump, UnknownWord
from parsers.ptdump.tails import Tails

__all__ = ["parse"]


def parse(data: bytes, path: str) -> PageTableDump:
    """The rows of the dump in ``data``; ``path`` is where it came from, for messages.

    A dump may be anywhere in a text (dmesg, mail, terminal log), with any of the usual prefixes on its lines.
    A row that cannot be used becomes a diagnostic.  WrongFormatError for dumps of other tables or architectures,
    FormatError for a text without a readable row.
    """
    foreign.refuse_binary(data, path)
    foreign.refuse_by_text(data, path)
    scan = Scan(path, len(data))
    for block in blocks(data):
        scan.read(block)
    rows = scan.rows.rows()
    if not len(rows):
        _refuse(scan, path)
    first_line = int(rows.line[0])
    settled = settle(rows, scan.tails, scan.log)
    rows = settled.rows
    unknown = _unknown_words(rows, scan.tails)
    foreign.refuse_by_rows(rows, {name for _, name in scan.markers}, path)
    if not len(rows):
        raise FormatError("no row of a page-table dump can be used here", path=path, line=first_line)
    _report_unknown_words(unknown, scan.log)
    kinds = scan.tails.kinds
    return PageTableDump(
        path=path,
        start=rows.start,
        size=rows.size,
        word=np.array([kind.word for kind in kinds], np.uint8)[rows.tail],
        attrs=np.array([kind.attrs for kind in kinds], np.uint16)[rows.tail],
        memtype=np.array([kind.memtype for kind in kinds], np.uint8)[rows.tail],
        line=rows.line,
        break_before=settled.break_before,
        markers=tuple(Marker(name, int(np.searchsorted(rows.line, line)), line) for line, name in scan.markers),
        prints_holes=settled.prints_holes,
        inclusive_end=settled.inclusive_end,
        wx_check=tuple(scan.wx_check),
        unknown_words=unknown,
        diagnostics=scan.log.result(),
        data=data,
        line_index=scan.line_index,
    )


def _refuse(scan: Scan, path: str) -> NoReturn:
    """Raise what fits a text without any row."""
    message = "no row of a page-table dump can be read here"
    if scan.first_fault is None:
        raise FormatError(message, path=path)
    line = scan.first_fault.line or 1
    foreign.refuse_by_text(b"\n".join(scan.bad_lines), path, line)
    foreign.refuse_hidden_addresses(scan.bad_lines, path)
    raise FormatError(f"{message} ({scan.first_fault.message})", path=path, line=line)


def _unknown_words(rows: Rows, tails: Tails) -> dict[str, UnknownWord]:
    """The words of the tails in use that mean nothing to this parser."""
    counts = np.bincount(rows.tail, minlength=len(tails))
    first_line = np.zeros(len(tails), np.uint32)
    first_line[rows.tail[::-1]] = rows.line[::-1]  # the last assignment stays: the first row's
    unknown: dict[str, UnknownWord] = {}
    for number in np.flatnonzero(counts).tolist():
        for word in set(tails.kinds[number].unknown):
            seen = unknown.get(word, UnknownWord(0, int(first_line[number])))
            line = min(seen.first_line, int(first_line[number]))
            unknown[word] = UnknownWord(seen.count + int(counts[number]), line)
    return dict(sorted(unknown.items(), key=lambda item: (item[1].first_line, item[0])))


def _report_unknown_words(unknown: dict[str, UnknownWord], log: DiagnosticLog) -> None:
    for word, seen in unknown.items():
        rows = "1 row" if seen.count == 1 else f"{seen.count} rows"
        log.add(f"{word!r} in {rows} is not an attribute of a mainline kernel and is ignored", seen.first_line)
