"""Opening a dump: ELF vmcores and kdumps, inside compressed containers or not, and what is refused and why.

ELF cores are read here, kdumps by :mod:`parsers.vmcore.kdump`.  A dump that cannot be opened is an error: nothing falls
back to the running kernel.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from parsers.errors import ArchitectureError, Diagnostic, FormatError, InputError, WrongFormatError
from parsers.mapping import U8
from parsers.records import dataclass
from parsers.vmcore import kdump
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.container import open_plain
from parsers.vmcore.fitting import why_not_of
from parsers.vmcore.kcore import KcoreMemory, image_segments, is_kcore, kcore_segments
from parsers.vmcore.memory import UNIT, ElfMemory, PhysicalMemory, Segment
from parsers.vmcore.regular import NOTE_NAME, RegularMemory
from parsers.vmcoreinfo import VmcoreInfo, parse_vmcoreinfo

if TYPE_CHECKING:
    from elftools.construct.lib.container import Container

__all__ = ["RawDump", "is_split", "open_dump", "vmcoreinfo_note"]

_ELF_MAGIC = b"\x7fELF"
_ELF_64_LITTLE_ENDIAN = b"\2\1"
_ARM64_NAMES = {"aarch64", "aarch64_be", "arm64"}
_HYPERVISOR_NAMES = {"", "Unknown"}
_SCAN_LIMIT = 4 << 30  # bytes of memory searched for a VMCOREINFO that the dump's notes lack
_MAX_STRANGERS = 64
"""VMCOREINFOs of other kernels that are passed over."""
_FIRST_KEY: U8 = np.frombuffer(b"OSRELEASE=", dtype=np.uint8)
_NOTE_NAME = b"VMCOREINFO\0"
_NOTE_HEADER = struct.Struct("<III")
_MAX_NOTES = 16 << 20  # bytes of all notes together; a CPU's registers are 400
_MAX_OFFSET = 1 << 62  # with any length added, still an offset
_PT_LOAD, _PT_NOTE = 1, 4
_PROGRAM_HEADER = np.dtype(
    [(name, "<u4") for name in ("type", "flags")]
    + [(name, "<u8") for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")]
)
_MAX_PROGRAM_HEADERS = 1 << 18  # small cores have one for every run of pages


@dataclass(frozen=True, slots=True)
class RawDump:
    """An opened dump: its memory and its VMCOREINFO, nothing interpreted yet."""

    path: str
    kind: str
    """``elf``, ``kdump`` or ``kcore``."""
    memory: PhysicalMemory
    vmcoreinfo: VmcoreInfo
    vmcoreinfo_bytes: bytes
    diagnostics: tuple[Diagnostic, ...] = ()


def is_split(path: Path) -> bool:
    """Whether this is one file of a split kdump; InputError where it cannot be read."""
    with open_plain(path) as stream:
        magic = os.pread(stream.fileno(), 16, 0)
        if not magic.startswith(kdump.MAGICS) and magic != kdump.FLAT_MAGIC:
            return False
        return kdump.read_header(stream, str(path)).split


def open_dump(path: Path | Sequence[Path], *, vmcoreinfo: Path | None = None, name: str | None = None) -> RawDump:
    """Open the dump at ``path`` (several paths: the files of a split kdump).

    ``vmcoreinfo`` names a text to use instead of the dump's own VMCOREINFO; ``name`` is what a dump is called that lies
    in an archive.

    Raises WrongFormatError for dumps of other machines, FormatError for damaged ones, InputError for what is
    not a dump or lacks VMCOREINFO.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    streams = [open_plain(item) for item in paths]
    names = [str(item) for item in paths] if name is None else [name]
    given = b""
    if vmcoreinfo is not None:
        with open_plain(vmcoreinfo) as text:
            given = text.read(1 << 20)
    try:
        magic = os.pread(streams[0].fileno(), 16, 0)
        if magic.startswith(_ELF_MAGIC):
            _refuse_several(names)
            memory, info, diagnostics = _open_elf(streams[0], names[0], given)
            kind = "kcore" if isinstance(memory, KcoreMemory) else "elf"
        elif magic.startswith(kdump.MAGICS) or magic == kdump.FLAT_MAGIC:
            kind, memory, info, diagnostics = "kdump", *_open_kdump(streams, names)
        else:
            raise InputError("not a crash dump: neither an ELF core nor a kdump", path=names[0])
    finally:
        for stream in streams:
            stream.close()
    source = names[0]
    if vmcoreinfo is not None:
        source, info = str(vmcoreinfo), given
    elif not info:
        info = _search(memory, source)
        if info:
            diagnostics = (*diagnostics, Diagnostic("VMCOREINFO is not in the notes; found it in memory", source))
    if not info:
        raise InputError("the dump has no VMCOREINFO; give its text with --vmcoreinfo", path=source)
    return RawDump(names[0], kind, memory, parse_vmcoreinfo(info, source), info, diagnostics)


