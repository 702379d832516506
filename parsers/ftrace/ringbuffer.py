"""Ring-buffer pages: the chain of records of many pages at once.

A record's place is known only when the one before it is (include/linux/ring_buffer.h, kernel/trace/ring_buffer.c), so
a page cannot be decoded in one step; but pages are independent: one step of numpy takes the next
record of every page.  Byte order and field places come from the file's ``header_page``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parsers.errors import FormatError
from parsers.expressions import expression
from parsers.ftrace.events import I32
from parsers.mapping import I64, U16, U32, U64, Bool
from parsers.records import dataclass

__all__ = ["PageLayout", "Records", "walk_pages"]

_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_COMMIT_MASK = 0xFFFFF
_MISSED_EVENTS, _MISSED_STORED = 1 << 31, 1 << 30
_STAMP_MASK = np.uint64((1 << 59) - 1)

_FIELD = expression(rb"field:(?:[^;]*[^\w;])?(\w+);\s*offset:(\d+);\s*size:(\d+);")


@dataclass(frozen=True, slots=True)
class PageLayout:
    """Where the head of a ring-buffer page ends and how it is written."""

    commit_offset: int
    commit_size: int
    data_offset: int
    page_size: int
    big_endian: bool

    @classmethod
    def parse(cls, header_page: bytes, page_size: int, *, big_endian: bool) -> PageLayout:
        """From the text of ``events/header_page``; FormatError if it lacks a field."""
        fields = {match[1]: (int(match[2]), int(match[3])) for match in _FIELD.finditer(header_page)}
        if b"commit" not in fields or b"data" not in fields:
            raise FormatError("header_page does not say where the records of a page begin")
        commit_offset, commit_size = fields[b"commit"]
        data_offset, data_size = fields[b"data"]
        # A sub-buffer may be larger than a page (6.8).
        size = max(page_size, data_offset + data_size)
        if commit_size not in (4, 8) or not 12 <= data_offset <= 64 or commit_offset % 4 or data_offset % 4:
            raise FormatError(f"header_page: commit of {commit_size} bytes, data at {data_offset}")
        if size % 4 or not 1024 <= size <= 1 << 20:
            raise FormatError(f"ring-buffer pages of {size} bytes")
        return cls(commit_offset, commit_size, data_offset, size, big_endian)


@dataclass(frozen=True, eq=False, kw_only=True)
class Records:
    """The records of some pages that are wanted, in the order of the pages; one row a record."""

    offset: I64
    """Of the payload, in the data that was walked."""
    length: I64
    time: U64
    type: U16
    """The event's id (``common_type``)."""
    previous: I32
    """Id of the record before it, -1 for the first of all."""
    nr_records: int
    """All records, wanted or not."""
    last_type: int
    missed: list[tuple[int, int | None]]
    """(page number, how many if known): events were lost before that page."""
    damaged: list[int]
    """Offsets at which a page's chain of records breaks."""
    page_first: U64
    """Time of the first record of each page."""
    page_last: U64


