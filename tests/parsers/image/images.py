"""Small kernels made for tests: an Image with functions and the kallsyms of a generation of kernels."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile

import numpy as np

BL, RET = 0x94000000, 0xD65F03C0
FILLERS = 5000
"""Symbols besides: the tables of a kernel have many markers."""


def build(functions: dict[str, list[int | str]], era: str = "6.4", page_size: int = 4096) -> bytes:
    """An Image whose functions are lists of words, or names of the functions that they call.

    ``era`` is the layout of kallsyms: ``5.10``, ``6.1`` (with the order of names), ``6.4`` or ``7.0``.
    """
    names = ["_text", "primary_entry", *functions, *(f"filler_{number}" for number in range(FILLERS))]
    place, code = {"_text": 0, "primary_entry": 0x10000}, bytearray()
    at = 0x10004
    for name in names[2:]:
        place[name] = at
        at += 4 * (len(functions.get(name, [RET])) or 1)
    for name in names[1:]:
        for row, word in enumerate(functions.get(name, [RET]) or [RET]):
            here = place[name] + 4 * row
            code += struct.pack("<I", BL | (place[word] - here) // 4 & 0x3FFFFFF if isinstance(word, str) else word)
    flags = {4096: 1, 16384: 2, 65536: 3}[page_size] << 1
    head = struct.pack("<IIQQQ24xI4x", 0x91005A4D, 0x14000000 | (0x10000 - 4) // 4, 0, 0, flags, 0x644D5241)
    image = bytearray(head.ljust(0x10000, b"\0") + bytes(code))
    image += b"\0" * (-len(image) % 8) + b"Linux version 6.12.113-test (root@vm) (gcc 14) #1 SMP\n\0"
    return bytes(image + _kallsyms(names, place, len(image), era))


def _kallsyms(names: list[str], place: dict[str, int], at: int, era: str) -> bytes:
    tokens = [bytes([value]) if 32 < value < 127 else f"unused{value}".encode() for value in range(256)]
    texts, index, offset = b"", b"", 0
    for token in tokens:
        texts, index, offset = texts + token + b"\0", index + struct.pack("<H", offset), offset + len(token) + 1
    packed, markers = b"", b""
    for number, name in enumerate(names):
        if number % 256 == 0:
            markers += struct.pack("<I", len(packed))
        packed += bytes([len(name) + 1]) + b"T" + name.encode()
    out = bytearray(b"\0" * (-at % 8))

    def put(data: bytes, alignment: int = 8) -> int:
        out.extend(b"\0" * (-(at + len(out)) % alignment))
        begin = at + len(out)
        out.extend(data)
        return begin

    def offsets(here: int) -> bytes:
        relative = (place[name] - (here + 4 * number if era == "7.0" else 0) for number, name in enumerate(names))
        return b"".join(struct.pack("<i", value) for value in relative)

    if era in {"5.10", "6.1"}:
        put(offsets(0))
        put(struct.pack("<Q", 0))
    alignment = 4 if era == "7.0" else 8
    put(struct.pack("<I", len(names)), alignment)
    put(packed, alignment)
    put(markers, alignment)
    if era == "6.1":
        put(np.random.default_rng(1).bytes(3 * len(names)))
    put(texts, alignment)
    put(index, alignment)
    if era in {"6.4", "7.0"}:
        out.extend(b"\0" * (-(at + len(out)) % alignment))
        put(offsets(at + len(out)), alignment)
        if era == "6.4":
            put(struct.pack("<Q", 0))
        put(np.random.default_rng(1).bytes(3 * len(names)), alignment)
    return bytes(out.ljust(len(out) + 64, b"\0"))


def zboot(image: bytes) -> bytes:
    packed = gzip.compress(image, 1)
    return b"MZ\0\0zimg" + struct.pack("<II8x", 64, len(packed)) + b"gzip".ljust(40, b"\0") + packed


def deb(image: bytes, name: str = "./boot/vmlinuz-6.12.113-test") -> bytes:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for path, data in (("./usr/share/doc/readme", b"text\n"), (name, image)):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    out = b"!<arch>\n"
    for member, data in (("debian-binary", b"2.0\n"), ("data.tar.xz", lzma.compress(inner.getvalue(), preset=0))):
        out += f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def rpm(image: bytes, name: str = "./lib/modules/6.12.113-test/vmlinuz") -> bytes:
    def entry(path: str, data: bytes) -> bytes:
        numbers = [1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path) + 1, 0]
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + path.encode() + b"\0"
        return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)

    payload = entry("./boot/config", b"CONFIG_ARM64=y\n") + entry(name, image) + entry("TRAILER!!!", b"")
    header = b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", 0, 0)
    return b"\xed\xab\xee\xdb".ljust(96, b"\0") + header + header + gzip.compress(payload, 1)


def elf(image: bytes, *, kind: int = 3) -> bytes:
    base = 0xFFFF800080000000
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", kind, 183, 1, base, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, base, 0, len(image), len(image), 0x10000)
    return (head + load).ljust(0x1000, b"\0") + image