_Opened = tuple[PhysicalMemory, bytes, tuple[Diagnostic, ...]]


def _open_elf(stream: BinaryIO, path: str, given: bytes) -> _Opened:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  # heavy

    if os.pread(stream.fileno(), 2, len(_ELF_MAGIC)) != _ELF_64_LITTLE_ENDIAN:
        raise WrongFormatError("a 32-bit or big-endian ELF file: not supported", path=path)
    try:
        elf: Any = ELFFile(stream)
        _check_elf(elf.header, path)
        entry_size, count, table = elf.header.e_phentsize, elf.num_segments(), elf.header.e_phoff
    except InputError:
        raise
    except Exception as error:  # pyelftools raises whatever its own parsing trips over
        raise FormatError(f"damaged ELF core: {error or type(error).__name__}", path=path) from error
    if count and (entry_size != _PROGRAM_HEADER.itemsize or count > _MAX_PROGRAM_HEADERS):
        raise FormatError(f"an ELF core with {count} program headers of {entry_size} bytes", path=path)
    headers = np.frombuffer(_read_at(stream, table, count * entry_size, path), dtype=_PROGRAM_HEADER)
    loads = headers[(headers["type"] == _PT_LOAD) & (headers["filesz"] > 0)]
    if not loads.size:
        raise FormatError("the ELF core holds no memory", path=path)
    at_notes = headers[headers["type"] == _PT_NOTE]
    info = given or _find_note(stream, at_notes, _NOTE_NAME).rstrip(b"\0")
    if is_kcore(loads):
        return _open_kcore(stream, path, loads, info)
    if loads.size > 1 and not loads["paddr"].any():
        raise FormatError("the ELF core gives no physical addresses", path=path)
    diagnostics: list[Diagnostic] = []
    size = os.fstat(stream.fileno()).st_size
    loaded = [tuple(row) for row in loads[["paddr", "offset", "filesz"]].tolist()]
    segments = [Segment(pa, at, max(min(length, size - at), 0)) for pa, at, length in loaded if pa < 1 << 52]
    missing = sum(length for _, _, length in loaded) - sum(segment.size for segment in segments)
    if missing:
        diagnostics.append(Diagnostic(f"the dump is truncated: {missing} bytes of memory are missing, unknown", path))
    if not any(segment.size for segment in segments):
        raise FormatError("truncated before the first byte of memory", path=path)
    memory: PhysicalMemory = ElfMemory(stream.fileno(), [segment for segment in segments if segment.size], path)
    regular = _find_note(stream, at_notes, NOTE_NAME)
    return RegularMemory(memory, regular, path) if regular else memory, info, tuple(diagnostics)


def _open_kcore(stream: BinaryIO, path: str, loads: NDArray[np.void], info: bytes) -> _Opened:
    addresses = AddressMap.from_vmcoreinfo(parse_vmcoreinfo(info, path)) if info else None
    memory = KcoreMemory(stream.fileno(), kcore_segments(loads, addresses, path), image_segments(loads, addresses))
    if addresses is not None:
        memory.image = addresses.image_known
    return memory, info, ()


def _read_at(stream: BinaryIO, offset: int, size: int, path: str) -> bytes:
    data = os.pread(stream.fileno(), size, offset) if offset < _MAX_OFFSET else b""
    if len(data) < size:
        raise FormatError("truncated in the program headers", path=path, offset=offset)
    return data


def _find_note(stream: BinaryIO, headers: NDArray[np.void], wanted: bytes) -> bytes:
    """Content of the note of that name in the first PT_NOTE that has one; empty if none has."""
    left = _MAX_NOTES
    for offset, size in headers[["offset", "filesz"]].tolist():
        notes = os.pread(stream.fileno(), min(size, left), offset) if offset < _MAX_OFFSET else b""
        left -= len(notes)
        content = note_content(notes, wanted)
        if content:
            return content
    return b""


