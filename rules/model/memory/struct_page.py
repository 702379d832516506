"""Which field of a struct page an offset falls into (include/linux/mm_types.h): a hint, for the layout is private."""

from __future__ import annotations

__all__ = ["field_at"]

# First byte of each field of the 64-byte structure: since 4.18 (the union rework ending in 4da1984edbbe), and before.
_FIELDS = (
    (0x00, "flags"),
    (0x08, "lru.next / compound_head / pgmap"),
    (0x10, "lru.prev / zone_device_data"),
    (0x18, "mapping"),
    (0x20, "index"),
    (0x28, "private"),
    (0x30, "_mapcount / page_type"),
    (0x34, "_refcount"),
    (0x38, "memcg_data"),
)
_BEFORE_4_18 = (
    (0x00, "flags"),
    (0x08, "mapping"),
    (0x10, "index"),
    (0x18, "_mapcount"),
    (0x1C, "_refcount"),
    (0x20, "lru.next / pgmap"),
    (0x28, "lru.prev"),
    (0x30, "private"),
    (0x38, "mem_cgroup"),
)


def field_at(offset: int, struct_page_size: int, series: tuple[int, int] | None = None) -> str | None:
    """The field's name, by the release where it is known; None for a structure that is not of 64 bytes.

    >>> field_at(0x34, 64, (6, 12)), field_at(0x08, 64, (4, 14)), field_at(0x08, 80)
    ('_refcount', 'mapping', None)
    """
    if struct_page_size != 64 or not 0 <= offset < struct_page_size:
        return None
    fields = _BEFORE_4_18 if series is not None and series < (4, 18) else _FIELDS
    return next(name for first, name in reversed(fields) if offset >= first)
