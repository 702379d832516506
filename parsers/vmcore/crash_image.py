"""The list of memory of the crash kernel that is loaded: its elfcorehdr (kernel/kexec_core.c, kernel/crash_core.c).

``kexec -p`` puts an ELF header into the memory of the crash kernel, as one of the segments of the image.  Its PT_LOAD
headers are what the crash kernel takes for memory; arm64 does not write them again after hotplug.
"""

from __future__ import annotations

import numpy as np

from parsers.mapping import I64
from parsers.vmcore.dump import Dump
from parsers.vmcore.memory import MissingMemoryError
from parsers.vmcore.rows import CrashKernelMemory

__all__ = ["read_crash_image"]

_MAX_SEGMENTS = 16
"""KEXEC_SEGMENT_MAX (include/linux/kexec.h)."""
_HEADER = np.dtype(
    [
        *(("magic", "S4"), ("class", "u1"), ("data", "u1"), ("ident", "V10"), ("type", "<u2"), ("machine", "<u2")),
        *(("version", "<u4"), ("entry", "<u8"), ("phoff", "<u8"), ("shoff", "<u8"), ("flags", "<u4")),
        *(("ehsize", "<u2"), ("phentsize", "<u2"), ("phnum", "<u2"), ("sections", "V6")),
    ]
)
_PROGRAM = np.dtype(
    [
        *(("type", "<u4"), ("flags", "<u4"), ("offset", "<u8"), ("vaddr", "<u8"), ("paddr", "<u8")),
        *(("filesz", "<u8"), ("memsz", "<u8"), ("align", "<u8")),
    ]
)
_CORE, _AARCH64, _LOAD = 4, 183, 1
_NOTHING = np.empty(0, dtype=np.int64)
_TOP = 1 << 52
"""Physical addresses of arm64 are below it."""


def read_crash_image(dump: Dump) -> CrashKernelMemory | None:
    """What the loaded crash kernel takes for memory; None where the dump does not say whether one is loaded.

    Before 6.4 the kernel unmaps the segments once they are loaded, and /proc/kcore reads them as zeros
    (arch_kexec_protect_crashkres() of arch/arm64/kernel/machine_kexec.c); a hypervisor's dump has them.
    """
    pointer = dump.symbol("kexec_crash_image")
    if pointer is None or not dump.has_types:
        return None
    try:
        image = dump.number(pointer, 8)
    except MissingMemoryError:
        return None  # cores that were distilled without it, and filtered dumps
    if not image:
        return CrashKernelMemory(loaded=False, start_pfn=_NOTHING, end_pfn=_NOTHING)
    try:
        start, end = _listed(dump, image)
    except (MissingMemoryError, LookupError) as error:
        why = error.message if isinstance(error, MissingMemoryError) else str(error.args[0])
        return CrashKernelMemory(loaded=True, start_pfn=_NOTHING, end_pfn=_NOTHING, unread=why)
    return CrashKernelMemory(loaded=True, start_pfn=start, end_pfn=end)


def _listed(dump: Dump, image: int) -> tuple[I64, I64]:
    """First PFNs of the PT_LOAD headers and the ones after the last."""
    size = dump.size("kexec_segment")
    if not size:
        raise LookupError("struct kexec_segment is not known")
    at, length = (dump.member("kexec_segment", name).offset for name in ("mem", "memsz"))
    count = min(dump.field(image, "kimage", "nr_segments"), _MAX_SEGMENTS)
    rows = dump.read(image + dump.member("kimage", "segment").offset, count * size)
    for row in range(count):
        pa, room = (int.from_bytes(rows[row * size + place :][:8], "little") for place in (at, length))
        if _is_elf_core(dump, pa):
            return _loads(dump, pa, room)
    raise LookupError(f"none of its {count} segments can be read as an ELF header")


def _is_elf_core(dump: Dump, pa: int) -> bool:
    """Whether a segment begins with the header of an ELF core; the other segments are not recorded."""
    try:
        data = dump.memory.unrecorded.read(pa, _HEADER.itemsize)
    except MissingMemoryError:
        return False
    head = np.frombuffer(data, dtype=_HEADER)[0]
    said = (head["magic"], int(head["class"]), int(head["type"]), int(head["machine"]), int(head["phentsize"]))
    return said == (b"\x7fELF", 2, _CORE, _AARCH64, _PROGRAM.itemsize)


def _loads(dump: Dump, pa: int, room: int) -> tuple[I64, I64]:
    head = np.frombuffer(dump.memory.read(pa, _HEADER.itemsize), dtype=_HEADER)[0]
    offset, size = int(head["phoff"]), int(head["phnum"]) * _PROGRAM.itemsize
    if not _HEADER.itemsize <= offset <= room - size:
        raise LookupError(f"the ELF header at {pa:#x} does not fit into its segment of {room:#x} bytes")
    rows = np.frombuffer(dump.memory.read(pa + offset, size), dtype=_PROGRAM)
    if (rows["type"] == 0).any():
        raise LookupError(f"the ELF header at {pa:#x} is not whole")
    rows = rows[(rows["type"] == _LOAD) & (rows["memsz"] != 0)]
    start, memsz = rows["paddr"], rows["memsz"]
    if not rows.size or (start >= _TOP).any() or (memsz > np.uint64(_TOP) - start).any():
        raise LookupError(f"the ELF header at {pa:#x} lists no memory, or some that cannot be")
    shift = np.uint64(dump.addresses.granule.page_size.bit_length() - 1)
    page = np.uint64(dump.addresses.granule.page_size - 1)
    first, after = (start >> shift).astype(np.int64), ((start + memsz + page) >> shift).astype(np.int64)
    order = np.argsort(first, kind="stable")
    return first[order], after[order]
