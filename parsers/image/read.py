"""A kernel image as evidence: its release, its page size, and the code that shows which fixes it has.

The image is laid out flat: an Image as it is, an ELF file by its segments.  Its own kallsyms give the symbols; what
they count from is found by the branch at the image's start, which leads to ``primary_entry`` (head.S, 5.2 and later).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parsers.errors import FormatError, InputError
from parsers.expressions import expression
from parsers.image.code import KernelCode, read_code
from parsers.image.kallsyms_tables import find_kallsyms
from parsers.image.unpack import unpack
from parsers.vmcore.kallsyms import Kallsyms
from parsers.vmcore.memory import MissingMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from parsers.mapping import U8

__all__ = ["read_kernel"]

_MAX_FILE = 4 << 30
_MAX_FLAT = 1 << 30
_BANNER = expression(rb"Linux version (\d{1,3}\.\d{1,3}[^\s\0]{0,120}) \([^\0\n]{0,1000}")
_PAGE_SIZES = {1: 4096, 2: 16384, 3: 65536}
_PT_LOAD = 1
_PROGRAM_HEADER = np.dtype(
    [(name, "<u4") for name in ("type", "flags")]
    + [(name, "<u8") for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")]
)


def read_kernel(where: Path | bytes, *, path: str, progress: Callable[[int, int], None] | None = None) -> KernelCode:
    """Read an arm64 kernel: Image, compressed or EFI zboot image, vmlinux, .deb or .rpm.

    ``progress`` is called with (bytes done, bytes in all).  Raises FormatError for what is damaged, is not an arm64
    kernel, or has no kallsyms.
    """
    packed = where if isinstance(where, bytes) else _content(where, path)
    if progress is not None:
        progress(len(packed), len(packed))
    data, path = unpack(packed, path)
    image = _flat(data, path)
    banner = _BANNER.search(image.data)
    tables = find_kallsyms(image)
    if tables is None:
        raise FormatError("no kallsyms in this kernel (CONFIG_KALLSYMS=n): its functions are not known", path=path)
    reader = _Flat(image)
    symbols = Kallsyms(reader, tables)
    slide = _slide(image, symbols, path)

    def code(address: int, size: int) -> bytes:
        return reader.read(address - slide, size)

    return read_code(
        symbols,
        code,
        path,
        release=None if banner is None else banner[1].decode("ascii", "replace"),
        banner=None if banner is None else banner[0].decode("ascii", "replace"),
        page_size=_PAGE_SIZES.get(image[24] >> 1 & 3) if image[56:60].tobytes() == b"ARMd" else None,
    )


def _content(where: Path, path: str) -> bytes:
    try:
        if where.stat().st_size > _MAX_FILE:
            raise InputError(f"larger than {_MAX_FILE >> 30} GiB", path=path)
        return where.read_bytes()
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from error


class _Flat:
    """An image as memory that begins at 0."""

    def __init__(self, image: U8) -> None:
        self._image = image

    def read(self, va: int, size: int) -> bytes:
        """Exactly ``size`` bytes; MissingMemoryError outside of the image."""
        if not 0 <= va <= self._image.size - size:
            raise MissingMemoryError(f"the image does not hold {va:#x} (+{size:#x})", address=max(va, 0))
        return self._image[va : va + size].tobytes()

    def peek(self, va: int, size: int) -> bytes:
        """As many of ``size`` bytes as there are."""
        return self._image[max(va, 0) : max(va + size, 0)].tobytes()


def _flat(data: bytes, path: str) -> U8:
    """The image as it lies in memory, from its first byte."""
    plain: U8 = np.frombuffer(data, dtype=np.uint8)
    if not data.startswith(b"\x7fELF"):
        return plain
    table, size, count = struct.unpack_from("<32xQ14xHH", data)
    if size != _PROGRAM_HEADER.itemsize or not count or table + size * count > len(data):
        raise FormatError("an ELF file whose program headers are damaged", path=path)
    headers = np.frombuffer(data, dtype=_PROGRAM_HEADER, count=count, offset=table)
    loads = headers[(headers["type"] == _PT_LOAD) & (headers["filesz"] > 0)]
    if not loads.size:
        raise FormatError("an ELF file that holds no memory", path=path)
    first = int(loads["vaddr"].min())
    spans = [(int(one["vaddr"]) - first, int(one["offset"]), int(one["filesz"])) for one in loads]
    end = max(place + length for place, _, length in spans)
    if not 0 < end <= _MAX_FLAT or not first >> 63:
        said = "an arm64 ELF file, not a core, and not a kernel by its addresses; a dump's vmlinux goes with --vmlinux"
        raise FormatError(said, path=path)
    flat = np.zeros(end, dtype=np.uint8)
    for place, offset, length in spans:
        part = plain[offset : offset + length]
        flat[place : place + part.size] = part
    return flat


def _slide(image: U8, symbols: Kallsyms, path: str) -> int:
    """What is subtracted from the address of a symbol to get its place in the image."""
    start = symbols("_text")
    if start is not None:
        return start
    entry = symbols("primary_entry")
    words: list[int] = image[:8].view("<u4").tolist()
    for place, word in enumerate(words):
        if entry is not None and word >> 26 == 0b000101:
            offset = (word & 0x3FFFFFF) - ((word & 0x2000000) << 1)
            return entry - 4 * (place + offset)
    raise FormatError("cannot locate its symbols: neither _text nor primary_entry is known", path=path)
