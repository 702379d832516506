"""The kernel's resource tree, which /proc/iomem prints (kernel/resource.c, include/linux/ioport.h)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parsers.errors import FormatError
from parsers.iomem import Iomem
from parsers.vmcore.dump import Dump
from parsers.vmcore.memory import MissingMemoryError

__all__ = ["read_iomem"]

_MAX_RESOURCES = 1 << 20
_MAX_DEPTH = 64
_UNREAD = "?"
_MEMBERS = ("start", "end", "name", "sibling", "child", "parent")


def read_iomem(dump: Dump) -> Iomem:
    """``iomem_resource`` and all below it, in the order of /proc/iomem; ``line`` counts as that file would.

    Raises LookupError without symbols or types, FormatError for a damaged tree, MissingMemoryError
    where memory is missing at its root or reads as zeros; a branch of which this is true becomes a diagnostic.
    """
    root = dump.symbol("iomem_resource") or 0
    resource = _reader(dump, root)
    rows: list[tuple[int, int, int, int]] = []
    names: list[str] = []
    seen = {root, 0}
    pending = [(resource(root)[4], 0, -1)]
    lost = False
    while pending:
        address, depth, parent = pending.pop()
        if not address:
            continue
        if address in seen or len(rows) > _MAX_RESOURCES or depth > _MAX_DEPTH:
            raise FormatError(f"the resource tree is damaged at {address:#x}")
        seen.add(address)
        try:
            start, end, name, sibling, child, _ = resource(address)
        except MissingMemoryError as error:
            dump.say(f"resources are incomplete: {error.message}")
            lost = True
            continue
        if start > end:
            raise FormatError(f"a resource ends before it starts at {address:#x}")
        pending.append((sibling, depth, parent))
        pending.append((child, depth + 1, len(rows)))
        rows.append((start, end, depth, parent))
        names.append(_name(dump, name))
        if names[-1] == _UNREAD:
            dump.say(f"resources are incomplete: the name of the one at {address:#x} is not in the dump")
            lost = True
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.empty(0)] * 4
    start_column = np.array([row[0] for row in rows], dtype=np.uint64)
    last_column = np.array([row[1] for row in rows], dtype=np.uint64)
    return Iomem(
        path=dump.path,
        start=start_column,
        last=last_column,
        name=tuple(names),
        depth=columns[2].astype(np.int64),
        parent=columns[3].astype(np.int64),
        line=np.arange(1, len(rows) + 1, dtype=np.uint32),
        privileged=bool(last_column.any()),
        cut_short=lost,
    )


def _reader(dump: Dump, root: int) -> Callable[[int], list[int]]:
    """A function that reads `_MEMBERS` of the resource at an address; LookupError without symbols or types.

    It raises MissingMemoryError where memory is missing, or reads as zeros: the root of the tree ends at -1
    (kernel/resource.c), every other resource in it has a parent (__request_resource()).
    """
    offsets = [dump.offset("resource", member) for member in _MEMBERS]
    size = dump.size("resource")
    if not root or size is None or None in offsets:
        raise LookupError("iomem_resource needs symbols, and BTF or a vmlinux")

    def resource(address: int) -> list[int]:
        record = dump.read(address, size)
        values = [int.from_bytes(record[at : at + 8], "little") for at in offsets if at is not None]
        if not values[1 if address == root else -1]:
            raise MissingMemoryError(f"the resource at {address:#x} reads as zeros", address=address)
        return values

    return resource


def _name(dump: Dump, address: int) -> str:
    try:
        return dump.string(address).decode("utf-8", "replace") if address else "<BAD>"
    except MissingMemoryError:
        return _UNREAD
