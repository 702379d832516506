"""Which file of a directory is a crash dump: recognised by its first bytes, whatever its name and size.

Kernel cores are distinguished from other ELF files, which a copied host has many of: from vmlinux and modules by the
type, from the cores of processes by their addresses.  Of compressed files no more than the beginning is unpacked.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from analyzer.sources.found import head_of
from parsers.compressed import compression, first_bytes
from parsers.errors import InputError
from parsers.image.unpack import is_kernel

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_kdump", "is_kernel_dump", "is_vmcore"]

_PACKED_BYTES = 1 << 18
"""Enough for the first block of a zstd frame, which is at most 128 KiB."""
_HEAD_BYTES = 4096
_ELF = b"\x7fELF"
_KDUMPS = (b"KDUMP   ", b"DISKDUMP", b"makedumpfile")
_ARM64_CORE = struct.Struct("<16sHH")
_ET_CORE, _EM_AARCH64, _PT_LOAD = 4, 183, 1
_PROGRAM_HEADERS = struct.Struct("<32xQ14xHH")  # e_phoff, e_phentsize, e_phnum
_SEGMENT = struct.Struct("<II8xQQ")


def is_vmcore(head: bytes) -> bool:
    """Whether a file that is given by itself and starts with these bytes is a crash dump, perhaps a compressed one."""
    plain = first_bytes(head, 64)
    return plain.startswith((_ELF, *_KDUMPS)) and not is_kernel(plain)


def is_kdump(path: Path) -> bool:
    """Whether a file is a kdump, perhaps a compressed one."""
    return _unpacked_head(path).startswith(_KDUMPS)


def _unpacked_head(path: Path) -> bytes:
    """The first bytes of a file, unpacked; empty if they cannot be had."""
    try:
        head = head_of(path, _HEAD_BYTES)
        return first_bytes(head_of(path, _PACKED_BYTES), _HEAD_BYTES) if compression(head) else head
    except InputError:
        return b""


def is_kernel_dump(path: Path) -> bool:
    """Whether a file of a directory is a crash dump of a kernel; reads and unpacks its beginning only."""
    head = _unpacked_head(path)
    return head.startswith(_KDUMPS) or (head.startswith(_ELF) and _is_kernel_core(head))


def _is_kernel_core(head: bytes) -> bool:
    """A core of an arm64 machine with physical addresses, or addresses of the kernel's half, in its first segments."""
    try:
        _, kind, machine = _ARM64_CORE.unpack_from(head)
        table, size, count = _PROGRAM_HEADERS.unpack_from(head)
    except struct.error:
        return False
    if (kind, machine) != (_ET_CORE, _EM_AARCH64) or size < _SEGMENT.size:
        return False
    for place in range(table, min(table + size * count, len(head) - _SEGMENT.size + 1), size):
        type_, _, va, pa = _SEGMENT.unpack_from(head, place)
        if type_ == _PT_LOAD and (pa or va >> 63):
            return True
    return False
