"""Nodes and zones and the page frames they span (include/linux/mmzone.h, 4.14 to 6.18)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parsers.vmcore.dump import Dump
from parsers.vmcore.rows import ZoneRows

__all__ = ["node_addresses", "read_zones"]

_MAX_NODES = 1024
_MAX_ZONES = 16
_NODE_MEMBERS = ("node_id", "node_start_pfn", "node_spanned_pages", "node_present_pages", "nr_zones")
_ZONE_MEMBERS = ("zone_start_pfn", "spanned_pages", "present_pages")


def read_zones(dump: Dump) -> ZoneRows:
    """Read all online nodes; LookupError where symbols or types are missing, MissingMemoryError where memory is."""
    if not dump.has_types:
        raise LookupError("zones need BTF or a vmlinux")
    nodes: list[tuple[int, ...]] = []
    zones: list[tuple[int, int, int, int, int]] = []
    names: list[str] = []
    inside, size = dump.member("pglist_data", "node_zones"), dump.size("zone")
    if not size:
        raise LookupError("struct zone")
    for node in node_addresses(dump):
        node_id, *spans, nr_zones = (dump.field(node, "pglist_data", name) for name in _NODE_MEMBERS)
        nodes.append((node_id, *spans))
        first = node + inside.offset
        for zone in range(first, first + min(nr_zones, inside.count or _MAX_ZONES) * size, size):
            start, spanned, present = (dump.field(zone, "zone", name) for name in _ZONE_MEMBERS)
            if spanned:
                names.append(dump.string(dump.field(zone, "zone", "name")).decode("ascii", "replace"))
                managed = dump.field(zone, "zone", "managed_pages")  # atomic_long_t since 5.0: a structure of one word
                zones.append((node_id, start, spanned, present, managed))
    node_columns = np.array(nodes, dtype=np.int64).reshape(-1, 4).T
    zone_columns = np.array(zones, dtype=np.int64).reshape(-1, 5).T
    return ZoneRows(
        node=zone_columns[0],
        name=tuple(names),
        start_pfn=zone_columns[1],
        spanned=zone_columns[2],
        present=zone_columns[3],
        managed=zone_columns[4],
        node_id=node_columns[0],
        node_start_pfn=node_columns[1],
        node_spanned=node_columns[2],
        node_present=node_columns[3],
        max_pfn=dump.attempt("max_pfn", lambda: _max_pfn(dump)),
    )


def _max_pfn(dump: Dump) -> int:
    """mm/memblock.c ``max_pfn``; LookupError where the symbols lack data (no CONFIG_KALLSYMS_ALL)."""
    return dump.number(dump.global_at("max_pfn"), 8)


def node_addresses(dump: Dump) -> Iterator[int]:
    """Addresses of the ``struct pglist_data`` of every online node; errors as of `read_zones`."""
    online, size, data = dump.vmcoreinfo.symbol("node_online_map"), dump.vmcoreinfo.size("nodemask_t"), None
    if online is not None and size:
        data = dump.symbol("node_data")
    if online is None or not size or data is None:
        yield dump.vmcoreinfo.symbol("contig_page_data") or dump.global_at("contig_page_data")
        return
    mask = dump.number(online, min(size, _MAX_NODES // 8))
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            yield dump.number(data + 8 * number, 8)
