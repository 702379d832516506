"""Memory blocks as ``struct memory_block`` has them, with altmap and group.

drivers/base/memory.c (4.14 to 6.19): since 4fb6eabf1037 (5.8) the blocks are in the XArray ``memory_blocks``, before
that on the klist of the bus ``memory_subsys``.  Where no symbol names either (CONFIG_KALLSYMS_ALL=n) the directories of
sysfs lead to them.  ``state`` was an unsigned long of bit values and is an enum since 6.19 (and in stable); the
memmap_on_memory pages were ``nr_vmemmap_pages`` (5.13) and are ``altmap->free`` since 6.6.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from parsers.errors import FormatError
from parsers.mapping import U64, Bool
from parsers.vmcore.addresses import MASK
from parsers.vmcore.dump import Dump
from parsers.vmcore.kernfs import kobjects_in
from parsers.vmcore.memory import MissingMemoryError
from parsers.vmcore.rows import BlockRows
from parsers.vmcore.xarray import xarray_entries

__all__ = ["read_blocks"]

_MAX_BLOCKS = 1 << 20
_STATE_NAMES = {
    "MEM_ONLINE": "online",
    "MEM_GOING_OFFLINE": "going-offline",
    "MEM_OFFLINE": "offline",
    "MEM_GOING_ONLINE": "going-online",
    "MEM_CANCEL_ONLINE": "cancel-online",
    "MEM_CANCEL_OFFLINE": "cancel-offline",
    "MEM_PREPARE_ONLINE": "prepare-online",
    "MEM_FINISH_OFFLINE": "finish-offline",
}
# The macros of include/linux/memory.h before the enum.
_STATE_BITS = {
    1 << 0: "online",
    1 << 1: "going-offline",
    1 << 2: "offline",
    1 << 3: "going-online",
    1 << 4: "cancel-online",
    1 << 5: "cancel-offline",
    1 << 6: "prepare-online",
    1 << 7: "finish-offline",
}


def read_blocks(dump: Dump) -> BlockRows:
    """Read all memory blocks; LookupError where symbols or types are missing, MissingMemoryError where memory is."""
    if not dump.has_types:
        raise LookupError("memory blocks need BTF or a vmlinux")
    pointers = _pointers(dump)
    section, known = _field(dump, pointers, "memory_block", "start_section_nr")
    if not known.all():
        lost = int((~known).sum())
        raise MissingMemoryError(f"{lost} of {known.size} memory blocks are not in the dump, or read as zeros")
    order = np.argsort(section, kind="stable")
    pointers, section = pointers[order], section[order]
    state, state_known = _field(dump, pointers, "memory_block", "state")
    nid, nid_known = _field(dump, pointers, "memory_block", "nid")
    zone, _ = _field(dump, pointers, "memory_block", "zone")
    group, _ = _field(dump, pointers, "memory_block", "group")
    altmap, _ = _field(dump, pointers, "memory_block", "altmap")
    nr_vmemmap, _ = _field(dump, pointers, "memory_block", "nr_vmemmap_pages")
    free, _ = _field(dump, altmap, "vmem_altmap", "free")
    base, _ = _field(dump, altmap, "vmem_altmap", "base_pfn")
    return BlockRows(
        start_section_nr=section,
        state=_states(dump, state, state_known),
        nid=np.where(nid_known, nid.astype(np.uint32).view(np.int32), -1).astype(np.int64),
        zone=_zone_names(dump, zone),
        has_altmap=(altmap != 0) | (nr_vmemmap != 0),
        altmap_base_pfn=base,
        nr_vmemmap_pages=free + nr_vmemmap,
        group=group,
        address=pointers,
        sections_per_block=_sections_per_block(dump),
    )


def _pointers(dump: Dump) -> U64:
    """Addresses of all ``struct memory_block``."""
    blocks = dump.symbol("memory_blocks")
    if blocks is None and dump.symbol("memory_subsys") is not None:
        return _on_the_bus(dump)
    if blocks is None:
        objects = kobjects_in(dump, "devices", "system", "memory")
        return objects - np.uint64(dump.member("memory_block", "dev.kobj").offset)
    head = dump.field(blocks, "xarray", "xa_head")
    _, pointers, lost = xarray_entries(dump, head)
    if lost:
        raise MissingMemoryError(f"{lost} words of the list of memory blocks are not in the dump, or read as zeros")
    if pointers.size > _MAX_BLOCKS:
        raise FormatError(f"{pointers.size} memory blocks")
    return pointers


def _on_the_bus(dump: Dump) -> U64:
    """The devices of the bus ``memory_subsys``, which are a list; it may be damaged and closed."""
    private = dump.field(dump.global_at("memory_subsys"), "bus_type", "p")
    head = private + dump.member("subsys_private", "klist_devices.k_list").offset
    device = dump.member("device_private", "device").offset
    node = dump.member("device_private", "knode_bus.n_node").offset
    within = dump.member("memory_block", "dev").offset
    seen: dict[int, None] = {}
    at = dump.field(head, "list_head", "next")
    while at != head:
        block = dump.number(at - node + device & MASK, 8) - within & MASK
        if block in seen or len(seen) >= _MAX_BLOCKS:
            dump.say("the list of memory blocks is damaged and read in part")
            break
        seen[block] = None
        at = dump.field(at, "list_head", "next")
    return np.fromiter(seen, dtype=np.uint64)


def _field(dump: Dump, structures: U64, type_name: str, member: str) -> tuple[U64, Bool]:
    """A member of up to 8 bytes of each structure; 0 and False where there is no such member or no structure."""
    values, known = np.zeros(structures.size, dtype=np.uint64), np.zeros(structures.size, dtype=np.bool_)
    at, size = dump.offset(type_name, member), dump.member_size(type_name, member)
    rows = np.flatnonzero(structures)
    if at is None or size is None or not rows.size:
        return values, known
    address = structures[rows] + np.uint64(at)
    shift = address % np.uint64(8)
    words, got = dump.read_words(address - shift, in_use=True)
    values[rows] = (words >> (shift * np.uint64(8))) & np.uint64((1 << (8 * size)) - 1)
    known[rows] = got & (shift + np.uint64(size) <= 8)
    return values, known


def _states(dump: Dump, state: U64, known: Bool) -> tuple[str, ...]:
    names = dict(_STATE_BITS)
    if dump.enumerator("MEM_ONLINE") is not None:
        values = {dump.enumerator(name): word for name, word in _STATE_NAMES.items()}
        names = {value: word for value, word in values.items() if value is not None}
    return tuple(
        names.get(value, f"unknown ({value:#x})") if sure else "unknown"
        for value, sure in zip(state.tolist(), known.tolist(), strict=True)
    )


def _zone_names(dump: Dump, zones: U64) -> tuple[str, ...]:
    """Name of each ``struct zone *``; there are few different ones."""
    distinct, where = np.unique(zones, return_inverse=True)
    names = [""] * distinct.size
    for number, address in enumerate(distinct.tolist()):
        if address:
            names[number] = dump.attempt("zone name", partial(_zone_name, dump, address)) or ""
    return tuple(names[index] for index in where.tolist())


def _zone_name(dump: Dump, address: int) -> str:
    return dump.string(dump.field(address, "zone", "name")).decode("ascii", "replace")


def _sections_per_block(dump: Dump) -> int:
    value = dump.attempt("sections_per_block", lambda: dump.number(dump.global_at("sections_per_block"), 8))
    return value if value and value < 1 << 32 else 1
