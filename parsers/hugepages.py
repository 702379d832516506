"""HugeTLB pools: /sys/kernel/mm/hugepages and the sysctl of vmemmap optimization, from ``grep -H .`` or a copied tree.

Attributes from mm/hugetlb.c (4.14 to 6.18): counts of huge pages, in directories ``hugepages-<size>kB``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from parsers.errors import Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import at_lines, grep_listing, numbered, text_of, without_lines
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "HugePagePool", "HugePages", "parse_hugepages", "parse_hugepages_tree"]

MAX_BYTES = 4 << 20

_FACT = expression(
    rb"^(?![^:\n]*\bnode\d)(?:[^:\n]*/)?hugepages-(?P<size>\d{1,12})kB/(?P<name>\w+):(?P<value>[^\n]*)"
    rb"|^(?:[^:\n]*/)?hugetlb_optimize_vmemmap:(?P<optimize>[^\n]*)"
    rb"|^vm\.hugetlb_optimize_vmemmap[ \t]*=(?P<sysctl>[^\n]*)",
    re.MULTILINE,
)
_NUMBER = expression(rb"(\d{1,18})(kB)?")
_ATTRIBUTES = frozenset(
    {
        "nr_hugepages",
        "free_hugepages",
        "resv_hugepages",
        "surplus_hugepages",
        "nr_overcommit_hugepages",
        "demote_size",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePagePool:
    """Counts of huge pages of one size; None for what was not captured."""

    size_bytes: int
    line: int
    """1-based line of ``nr_hugepages``, else of the first attribute; 1 in a copied tree."""
    nr: int | None = None
    free: int | None = None
    resv: int | None = None
    surplus: int | None = None
    nr_overcommit: int | None = None
    demote_size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class HugePages:
    """The pools of the whole system by huge page size in bytes.

    >>> text = b'''/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages:3
    ... /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages:4
    ... /proc/sys/vm/hugetlb_optimize_vmemmap:0
    ... '''
    >>> pages = parse_hugepages(text, "hugetlb")
    >>> pool = pages.pools[2 << 20]
    >>> pool.nr, pool.free, pool.surplus, pool.line, pages.optimize_vmemmap
    (4, 3, None, 2, False)
    """

    path: str
    pools: Mapping[int, HugePagePool]
    optimize_vmemmap: bool | None
    """The sysctl; None if it was not captured or the kernel has none (built without HVO)."""
    optimize_vmemmap_line: int | None = None
    diagnostics: tuple[Diagnostic, ...] = ()


def parse_hugepages(data: bytes, path: str) -> HugePages:
    """Read ``grep -H . /sys/kernel/mm/hugepages/*/* /proc/sys/vm/hugetlb_optimize_vmemmap``.

    Pools of single nodes (/sys/devices/system/node) are passed over.  Raises FormatError without a pool and
    without the sysctl.
    """
    data = text_of(data, path, limit=MAX_BYTES, what="listing of huge pages")
    attributes: dict[int, dict[str, tuple[bytes, int]]] = {}
    optimize: tuple[bytes, int] | None = None
    for line, match in numbered(_FACT, data):
        if match["size"] is None:
            optimize = ((match["optimize"] or match["sysctl"] or b"").strip(), line)
        else:
            of_size = attributes.setdefault(int(match["size"]) << 10, {})
            of_size[match["name"].decode()] = (match["value"].strip(), line)
    pools = {size: _pool(size, attributes[size]) for size in sorted(attributes)}
    malformed = [
        line
        for of_size in attributes.values()
        for name, (value, line) in of_size.items()
        if name in _ATTRIBUTES and _number(value) is None
    ]
    if not pools and optimize is None:
        raise FormatError("no pool of huge pages", path=path)
    return HugePages(
        path=path,
        pools=MappingProxyType(pools),
        optimize_vmemmap={b"0": False, b"1": True}.get(optimize[0]) if optimize else None,
        optimize_vmemmap_line=optimize[1] if optimize else None,
        diagnostics=at_lines("no number of huge pages", malformed, path),
    )


def parse_hugepages_tree(files: Mapping[str, bytes], path: str) -> HugePages:
    """Read copied files by path, such as ``sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages``.

    Raises FormatError as `parse_hugepages` does.
    """
    pages = parse_hugepages(grep_listing(files, path), path)
    return replace(
        pages,
        pools=MappingProxyType({size: replace(pool, line=1) for size, pool in pages.pools.items()}),
        optimize_vmemmap_line=None if pages.optimize_vmemmap_line is None else 1,
        diagnostics=without_lines(pages.diagnostics),
    )


def _pool(size_bytes: int, attributes: Mapping[str, tuple[bytes, int]]) -> HugePagePool:
    numbers = {name: _number(value) for name, (value, _) in attributes.items()}
    _, line = attributes.get("nr_hugepages") or next(iter(attributes.values()))
    return HugePagePool(
        size_bytes=size_bytes,
        line=line,
        nr=numbers.get("nr_hugepages"),
        free=numbers.get("free_hugepages"),
        resv=numbers.get("resv_hugepages"),
        surplus=numbers.get("surplus_hugepages"),
        nr_overcommit=numbers.get("nr_overcommit_hugepages"),
        demote_size_bytes=numbers.get("demote_size"),
    )


def _number(text: bytes) -> int | None:
    match = _NUMBER.fullmatch(text)
    return int(match[1]) << (10 if match[2] else 0) if match else None
