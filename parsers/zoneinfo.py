"""/proc/zoneinfo: how many pages each zone spans, has and manages.

Format from mm/vmstat.c ``zoneinfo_show_print`` (4.14 to 6.18).  All counts are pages.  A zone without present
pages ends after its counts: its ``start_pfn`` is not printed, ZONE_DEVICE's among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from parsers.errors import ArchitectureError, Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import at_lines, numbered, text_of
from parsers.mapping import I64, U32
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "Zoneinfo", "parse_zoneinfo"]

MAX_BYTES = 64 << 20  # 64 nodes of 512 CPUs are 15 MiB

_COUNTS = ("free", "spanned", "present", "managed", "start_pfn")
_FACT = expression(
    rb"^Node[ \t]+(?P<node>\d{1,9}), zone[ \t]+(?P<zone>\w+)"
    rb"|^[ \t]+(?:pages[ \t]+)?(?P<key>free|spanned|present|managed|start_pfn|nr_page_table_pages)"
    rb":?[ \t]+(?P<value>\d{1,18})[ \t]*$",
    re.MULTILINE,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Zoneinfo:
    """One row a zone, in the order of the file; a count that was not printed is -1.

    >>> text = b'''Node 0, zone      DMA
    ...   per-node stats
    ...       nr_page_table_pages 21
    ...   pages free     49230
    ...         spanned  311296
    ...         present  81920
    ...         managed  58416
    ...   start_pfn:           16384
    ... Node 0, zone   Device
    ...   pages free     0
    ...         spanned  32768
    ...         present  0
    ...         managed  0
    ... '''
    >>> zones = parse_zoneinfo(text, "zoneinfo")
    >>> zones.zone, zones.node.tolist(), zones.start_pfn.tolist(), zones.spanned.tolist(), zones.line.tolist()
    (('DMA', 'Device'), [0, 0], [16384, -1], [311296, 32768], [1, 9])
    >>> zones.nr_page_table_pages[0]
    21
    """

    path: str
    node: I64
    zone: tuple[str, ...]
    free: I64
    spanned: I64
    """Pages from the first to the last of the zone, holes included."""
    present: I64
    managed: I64
    start_pfn: I64
    line: U32
    """1-based line of the zone's header."""
    nr_page_table_pages: Mapping[int, int]
    """By node; the sum over its zones for kernels before 5.11, which count by zone.  A missing node is unknown."""
    complete: bool = True
    """False where the file has lost its head or its end: each node lists all its zones, Movable and Device last."""
    diagnostics: tuple[Diagnostic, ...] = ()

    def __len__(self) -> int:
        return len(self.zone)


def parse_zoneinfo(data: bytes, path: str) -> Zoneinfo:
    """Read ``/proc/zoneinfo``; FormatError without a zone, ArchitectureError where it has one of 32-bit kernels."""
    data = text_of(data, path, limit=MAX_BYTES, what="/proc/zoneinfo")
    headers: list[tuple[int, str, int]] = []
    columns: dict[str, list[int]] = {key: [] for key in _COUNTS}
    page_tables: dict[int, int] = {}
    headless = False
    for line, match in numbered(_FACT, data):
        headless |= not headers and not match["zone"]
        if match["zone"]:
            headers.append((int(match["node"]), match["zone"].decode(), line))
            for column in columns.values():
                column.append(-1)
        elif headers:
            key, value = match["key"].decode(), int(match["value"])
            if key in columns:
                columns[key][-1] = value
            else:
                node = headers[-1][0]
                page_tables[node] = page_tables.get(node, 0) + value
    if not headers:
        raise FormatError("no line 'Node N, zone NAME', no /proc/zoneinfo", path=path)
    high = next((line for _, zone, line in headers if zone == "HighMem"), None)
    if high is not None:  # CONFIG_HIGHMEM, which arm64 cannot have
        raise ArchitectureError("zones of a 32-bit kernel (HighMem), not of arm64", path=path, line=high)
    counts = {key: np.array(column, dtype=np.int64) for key, column in columns.items()}
    line_numbers = np.array([line for *_, line in headers], dtype=np.uint32)
    missing = (counts["spanned"] < 0) | (counts["present"] < 0) | (counts["managed"] < 0)
    countless = line_numbers[missing | ((counts["present"] > 0) & (counts["start_pfn"] < 0))]
    return Zoneinfo(
        path=path,
        node=np.array([node for node, *_ in headers], dtype=np.int64),
        zone=tuple(zone for _, zone, _ in headers),
        line=line_numbers,
        nr_page_table_pages=MappingProxyType(page_tables),
        complete=not headless and not countless.size and {node for node, *_ in headers} == _ended(headers),
        diagnostics=at_lines("counts of the zone are missing", countless.tolist(), path),
        **counts,
    )


def _ended(headers: list[tuple[int, str, int]]) -> set[int]:
    """Nodes whose last zones are there; the kernel prints empty ones too."""
    return {node for node, zone, _ in headers if zone == "Movable"}
