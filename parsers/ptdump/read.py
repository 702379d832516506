"""Reading a dump: regular rows in bulk, the other lines one by one, then what the rows say together."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np

from parsers.errors import DiagnosticLog, FormatError
from parsers.mapping import Marker
from parsers.ptdump import foreign
from parsers.ptdump.pieces import Each, Text
from parsers.ptdump.rows import Settled, by_tail, parts, settle
from parsers.ptdump.scan import Scan, scan
from parsers.ptdump.table import PageTableDump, UnknownWord
from parsers.ptdump.tails import Tails

__all__ = ["parse", "parse_file"]


def parse(data: bytes, path: str) -> PageTableDump:
    """The rows of the dump in ``data``; ``path`` is where it came from, for messages.

    A dump may be anywhere in a text (dmesg, mail, terminal log), with any of the usual prefixes on its lines.
    A row that cannot be used becomes a diagnostic.  WrongFormatError for dumps of other tables or architectures,
    FormatError for a text without a readable row.
    """
    return _parse(Text(data), path)


def parse_file(file: Path, path: str, each: Each | None = None) -> PageTableDump:
    """The same of a file that is on disk, whose text is never held: what is quoted of it later is read again.

    ``each`` is called with all bytes, in order.  InputError where the file cannot be read.
    """
    return _parse(Text(None, str(file), each), path)


def _parse(text: Text, path: str) -> PageTableDump:
    foreign.refuse_binary(text, path)
    foreign.refuse_by_text(text, path)
    found = scan(text, path)
    rows = found.rows.rows()
    if not len(rows):
        _refuse(found, path)
    first_line = int(rows.line[0])
    settled = settle(rows, found.tails, found.log)
    rows = settled.rows
    unknown = _unknown_words(settled, found.tails)
    foreign.refuse_by_rows(rows, {name for _, name in found.markers}, path)
    if not len(rows):
        raise FormatError("no row of a page-table dump can be used here", path=path, line=first_line)
    _report_unknown_words(unknown, found.log)
    kinds = found.tails.kinds
    at = np.searchsorted(rows.line, np.array([line for line, _ in found.markers], np.uint32))
    return PageTableDump(
        path=path,
        start=rows.start,
        size=rows.size,
        word=by_tail(np.array([kind.word for kind in kinds], np.uint8), rows.tail),
        attrs=by_tail(np.array([kind.attrs for kind in kinds], np.uint16), rows.tail),
        memtype=by_tail(np.array([kind.memtype for kind in kinds], np.uint8), rows.tail),
        line=rows.line,
        break_before=settled.break_before,
        markers=tuple(Marker(name, row, line) for (line, name), row in zip(found.markers, at.tolist(), strict=True)),
        prints_holes=settled.prints_holes,
        inclusive_end=settled.inclusive_end,
        wx_check=tuple(found.wx_check),
        unknown_words=unknown,
        diagnostics=found.log.result(),
        only_rows=found.only_rows and not unknown,
        line_index=found.line_index,
    )


def _refuse(found: Scan, path: str) -> NoReturn:
    """Raise what fits a text without any row."""
    message = "no row of a page-table dump can be read here"
    if found.first_fault is None:
        raise FormatError(message, path=path)
    line = found.first_fault.line or 1
    foreign.refuse_by_text(Text(b"\n".join(found.bad_lines)), path, line)
    foreign.refuse_hidden_addresses(found.bad_lines, path)
    raise FormatError(f"{message} ({found.first_fault.message})", path=path, line=line)


def _unknown_words(settled: Settled, tails: Tails) -> dict[str, UnknownWord]:
    """The words of the tails in use that mean nothing to this parser."""
    counts, rows = settled.tail_counts, settled.rows
    with_words = [number for number in np.flatnonzero(counts).tolist() if tails.kinds[number].unknown]
    first_line = np.zeros(len(tails), np.uint32)
    for part in reversed(list(parts(len(rows)))) if with_words else ():
        first_line[rows.tail[part][::-1]] = rows.line[part][::-1]  # the last assignment stays: the first row's
    unknown: dict[str, UnknownWord] = {}
    for number in with_words:
        for word in set(tails.kinds[number].unknown):
            seen = unknown.get(word, UnknownWord(0, int(first_line[number])))
            line = min(seen.first_line, int(first_line[number]))
            unknown[word] = UnknownWord(seen.count + int(counts[number]), line)
    return dict(sorted(unknown.items(), key=lambda item: (item[1].first_line, item[0])))


def _report_unknown_words(unknown: dict[str, UnknownWord], log: DiagnosticLog) -> None:
    for word, seen in unknown.items():
        rows = "1 row" if seen.count == 1 else f"{seen.count} rows"
        log.add(f"{word!r} in {rows} is not an attribute of a mainline kernel and is ignored", seen.first_line)
