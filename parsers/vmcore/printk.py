"""The kernel log in a dump, as ``dmesg`` prints it; bounded, and readable with VMCOREINFO alone.

Two layouts: the ring of descriptors of 5.10 and later (896fbe20b4e2, kernel/printk/printk_ringbuffer.c), and the
buffer of records before it (kernel/printk/printk.c).
"""

from __future__ import annotations

import numpy as np

from parsers.errors import FormatError
from parsers.mapping import U64
from parsers.vmcore.dump import Dump

__all__ = ["read_dmesg"]

_MAX_BITS = 26  # CONFIG_LOG_BUF_SHIFT is at most 25
_ID_BYTES = 8  # a text block begins with the number of its descriptor
_STATE_SHIFT = np.uint64(62)
_ID_MASK = (1 << 62) - 1
_COMMITTED, _FINALIZED = 1, 2
_NO_DATA = np.uint64(1)


def read_dmesg(dump: Dump) -> bytes:
    """The log, one line a record with its time; LookupError where symbols or structures are not known.

    Raises FormatError for a ring that cannot be, MissingMemoryError where the dump lacks it.
    """
    ring = dump.vmcoreinfo.symbol("prb") or dump.symbol("prb")
    return _descriptors(dump, _number(dump, ring, 8)) if ring else _records(dump)


def _number(dump: Dump, va: int, size: int) -> int:
    return int.from_bytes(dump.read(va, size), "little")


def _at(dump: Dump, type_name: str, member: str) -> int:
    offset = dump.offset(type_name, member)
    if offset is None:
        raise LookupError(f"offset of {type_name}.{member}")
    return offset


def _size(dump: Dump, type_name: str) -> int:
    size = dump.size(type_name)
    if not size:
        raise LookupError(f"size of {type_name}")
    return size


def _lines(times: list[int], texts: list[bytes]) -> bytes:
    lines = (
        b"[% 5d.%06d] %s\n" % (*divmod(time // 1000, 1_000_000), text) for time, text in zip(times, texts, strict=True)
    )
    return b"".join(lines)


def _descriptors(dump: Dump, ring: int) -> bytes:
    descs = ring + _at(dump, "printk_ringbuffer", "desc_ring")
    text = ring + _at(dump, "printk_ringbuffer", "text_data_ring")
    count_bits = _number(dump, descs + _at(dump, "prb_desc_ring", "count_bits"), 4)
    size_bits = _number(dump, text + _at(dump, "prb_data_ring", "size_bits"), 4)
    first = _number(dump, descs + _at(dump, "prb_desc_ring", "tail_id"), 8) & _ID_MASK
    last = _number(dump, descs + _at(dump, "prb_desc_ring", "head_id"), 8) & _ID_MASK
    count = (last - first & _ID_MASK) + 1
    if not 0 < count_bits <= _MAX_BITS or not 0 < size_bits <= _MAX_BITS or count > 1 << count_bits:
        raise FormatError(f"the log's ring is damaged: {count} records in 2**{count_bits}")
    ids = np.uint64(first) + np.arange(count, dtype=np.uint64) & np.uint64(_ID_MASK)
    index = (ids & np.uint64((1 << count_bits) - 1)).astype(np.intp)
    desc, info = _size(dump, "prb_desc"), _size(dump, "printk_info")
    descriptors = _structures(dump, _number(dump, descs + _at(dump, "prb_desc_ring", "descs"), 8), desc, count_bits)
    infos = _structures(dump, _number(dump, descs + _at(dump, "prb_desc_ring", "infos"), 8), info, count_bits)
    state = descriptors[index, _at(dump, "prb_desc", "state_var") // 8]
    blocks = _at(dump, "prb_desc", "text_blk_lpos") // 8
    begin, end = descriptors[index, blocks], descriptors[index, blocks + 1]
    good = (state & np.uint64(_ID_MASK) == ids) & np.isin(state >> _STATE_SHIFT, (_COMMITTED, _FINALIZED))
    good &= (begin & _NO_DATA) == 0
    mask = np.uint64((1 << size_bits) - 1)
    start, stop = begin & mask, end & mask
    start = np.where(start > stop, np.uint64(0), start) + np.uint64(_ID_BYTES)  # a block that wraps starts again at 0
    good &= start <= stop
    rows = np.flatnonzero(good)
    length_at = _at(dump, "printk_info", "text_len")
    length = infos[index, length_at // 8] >> np.uint64(length_at % 8 * 8) & np.uint64(0xFFFF)
    length = np.minimum(length, np.where(good, stop - start, np.uint64(0)))
    times = infos[index[rows], _at(dump, "printk_info", "ts_nsec") // 8].tolist()
    data = dump.read(_number(dump, text + _at(dump, "prb_data_ring", "data"), 8), 1 << size_bits)
    spans = zip(start[rows].tolist(), (start + length)[rows].tolist(), strict=True)
    return _lines(times, [data[low:high] for low, high in spans])


def _structures(dump: Dump, va: int, size: int, count_bits: int) -> U64:
    """``(2**count_bits, size / 8)`` words of an array of structures."""
    if size % 8:
        raise FormatError(f"structures of {size} bytes in the log's ring")
    data = dump.read(va, size << count_bits)
    return np.frombuffer(data, dtype="<u8").reshape(-1, size // 8).astype(np.uint64)


def _records(dump: Dump) -> bytes:
    """Records one after another from ``log_first_idx`` to ``log_next_idx``; a length of 0 means: go on at the start."""
    symbols = {}
    for name in ("log_buf", "log_buf_len", "log_first_idx", "log_next_idx"):
        address = dump.vmcoreinfo.symbol(name) or dump.symbol(name)
        if address is None:
            raise LookupError(name)
        symbols[name] = _number(dump, address, 8 if name == "log_buf" else 4)
    header = _size(dump, "printk_log")
    time_at, length_at, text_at = (_at(dump, "printk_log", name) for name in ("ts_nsec", "len", "text_len"))
    size = symbols["log_buf_len"]
    if not 0 < size <= 1 << _MAX_BITS:
        raise FormatError(f"a log buffer of {size} bytes")
    data = dump.read(symbols["log_buf"], size)
    times: list[int] = []
    texts: list[bytes] = []
    at, wrapped = symbols["log_first_idx"], False
    while at != symbols["log_next_idx"] and at + header <= size:
        length = int.from_bytes(data[at + length_at : at + length_at + 2], "little")
        if length == 0 and not wrapped:
            at, wrapped = 0, True
            continue
        if length < header:
            break
        text = int.from_bytes(data[at + text_at : at + text_at + 2], "little")
        times.append(int.from_bytes(data[at + time_at : at + time_at + 8], "little"))
        texts.append(data[at + header : at + header + min(text, length - header)])
        at += length
    return _lines(times, texts)