def _check_elf(header: Container, path: str) -> None:
    machine = header.e_machine
    if machine != "EM_AARCH64":
        raise ArchitectureError(f"an ELF file for {machine}, not for arm64", path=path)
    if header.e_type != "ET_CORE":
        raise WrongFormatError(
            f"an arm64 ELF file of type {header.e_type}, not a core; a vmlinux goes with --vmlinux", path=path
        )


def vmcoreinfo_note(notes: bytes) -> bytes:
    """The text of the VMCOREINFO note among ELF notes; empty if there is none."""
    return note_content(notes, _NOTE_NAME).rstrip(b"\0")


def note_content(notes: bytes, wanted: bytes) -> bytes:
    """Content of the first note of that name among ELF notes; empty if there is none."""
    position = 0
    while position + 12 <= len(notes):
        name_size, size, _ = _NOTE_HEADER.unpack_from(notes, position)
        body = position + 12 + -(-name_size // 4) * 4
        if notes[position + 12 : position + 12 + name_size] == wanted:
            return notes[body : body + size]
        position = body + -(-size // 4) * 4
    return b""


def _search(memory: PhysicalMemory, path: str) -> bytes:
    """VMCOREINFO's own page, found by its first key; empty if not found.

    An earlier kernel, a crash kernel or a guest may have left other ones: the first that fits this memory counts, or
    else the first of which it is not known.  InputError where none of those found fits.
    """
    doubtful, strange = b"", 0
    for text in _infos(memory):
        why = why_not_of(memory, parse_vmcoreinfo(text, path))
        if why == "":
            return text
        strange += why is None or bool(why)
        doubtful = doubtful or (text if why is None else b"")
        if strange >= _MAX_STRANGERS:
            break
    if strange and not doubtful:
        message = f"VMCOREINFO is not in the notes, and {strange} found in memory are of other boots or other kernels"
        raise InputError(f"{message}; give its text with --vmcoreinfo", path=path)
    return doubtful


def _infos(memory: PhysicalMemory) -> Iterator[bytes]:
    """Texts of VMCOREINFO in memory (kernel/vmcore_info.c puts OSRELEASE first)."""
    starts, ends = memory.extents
    left = _SCAN_LIMIT // UNIT
    for start, end in zip((starts // np.uint64(UNIT)).tolist(), (ends // np.uint64(UNIT)).tolist(), strict=True):
        for first in range(start, min(end, start + left), 4096):
            units = np.arange(first, min(first + 4096, end), dtype=np.uint64)
            data, _ = memory.read_units(units)
            starts_so = (data[:, : _FIRST_KEY.size] == _FIRST_KEY).all(axis=1)
            texts = (bytes(data[row]).split(b"\0", 1)[0] for row in np.flatnonzero(starts_so).tolist())
            yield from (text for text in texts if b"\nPAGESIZE=" in text)
        left -= min(end - start, left)


def _open_kdump(streams: Sequence[BinaryIO], paths: Sequence[str]) -> _Opened:
    headers = [kdump.read_header(stream, path) for stream, path in zip(streams, paths, strict=True)]
    machine = headers[0].machine
    if machine not in _ARM64_NAMES | _HYPERVISOR_NAMES:
        raise ArchitectureError(f"a kdump of a machine {machine!r}, not of arm64", path=paths[0])
    if headers[0].split and len(paths) == 1:
        raise InputError("one file of a split kdump: give all of them", path=paths[0])
    if not all(header.split for header in headers):
        _refuse_several(paths)
    diagnostics = tuple(item for header in headers for item in header.diagnostics)
    return kdump.KdumpMemory(headers, paths), _kdump_info(headers[0]), diagnostics


def _refuse_several(paths: Sequence[str]) -> None:
    if len(paths) > 1:
        raise InputError("a separate dump, not one file of a split kdump: give it alone", path=paths[0])


def _kdump_info(header: kdump.Header) -> bytes:
    def part(where: tuple[int, int]) -> bytes:
        return header.reader(where[0], min(where[1], 16 << 20)) if where[0] and where[1] else b""

    return part(header.vmcoreinfo).rstrip(b"\0") or vmcoreinfo_note(part(header.notes))
