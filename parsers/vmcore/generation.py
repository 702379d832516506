"""What adding, removing, onlining or offlining of memory changes for good, so that a way there and back shows.

Two equal readings do not prove that nothing happened between them: memory that is removed and added again may look as
it did.  Every one of these operations ends in an event for user space, which ``uevent_seqnum`` counts
(lib/kobject_uevent.c, 4.14 to 7.3); other devices have events, too, so where it changed, more is looked at:

- A block that is added again has another directory in sysfs, and their numbers are not used twice
  (``kernfs_node.id``, fs/kernfs/dir.c).
- When a block goes on- or offline, ``kcore_need_update`` says until the next open of /proc/kcore that its list of RAM
  is old (fs/proc/kcore.c); before 5.15 it counts up ``span_seqlock`` of its zone (27cacaad16c5 took that away).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from parsers.mapping import I64, U64, Bool
from parsers.records import dataclass
from parsers.vmcore.addresses import MASK
from parsers.vmcore.blocks import read_blocks
from parsers.vmcore.dump import UNREADABLE, Dump
from parsers.vmcore.memory import MissingMemoryError
from parsers.vmcore.rows import BlockRows, SectionRows
from parsers.vmcore.zones import node_addresses

__all__ = ["Generation", "came_or_went", "changed_sections", "is_noisy", "is_quiet", "read_events", "read_generation"]

_DEVICE = "Device"
"""The zone of memory that drivers map, by its name (mm/page_alloc.c ``zone_names``)."""
_EVENTS = Path("/sys/kernel/uevent_seqnum")
_MAX_ZONES = 16


@dataclass(frozen=True, eq=False)
class Generation:
    """The memory blocks and the counters of the zones, at one time."""

    blocks: BlockRows | None
    """None where symbols or types are missing."""
    identity: U64
    """``kernfs_node.id`` of each block's directory; 0 where unknown."""
    zones: dict[tuple[int, str], int]
    """Sequence of ``span_seqlock`` by node and name of the zone, odd while it is written; empty where unknown."""
    is_list_old: bool
    """Whether memory went on- or offline since /proc/kcore was opened; False where it is not known."""
    events: int | None
    """``uevent_seqnum``; None where neither symbols nor sysfs show it."""


def read_generation(dump: Dump) -> Generation:
    """The generation of a running kernel's memory, read anew; parts that types or symbols do not show are unknown.

    What is read for it alone is not recorded: it says nothing in a small core.
    """
    dump.forget()
    blocks, identity, zones = None, np.zeros(0, dtype=np.uint64), {}
    with suppress(*UNREADABLE):
        blocks = read_blocks(dump)
        identity = _directories(dump, blocks.address)
    with suppress(*UNREADABLE):
        zones = _sequences(dump)
    return Generation(blocks, identity, zones, bool(_variable(dump, "kcore_need_update", 4)), read_events(dump))


def read_events(dump: Dump) -> int | None:
    """``uevent_seqnum``, as sysfs shows it where the kernel's own symbols lack it."""
    number = _variable(dump, "uevent_seqnum", 8)
    if number is None and os.path.realpath(dump.path) == "/proc/kcore":
        with suppress(OSError, ValueError):
            number = int(_EVENTS.read_text(encoding="ascii"))
    return number


def _variable(dump: Dump, name: str, size: int) -> int | None:
    """A variable of the kernel's image, not recorded; None where it is not known."""
    address = dump.symbol(name)
    if address is None:
        return None
    data = dump.peek(address, size)
    return int.from_bytes(data, "little") if len(data) == size else None


def _directories(dump: Dump, blocks: U64) -> U64:
    """``memory_block.dev.kobj.sd->id`` of each; 0 where it is not known."""
    to_directory, to_id = dump.offset("memory_block", "dev.kobj.sd"), dump.offset("kernfs_node", "id")
    if to_directory is None or to_id is None:
        return np.zeros(blocks.size, dtype=np.uint64)
    directory = _words(dump, blocks + np.uint64(to_directory))
    return np.where(directory != 0, _words(dump, directory + np.uint64(to_id)), np.uint64(0))


def _words(dump: Dump, va: U64) -> U64:
    """Words at addresses of the linear map, not recorded; 0 where they are not aligned, known or present."""
    pa, known = dump.addresses.physical(va)
    known &= pa % np.uint64(8) == 0
    words = np.zeros(va.size, dtype=np.uint64)
    if known.any():
        values, present = dump.memory.unrecorded.read_words(pa[known])
        words[known] = np.where(present, values, np.uint64(0))
    return words


