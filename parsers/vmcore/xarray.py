"""Entries of an XArray, gathered level by level with array operations (include/linux/xarray.h, 4.20 to 6.18)."""

from __future__ import annotations

import numpy as np

from parsers.errors import FormatError
from parsers.mapping import U64
from parsers.vmcore.dump import Dump

__all__ = ["xarray_entries"]

_INTERNAL, _NODE_MIN = 2, 4096  # xa_is_node(): internal, and above the small internal values
_MAX_NODES = 1 << 22


def xarray_entries(dump: Dump, head: int) -> tuple[U64, U64, int]:
    """Indices and pointers stored under ``xa_head`` value ``head``, and how many nodes could not be read.

    Raises FormatError for a tree that is deeper or wider than can be, LookupError without types.
    """
    slots_at, slots_size = dump.offset("xa_node", "slots"), dump.member_size("xa_node", "slots")
    if slots_at is None or slots_size is None:
        raise LookupError("struct xa_node")
    slots = slots_size // 8
    entries, base = np.array([head], dtype=np.uint64), np.zeros(1, dtype=np.uint64)
    found: list[tuple[U64, U64]] = []
    lost = 0
    for _ in range(64 // (slots.bit_length() - 1) + 2):
        is_node = ((entries & np.uint64(3)) == _INTERNAL) & (entries > _NODE_MIN)
        found.append((base[~is_node], entries[~is_node]))
        nodes, base = entries[is_node] - np.uint64(_INTERNAL), base[is_node]
        if not nodes.size:
            break
        if nodes.size > _MAX_NODES:
            raise FormatError("more XArray nodes than memory can have blocks")
        headers, known = dump.read_words(nodes, in_use=True)  # shift is the first byte
        lost += int((~known).sum())
        nodes, base, shift = nodes[known], base[known], headers[known] & np.uint64(0x3F)
        number = np.arange(slots, dtype=np.uint64)
        addresses = nodes[:, None] + np.uint64(slots_at) + number * np.uint64(8)
        values, known = dump.read_words(addresses.ravel(), in_use=True)
        lost += int((~known).sum())
        keep = known & (values != 0)
        base = (base[:, None] + (number[None, :] << shift[:, None])).ravel()[keep]
        entries = values[keep]
    else:
        raise FormatError("an XArray that is deeper than 64 bits")
    index = np.concatenate([item for item, _ in found])
    entry = np.concatenate([item for _, item in found])
    pointer = (entry != 0) & ((entry & np.uint64(3)) == 0)
    return index[pointer], entry[pointer], lost
