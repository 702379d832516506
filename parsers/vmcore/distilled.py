"""Small cores: an ELF core that holds only the physical pages that an extraction read.

Page tables, section and block metadata, symbols and BTF of a terabyte's dump are a few megabytes, and hold no user
memory; the log is in only if it was read.  The same extraction on the small core gives the same facts: what
was missing in the original is missing here too.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from parsers.errors import InputError
from parsers.expressions import expression
from parsers.mapping import U64
from parsers.progress import step
from parsers.vmcore.memory import UNIT, PhysicalMemory, page_runs
from parsers.vmcore.regular import NOTE_NAME, find_regular, pack_regular

__all__ = ["write_core"]

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NHDR = struct.Struct("<III")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_ET_CORE, _EM_AARCH64, _PT_LOAD, _PT_NOTE, _PN_XNUM = 4, 183, 1, 4, 0xFFFF
_CHUNK = 4096
_PAGE_SIZE = expression(rb"^PAGESIZE=(4096|16384|65536)$", re.MULTILINE)
_MANY_REGULAR = 1 << 10  # below 4 MiB a core stays one that any tool reads


def write_core(path: Path, memory: PhysicalMemory, units: U64, vmcoreinfo: bytes, *, changing: bool = False) -> int:
    """Write ``units`` (sorted page frames of 4096 bytes) of ``memory`` and the VMCOREINFO to ``path``; returns bytes.

    The file appears whole or not at all.  Pages that are no longer there are left out of memory that is ``changing``.
    Raises InputError when it cannot be written.
    """
    stated = _PAGE_SIZE.search(vmcoreinfo)
    units, regular = _sorted_out(memory, units, int(stated[1]) if stated else None, changing=changing)
    first, count = page_runs(units)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(_headers(first, count, vmcoreinfo, regular))
            with step(f"writing {path}", units.size * UNIT) as progress:
                for number in range(0, units.size, _CHUNK):
                    data, present = memory.read_units(units[number : number + _CHUNK])
                    if not present.all() and not changing:
                        raise InputError("the dump changed while it was read", path=str(path))
                    stream.write(data.tobytes())
                    progress.advance(data.size)
            size = stream.tell()
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", path=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _sorted_out(memory: PhysicalMemory, units: U64, page_size: int | None, *, changing: bool) -> tuple[U64, bytes]:
    """The page frames that are written as they are, and the note that holds the others (empty for none)."""
    kept, taken, words = [units[:0]], [units[:0]], [units[:0]]
    for at in range(0, units.size, _CHUNK):
        some = units[at : at + _CHUNK]
        data, present = memory.read_units(some)
        regular = np.zeros(some.size, dtype=np.bool_) if page_size is None else find_regular(data, page_size) & present
        kept.append(some[~regular & (present | (not changing))])
        taken.append(some[regular])
        words.append(data.view("<u8")[regular, 0].astype(np.uint64))
    found = np.concatenate(taken)
    if page_size is None or found.size < _MANY_REGULAR:
        return np.sort(np.concatenate((*kept, found))), b""
    return np.concatenate(kept), pack_regular(found, np.concatenate(words), page_size)


def _note(name: bytes, content: bytes) -> bytes:
    return _NHDR.pack(len(name), len(content), 0) + name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)


def _headers(first: U64, count: U64, vmcoreinfo: bytes, regular: bytes) -> bytes:
    """ELF header, program headers and the notes, padded so that pages start at a multiple of their size."""
    note = _note(b"VMCOREINFO\0", vmcoreinfo) + (_note(NOTE_NAME, regular) if regular else b"")
    nr_headers = 1 + first.size
    many = nr_headers >= _PN_XNUM  # then the true number is in the first section header
    notes_at = _EHDR.size + nr_headers * _PHDR.size
    sections_at = notes_at + len(note)
    pages_at = -(-(sections_at + _SHDR.size) // UNIT) * UNIT
    header = _EHDR.pack(
        *(_IDENT, _ET_CORE, _EM_AARCH64, 1, 0, _EHDR.size, sections_at if many else 0, 0, _EHDR.size, _PHDR.size),
        *(min(nr_headers, _PN_XNUM), _SHDR.size, 1 if many else 0, 0),
    )
    section = _SHDR.pack(0, 0, 0, 0, 0, 0, 0, nr_headers if many else 0, 0, 0)
    loads = b"".join(_loads(first, count, pages_at))
    return (header + _PHDR.pack(_PT_NOTE, 0, notes_at, 0, 0, len(note), len(note), 4) + loads + note + section).ljust(
        pages_at, b"\0"
    )


def _loads(first: U64, count: U64, offset: int) -> Iterator[bytes]:
    sizes = count * np.uint64(UNIT)
    offsets = np.uint64(offset) + np.cumsum(sizes) - sizes
    for pa, at, size in zip((first * np.uint64(UNIT)).tolist(), offsets.tolist(), sizes.tolist(), strict=True):
        yield _PHDR.pack(_PT_LOAD, 4, at, 0, pa, size, size, UNIT)