def _sequences(dump: Dump) -> dict[tuple[int, str], int]:
    """The sequences of all zones, of empty ones too; LookupError where types do not show them."""
    inside, size = dump.member("pglist_data", "node_zones"), dump.size("zone")
    lock = dump.member("zone", "span_seqlock").offset  # begins with the sequence
    if not size:
        raise LookupError("struct zone")
    found = {}
    for node in node_addresses(dump):
        number = dump.field(node, "pglist_data", "node_id")
        for index in range(min(inside.count or 0, _MAX_ZONES)):
            zone = node + inside.offset + index * size & MASK
            try:
                name = dump.string(dump.field(zone, "zone", "name")).decode("ascii", "replace")
            except MissingMemoryError:
                continue  # a zone that was never set up has no name
            found[number, name] = dump.number(zone + lock & MASK, 4)
    return found


def is_quiet(before: Generation, after: Generation) -> bool:
    """Whether surely nothing was added, removed, onlined or offlined between the two."""
    return before.events is not None and before.events == after.events and not after.is_list_old


def is_noisy(before: Generation, after: Generation) -> bool:
    """Whether events say that something may have come or gone, be it memory or not."""
    return before.events is not None and not is_quiet(before, after)


def came_or_went(before: Generation, after: Generation) -> bool:
    """Whether any block or zone changed between the two."""
    if is_quiet(before, after):
        return False
    if _moved_zones(before, after) or after.is_list_old:
        return True
    mine, other = before.blocks, after.blocks
    if mine is None or other is None:
        return False
    columns = ((mine.start_section_nr, other.start_section_nr), (before.identity, after.identity))
    return mine.state != other.state or not all(np.array_equal(then, now) for then, now in columns)


def changed_sections(before: Generation, after: Generation, sections: SectionRows, *, is_steady: bool = False) -> I64:
    """Numbers of the sections, of those given and of blocks, whose memory may have come or gone between the two.

    ``is_steady`` where the sections, and all that maps them, were read again with no event meanwhile, and are equal:
    then events before that do not matter.

    Boot memory stays: arm64 refuses to take it offline.  An online block changes with its zone, where zones count, and
    else any block may when one did.  Memory that drivers map with ZONE_DEVICE has no blocks: any event may be its.
    """
    if is_quiet(before, after):
        return np.empty(0, dtype=np.int64)
    moved = _moved_zones(before, after)
    may_have = np.full(len(sections), bool(moved) or after.is_list_old)
    gone = np.empty(0, dtype=np.int64)
    if before.blocks is not None and len(before.blocks):
        changed, number = _changed_blocks(before.blocks, before, after, moved), sections.section_nr.astype(np.int64)
        first = before.blocks.start_section_nr.astype(np.int64)
        row = np.maximum(np.searchsorted(first, number, side="right") - 1, 0)
        held = (number >= first[row]) & (number < first[row] + before.blocks.sections_per_block)
        may_have = np.where(held, changed[row], may_have)
        of_blocks = first[changed][:, None] + np.arange(before.blocks.sections_per_block)
        gone = np.setdiff1d(of_blocks.ravel(), number)
    device = (not is_steady and before.events != after.events) or any(name == _DEVICE for _, name in moved)
    may_have = np.where(sections.device, device, may_have & ~sections.early)
    return np.union1d(sections.section_nr[may_have].astype(np.int64), gone)


def _moved_zones(before: Generation, after: Generation) -> set[tuple[int, str]]:
    """The zones whose span was written, or is."""
    if not before.zones or not after.zones:
        return set()
    both = before.zones.keys() | after.zones.keys()
    return {zone for zone in both if before.zones.get(zone) != after.zones.get(zone) or after.zones.get(zone, 0) & 1}


def _changed_blocks(mine: BlockRows, before: Generation, after: Generation, moved: set[tuple[int, str]]) -> Bool:
    """Which blocks of the first generation are not surely the same in the second."""
    other = after.blocks
    zones = zip(mine.state, mine.nid.tolist(), mine.zone, strict=True)
    changed = np.array([(node, zone) in moved if _is_in(state, zone) else bool(moved) for state, node, zone in zones])
    changed |= after.is_list_old
    if other is None:
        return changed
    if not len(other):
        return np.ones(len(mine), dtype=np.bool_)
    row = np.minimum(np.searchsorted(other.start_section_nr, mine.start_section_nr), len(other) - 1)
    changed |= other.start_section_nr[row] != mine.start_section_nr
    columns = ((mine.address, other.address), (mine.nid, other.nid), (before.identity, after.identity))
    for then, now in (*columns, (np.array(mine.state), np.array(other.state))):
        changed |= then != now[row]
    return changed


def _is_in(state: str, zone: str) -> bool:
    """Whether one zone, which is known, holds all pages of a block."""
    return state == "online" and bool(zone)
