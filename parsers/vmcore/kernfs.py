"""The kernel's own tree of sysfs directories (fs/kernfs/dir.c, include/linux/kernfs.h, 4.14 to 7.3).

It leads from an exported object to those that no symbol names.  The children of a directory are a red-black tree, read
level by level with array operations.
"""

from __future__ import annotations

import numpy as np

from parsers.errors import FormatError
from parsers.mapping import U64
from parsers.vmcore.addresses import MASK
from parsers.vmcore.dump import Dump
from parsers.vmcore.memory import MissingMemoryError

__all__ = ["kobjects_in"]

_MAX_CHILDREN = 1 << 21
_MAX_DEPTH = 128  # of a red-black tree: twice the logarithm of its size
_DIRECTORY = 1  # KERNFS_DIR
_TYPE = 0xF  # KERNFS_TYPE_MASK


def kobjects_in(dump: Dump, *names: str) -> U64:
    """Addresses of the ``struct kobject`` of all directories in a directory of sysfs, ``names`` from its root.

    Groups of attributes are directories, too, and belong to the object that they describe: they are left out.
    Raises LookupError where symbols or types are missing or there is no such directory, MissingMemoryError where memory
    is, FormatError for a damaged tree.
    """
    sysfs_kernel = dump.number(dump.global_at("kernel_kobj"), 8)  # /sys/kernel
    directory = dump.field(dump.field(sysfs_kernel, "kobject", "sd"), "kernfs_node", _parent(dump))
    for name in names:
        directory = _named(dump, _children(dump, directory), name)
    inside = _children(dump, directory)
    kind = _column(dump, inside, "flags") & np.uint64(_TYPE)
    objects = _column(dump, inside[kind == _DIRECTORY], "priv")
    own = dump.field(directory, "kernfs_node", "priv")
    return np.asarray(objects[objects != np.uint64(own)], dtype=np.uint64)


def _parent(dump: Dump) -> str:
    """The member that points to the directory of a node (``__parent`` since 633488947ef6, 6.15)."""
    return "parent" if dump.offset("kernfs_node", "parent") is not None else "__parent"


def _named(dump: Dump, nodes: U64, wanted: str) -> int:
    for node, name in zip(nodes.tolist(), _column(dump, nodes, "name").tolist(), strict=True):
        if dump.string(name) == wanted.encode():
            return int(node)
    raise LookupError(f"no directory {wanted} in sysfs")


def _children(dump: Dump, directory: int) -> U64:
    """Addresses of the nodes in a directory."""
    member = dump.member("kernfs_node", "rb").offset
    sides = [np.uint64(dump.member("rb_node", side).offset) for side in ("rb_left", "rb_right")]
    level = np.array([dump.field(directory, "kernfs_node", "dir.children.rb_node")], dtype=np.uint64)
    found, size = [], 0
    for _ in range(_MAX_DEPTH):
        level = level[level != 0]
        size += level.size
        if not level.size:
            break
        if size > _MAX_CHILDREN:
            raise FormatError("the directories of sysfs are damaged: too many entries")
        found.append(level)
        words, known = dump.read_words((level[:, None] + np.array(sides)[None, :]).ravel())
        if not known.all():
            raise MissingMemoryError(f"{int((~known).sum())} entries of a directory of sysfs are not in the dump")
        level = words
    else:
        raise FormatError("the directories of sysfs are damaged: a tree without end")
    return np.concatenate(found) - np.uint64(member) if found else level


def _column(dump: Dump, nodes: U64, name: str) -> U64:
    """A member of up to 8 bytes of each node."""
    found = dump.member("kernfs_node", name)
    if not found.size or found.size > 8:
        raise LookupError(f"struct kernfs_node: {name} is not an integer")
    address = nodes + np.uint64(found.offset & MASK)
    shift = address % np.uint64(8)
    words, known = dump.read_words(address - shift)
    if not known.all():
        raise MissingMemoryError(f"{int((~known).sum())} entries of a directory of sysfs are not in the dump")
    return (words >> (shift * np.uint64(8))) & np.uint64((1 << (8 * found.size)) - 1)
