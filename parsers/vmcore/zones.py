"""Nodes and zones and the page frames they span (include/linux/mmzone.h, 4.14 to 6.18)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from parsers.vmcore.dump import Dump
from parsers.vmcore.rows import ZoneRows

if TYPE_CHECKING:
    import drgn

__all__ = ["read_zones"]

_MAX_NODES = 1024
_MAX_ZONES = 16


def read_zones(dump: Dump) -> ZoneRows:
    """Read all online nodes; LookupError where symbols or types are missing, MissingMemoryError where memory is."""
    if not dump.has_types:
        raise LookupError("zones need BTF or a vmlinux")
    nodes: list[tuple[int, int, int, int]] = []
    zones: list[tuple[int, int, int, int, int]] = []
    names: list[str] = []
    for node in _nodes(dump):
        node_id = int(node.node_id)
        nodes.append((node_id, int(node.node_start_pfn), int(node.node_spanned_pages), int(node.node_present_pages)))
        for zone in node.node_zones[: min(int(node.nr_zones), _MAX_ZONES)]:
            if int(zone.spanned_pages):
                names.append(zone.name.string_().decode("ascii", "replace"))
                managed = (
                    int(zone.managed_pages.counter)
                    if hasattr(zone.managed_pages, "counter")
                    else int(zone.managed_pages)
                )
                zones.append(
                    (node_id, int(zone.zone_start_pfn), int(zone.spanned_pages), int(zone.present_pages), managed)
                )
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
    address = dump.symbol("max_pfn")
    if address is None:
        raise LookupError("max_pfn")
    return int.from_bytes(dump.read(address, 8), "little")


def _nodes(dump: Dump) -> Iterator[drgn.Object]:
    """``struct pglist_data`` of every online node."""
    online, size = dump.vmcoreinfo.symbol("node_online_map"), dump.vmcoreinfo.size("nodemask_t")
    if online is None or not size or dump.symbol("node_data") is None:
        yield dump.prog["contig_page_data"]
        return
    mask = int.from_bytes(dump.read(online, min(size, _MAX_NODES // 8)), "little")
    data = dump.prog["node_data"]
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            yield data[number][0]