def walk_pages(data: bytes, layout: PageLayout, wanted: Bool, previous_type: int = -1) -> Records:
    """Records of the whole pages in ``data`` whose type is in ``wanted`` (65536 flags, by id)."""
    count = len(data) // layout.page_size
    order = ">" if layout.big_endian else "<"
    words = np.frombuffer(data, dtype=f"{order}u4", count=count * layout.page_size // 4)
    heads = words.reshape(count, -1)
    commit = _commit(heads, layout)
    position = np.arange(count, dtype=np.int64) * layout.page_size + layout.data_offset
    end = position + np.minimum(commit & _COMMIT_MASK, layout.page_size - layout.data_offset)
    walk = _Walk(words, wanted, layout.big_endian, _stamp(heads, layout))
    walk.run(position >> 2, end >> 2)
    return walk.finish(previous_type, _missed(data, layout, commit, end))


def _commit(heads: U32, layout: PageLayout) -> I64:
    """The commit word: its low half, wherever the byte order puts it."""
    word = layout.commit_offset // 4
    if layout.big_endian and layout.commit_size == 8:
        word += 1
    return heads[:, word].astype(np.int64)


def _stamp(heads: U32, layout: PageLayout) -> U64:
    low, high = (1, 0) if layout.big_endian else (0, 1)
    return heads[:, low].astype(np.uint64) | (heads[:, high].astype(np.uint64) << np.uint64(32))


def _missed(data: bytes, layout: PageLayout, commit: I64, end: I64) -> list[tuple[int, int | None]]:
    """Pages before which events were lost; the number is stored after the data if there was room."""
    lost: list[tuple[int, int | None]] = []
    for page in np.flatnonzero(commit & _MISSED_EVENTS).tolist():
        place, size = int(end[page]), layout.commit_size
        stored = commit[page] & _MISSED_STORED and place + size <= (page + 1) * layout.page_size
        byteorder = "big" if layout.big_endian else "little"
        lost.append((page, int.from_bytes(data[place : place + size], byteorder) if stored else None))  # type: ignore[arg-type]
    return lost


class _Walk:
    """One record of each page at a time.  Places are counted in words of four bytes, to which records are aligned."""

    def __init__(self, words: U32, wanted: Bool, big_endian: bool, stamps: U64) -> None:
        self._words = words
        self._wanted = wanted
        self._big_endian = big_endian
        self._found: list[tuple[I64, I64, U64, U32, I32, NDArray[np.intp]]] = []
        self._nr_records = 0
        self._damaged: list[int] = []
        self._first, self._last_time = stamps.copy(), stamps
        self._last = np.full(stamps.size, -1, dtype=np.int32)

    def run(self, at: I64, limit: I64) -> None:
        """Walk the pages whose records begin at the words ``at`` and end before ``limit``."""
        pages = np.flatnonzero(at < limit)
        at, limit, time, last = at[pages], limit[pages], self._last_time[pages], self._last[pages]
        while pages.size:
            after, now, event, kind = self._step(at, limit, time, last, pages)
            newly = event & (last < 0)
            if newly.any():
                self._first[pages[newly]] = now[newly]
            last = np.where(event, kind, last)
            going = after < limit
            if going.all():
                at, time = after, now
                continue
            ended = ~going
            self._last_time[pages[ended]], self._last[pages[ended]] = now[ended], last[ended]
            broken = at[after > limit]
            self._damaged += (broken[:16] << 2).tolist()
            at, limit, time, last, pages = after[going], limit[going], now[going], last[going], pages[going]

    def _step(self, at: I64, limit: I64, time: U64, last: I32, pages: NDArray[np.intp]) -> tuple[I64, U64, Bool, U32]:
        """(The word after the record, its time, whether it is an event, its type) for each page.

        After a record that is broken comes a word beyond ``limit``, after the last of a page ``limit``.
        """
        words = self._words
        word = words.take(at)
        if self._big_endian:
            code, delta = word >> np.uint32(27), word & np.uint32((1 << 27) - 1)
        else:
            code, delta = word & np.uint32(31), word >> np.uint32(5)
        payload = at + 1
        second = words.take(payload, mode="clip")  # records of one word need none, so the last of all may have none
        after, now, kind = payload + code, time + delta, self._half(second)
        event = after <= limit
        odd = np.flatnonzero(code - np.uint32(1) >= np.uint32(_PADDING - 1))
        if odd.size:
            length = second[odd].astype(np.int64)
            code_of, large = code[odd], code[odd] == 0
            size = np.where(code_of >= _TIME_EXTEND, 4, length) + 4
            beyond = at[odd] + ((size + 3) >> 2)
            broken = (size < 8) | (beyond > limit[odd])
            finished = (code_of == _PADDING) & (delta[odd] == 0)
            after[odd] = np.where(finished, limit[odd], np.where(broken, limit[odd] + 1, beyond))
            event[odd] = large & ~broken
            payload[odd] += large
            kind[odd] = self._half(words.take(payload[odd], mode="clip"))
            now[odd] = _advance(time[odd], code_of, delta[odd], length)
        self._nr_records += int(np.count_nonzero(event))
        take = np.flatnonzero(event & self._wanted.take(kind))
        if take.size:
            code, length = code[take].astype(np.int64), second[take].astype(np.int64)
            rest = np.where(code == 0, length - 4, code << 2)
            self._found.append((payload[take] << 2, rest, now[take], kind[take], last[take], pages[take]))
        return after, now, event, kind

    def _half(self, words: U32) -> U32:
        """The first two bytes of each word, which are the type of an event that begins there."""
        return words >> np.uint32(16) if self._big_endian else words & np.uint32(0xFFFF)

    def finish(self, previous_type: int, missed: list[tuple[int, int | None]]) -> Records:
        """All records in the order of their places."""
        last = self._last
        parts = list(zip(*self._found, strict=True)) if self._found else [()] * 6
        kinds = (np.int64, np.int64, np.uint64, np.uint16, np.int32, np.intp)
        columns = [
            np.concatenate(part).astype(kind) if part else np.zeros(0, kind)
            for part, kind in zip(parts, kinds, strict=True)
        ]
        order = np.argsort(columns[0], kind="stable")
        offset, length, time, kind, before, page = (column[order] for column in columns)
        # What came before the first record of a page is the last one of a page before it that has any.
        ends = np.where(last >= 0, np.arange(last.size), -1)
        latest = np.maximum.accumulate(ends) if last.size else ends
        of_page = np.where(latest >= 0, last[np.maximum(latest, 0)], previous_type)
        carried = np.concatenate(([previous_type], of_page[:-1])) if last.size else of_page
        before = np.where(before < 0, carried[page] if page.size else before, before)
        return Records(
            offset=offset,
            length=length,
            time=time,
            type=kind,
            previous=before.astype(np.int32),
            nr_records=self._nr_records,
            last_type=int(of_page[-1]) if last.size else previous_type,
            missed=missed,
            damaged=sorted(self._damaged),
            page_first=self._first,
            page_last=self._last_time,
        )


def _advance(time: U64, length_code: U32, delta: U32, second: I64) -> U64:
    """Time after a record: a delta, an extension of it, or an absolute stamp that lacks its five highest bits.

    A discarded record does not advance it (rb_update_read_stamp).
    """
    wide = (second.astype(np.uint64) << np.uint64(27)) + delta
    stamp = (time & ~_STAMP_MASK) | (wide & _STAMP_MASK)
    delta = np.where(length_code == _PADDING, np.uint32(0), delta)
    extended = np.where(length_code == _TIME_EXTEND, time + wide, time + delta)
    return np.where(length_code == _TIME_STAMP, stamp, extended)
