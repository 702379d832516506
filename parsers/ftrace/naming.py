"""What the names in a trace mean: of events, of symbols, of arguments.

An event of hotplug is known by its own name (with or without ``mhp_``, the default names of kprobe events and of perf
probe included) or by the function that was probed; an argument goes to one column however it is spelled.
"""

from __future__ import annotations

from parsers.expressions import expression
from parsers.ftrace.functions import FUNCTIONS, Kind

__all__ = [
    "BASE_NAMES",
    "EVENT_NAMES",
    "IGNORED",
    "NAME_ENDS",
    "SIGNED",
    "SYMBOLS",
    "TRACEPOINTS",
    "UNNAMED_ARGUMENT",
    "column_of",
    "column_type",
    "kind_of",
    "symbol_kind",
]

# Events that the kernel has by itself.
TRACEPOINTS: dict[str, Kind] = {
    "mm_page_alloc": Kind.MM_PAGE_ALLOC,
    "mm_page_free": Kind.MM_PAGE_FREE,
    "test_pages_isolated": Kind.TEST_PAGES_ISOLATED,
    "mm_migrate_pages": Kind.MM_MIGRATE_PAGES,
    "tracing_mark_write": Kind.MARKER,
    "print": Kind.MARKER,
}

SIGNED = frozenset({"nid", "zone_nid", "ret", "migratetype", "online_type", "enable"})
"""Columns whose values are signed (two's complement in 64 bits)."""

_TYPES = {"flags": "x32", "free_mapped": "u8"} | dict.fromkeys(SIGNED, "s32")

# Spellings of columns in probe sets, BTF parameter names and tracepoints.
_SPELLINGS: dict[str, str] = {
    "pfn": "start_pfn",
    "spfn": "start_pfn",
    "epfn": "end_pfn",
    "phys_start_pfn": "start_pfn",
    "nr": "nr_pages",
    "np": "nr_pages",
    "numpages": "nr_pages",
    "node": "nid",
    "znid": "zone_nid",
    "zname": "zone_name",
    "mt": "migratetype",
    "otype": "online_type",
    "mhp_flags": "flags",
    "free": "free_mapped",
    "ceil": "ceiling",
    "mapoff": "map_offset",
    "abase": "altmap_base_pfn",
    "alt_base": "altmap_base_pfn",
    "aend": "altmap_end_pfn",
    "alt_end": "altmap_end_pfn",
    "ares": "altmap_reserve",
    "alt_reserve": "altmap_reserve",
    "afree": "altmap_free",
    "alt_free": "altmap_free",
    "alt_alloc": "altmap_alloc",
    "pflags": "flags",
    "vshift": "vmemmap_shift",
    "addr": "start",
    "next": "end",
    "val": "action",
    "on": "enable",
    "retval": "ret",
}
UNNAMED_ARGUMENT = expression(r"arg([1-9]\d?)")
"""What the kernel calls an argument that the probe does not name: its place in the probe, from 1."""
IGNORED = "-"
"""The column of what says nothing: the allocator prints a hashed pointer as ``page``."""
_POINTER_RESULTS = {"p": "ret", "ptr": "ret"}


def column_type(column: str) -> str:
    """The type with which a probe prints ``column``."""
    return _TYPES.get(column, "x64")


def column_of(name: str, kind: Kind, *, at_return: bool = False) -> str:
    """The column that argument ``name`` of an event of ``kind`` goes to; an unknown name is its own column."""
    if at_return and name in _POINTER_RESULTS:
        return _POINTER_RESULTS[name]
    if name == "p" and kind is Kind.VMEMMAP_SET_PMD:
        return "page"
    if name == "page" and kind in (Kind.MM_PAGE_ALLOC, Kind.MM_PAGE_FREE):
        return IGNORED
    return _SPELLINGS.get(name, name)


NAME_ENDS: dict[str, bool] = {"_ret": True, "_ret2": True, "__return": True, "__exit": True, "__entry": False}
"""What probe sets append to the name of an event, and whether it is the return then."""

BASE_NAMES: dict[str, Kind] = {
    name: function.kind for function in FUNCTIONS for name in (function.event, *function.aliases, *function.names)
}
"""Event names in use, without ``mhp_`` and without an end."""

EVENT_NAMES: dict[str, tuple[Kind, bool]] = {
    name + end: (kind, is_return)
    for name, kind in BASE_NAMES.items()
    for end, is_return in {"": False, **NAME_ENDS}.items()
}
"""The same with every end: (kind, is a return)."""
SYMBOLS: dict[str, Kind] = {name: function.kind for function in FUNCTIONS for name in function.names}


def symbol_kind(symbol: str) -> Kind:
    """Kind of a symbol as printed, ``section_deactivate.isra.0+0x4/0x98 [module]`` being section_deactivate."""
    bare = symbol.split("+", 1)[0].split(" ", 1)[0].split(".", 1)[0]
    return SYMBOLS.get(bare, Kind.OTHER)


def kind_of(event: str) -> tuple[Kind, bool]:
    """(kind, is a return) of an event name: ``mhp_online_ret``, ``probe:online_pages``, ``r_online_pages_0`` …

    (OTHER, False) for a name that says nothing; the probed symbol may still identify it.
    """
    name = event.rsplit(":", 1)[-1]
    if name in TRACEPOINTS:
        return TRACEPOINTS[name], False
    for candidate in (name, name.removeprefix("mhp_")):
        if candidate in EVENT_NAMES:
            return EVENT_NAMES[candidate]
    name = name.removeprefix("mhp_")
    if name.startswith("tlbi"):
        return Kind.TLBI, False
    letter, _, rest = name.partition("_")
    symbol, _, number = rest.rpartition("_")
    if letter in ("p", "r") and number.isdigit() and symbol in SYMBOLS:
        return SYMBOLS[symbol], letter == "r"
    return Kind.OTHER, False
