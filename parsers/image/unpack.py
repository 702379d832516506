"""From what is given to the kernel in it: compressed images, EFI zboot, and the packages of distributions.

Formats: Documentation/arch/arm64/booting.rst (Image), drivers/firmware/efi/libstub/zboot-header.S (EFI zboot, 6.1 and
later), deb(5) and ar(5), the RPM 4 file format with a payload of cpio "newc".  Everything is read from memory and
bounded; nothing is written or executed.
"""

from __future__ import annotations

import io
import struct
from typing import IO, TYPE_CHECKING, cast

from parsers.compressed import DAMAGE, Forward, Growth, Stream, compression, decompressed
from parsers.errors import FormatError, InputError
from parsers.expressions import expression

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_kernel", "unpack"]

_MAX_KERNEL = 2 << 30
_MAX_PACKAGE = 4 << 30
_GROWTH = Growth(ratio=64, free=512 << 20)
_MAX_DEPTH = 4
_CHUNK = 1 << 20
_ELF = b"\x7fELF\2\1"
_DEB, _RPM = b"!<arch>\n", b"\xed\xab\xee\xdb"
_EM_AARCH64, _ET_EXEC, _ET_DYN = 183, 2, 3
_AR = struct.Struct("<16s12s6s6s8s10s2s")
_RPM_HEADER = struct.Struct(">4s4xII")
_RPM_LEAD = 96
_REGULAR = 8  # S_IFREG >> 12
_CPIO = expression(rb"07070[12]([0-9a-fA-F]{104})")
_KERNEL_NAME = expression(r"(?:^|/)(?:vmlinu[xz]|Image)(?:-[^/]+)?(?:\.(?:gz|xz|zst))?$")


def is_kernel(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an arm64 kernel, an EFI zboot image, or a package.

    An ELF file has to be an executable or a shared object of arm64, not a core.  Compressed files are recognised by
    what is in them: see `parsers.compressed.first_bytes`.
    """
    return _is_image(head) or _is_zboot(head) or _is_elf(head) or head.startswith((_DEB, _RPM))


def _is_image(head: bytes) -> bool:
    return head[56:60] == b"ARMd"


def _is_zboot(head: bytes) -> bool:
    return head[:2] == b"MZ" and head[4:8] == b"zimg"


def _is_elf(head: bytes) -> bool:
    kind, machine = struct.unpack_from("<HH", head, 16) if len(head) >= 20 else (0, 0)
    return head.startswith(_ELF) and machine == _EM_AARCH64 and kind in {_ET_EXEC, _ET_DYN}


def unpack(data: bytes, path: str) -> tuple[bytes, str]:
    """The plain kernel, an arm64 Image or an ELF file, and the path under which it was found.

    FormatError for what is damaged or has no arm64 kernel in it.
    """
    for _ in range(_MAX_DEPTH):
        if _is_image(data) or _is_elf(data):
            return data, path
        try:
            if data.startswith(_DEB):
                data, path = _in_deb(data, path)
            elif data.startswith(_RPM):
                data, path = _in_rpm(data, path)
            elif _is_zboot(data):
                data = _payload(data, path)
            elif form := compression(data[:64]):
                data = _whole(decompressed(form, io.BytesIO(data)), len(data), path)
            else:
                break
        except (*DAMAGE, struct.error) as error:
            raise FormatError(f"damaged or truncated: {error or type(error).__name__}", path=path) from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise FormatError(f"damaged or truncated: {error}", path=path) from error
    raise FormatError("no arm64 kernel in it: neither an Image nor an ELF file", path=path)


def _whole(stream: Stream, packed: int, path: str) -> bytes:
    """All of a stream; FormatError where it grows beyond belief."""
    pieces, size = [], 0
    while piece := stream.read(_CHUNK):
        size += len(piece)
        _GROWTH.check(size, packed, path)
        if size > _MAX_KERNEL:
            raise FormatError(f"a kernel of more than {_MAX_KERNEL >> 30} GiB", path=path)
        pieces.append(piece)
    return b"".join(pieces)


def _payload(data: bytes, path: str) -> bytes:
    """What an EFI zboot image unpacks at boot."""
    offset, size = struct.unpack_from("<II", data, 8)
    packed = data[offset : offset + size]
    form = compression(packed[:64])
    if len(packed) < size or not form:
        name = data[24:56].split(b"\0")[0].decode("ascii", "replace")
        raise FormatError(f"an EFI zboot image, truncated or compressed with {name!r}: not supported", path=path)
    return _whole(decompressed(form, io.BytesIO(packed)), size, path)


class _Bounded(Forward):
    """A stream that may not grow beyond all measure."""

    def __init__(self, stream: Stream, path: str) -> None:
        self._stream, self._path, self._total = stream, path, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(_CHUNK if size < 0 else min(size, _CHUNK))
        self._total += len(data)
        if self._total > _MAX_PACKAGE:
            raise FormatError(f"a package of more than {_MAX_PACKAGE >> 30} GiB", path=self._path)
        return data


def _in_deb(data: bytes, path: str) -> tuple[bytes, str]:
    """The kernel in the data.tar of a Debian package."""
    import tarfile  # noqa: PLC0415 only where a kernel was packed

    for name, member in _members(data):
        if not name.startswith("data.tar"):
            continue
        form = compression(member[:64])
        plain: Stream = io.BytesIO(member) if not form else decompressed(form, io.BytesIO(member))
        try:
            with tarfile.open(fileobj=cast(IO[bytes], _Bounded(plain, path)), mode="r|", errorlevel=2) as archive:
                for info in archive:
                    file = archive.extractfile(info) if info.isreg() and _KERNEL_NAME.search(info.name) else None
                    if file is not None:
                        return _whole(file, max(info.size, 1), path), f"{path}:{info.name.removeprefix('./')}"
                    archive.members.clear()  # type: ignore[attr-defined]  # else it remembers them all
        except tarfile.TarError as error:
            raise ValueError(str(error) or type(error).__name__) from error
    raise InputError(
        "no kernel in this package: the kernel itself is in another one, linux-image or linux-binary", path=path
    )


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of an ar archive."""
    at = len(_DEB)
    while at + _AR.size <= len(data):
        name, _, _, _, _, size, magic = _AR.unpack_from(data, at)
        if magic != b"`\n" or not size.strip().isdigit():
            raise ValueError("not an ar archive")
        at += _AR.size
        yield name.decode("ascii", "replace").strip().rstrip("/"), data[at : at + int(size)]
        at += int(size) + int(size) % 2


def _in_rpm(data: bytes, path: str) -> tuple[bytes, str]:
    """The kernel in the cpio payload of an RPM package."""
    at = _RPM_LEAD
    for alignment in (8, 1):  # the signature is padded, the header is not
        magic, count, size = _RPM_HEADER.unpack_from(data, at)
        if magic != b"\x8e\xad\xe8\x01":
            raise FormatError("an RPM package without its header", path=path)
        at += _RPM_HEADER.size + 16 * count + size
        at = -(-at // alignment) * alignment
    packed = data[at:]
    form = compression(packed[:64])
    plain = _Bounded(io.BytesIO(packed) if not form else decompressed(form, io.BytesIO(packed)), path)
    while (head := _exactly(plain, 110)) and (fields := _CPIO.fullmatch(head)):
        numbers = [int(fields[1][place : place + 8], 16) for place in range(0, 104, 8)]
        size, length = numbers[6], numbers[11]
        if length > _CHUNK:
            raise ValueError(f"a name of {length} bytes")
        name = _exactly(plain, length + -(110 + length) % 4)[: length - 1].decode("utf-8", "replace")
        if name == "TRAILER!!!":
            break
        if _KERNEL_NAME.search(name) and numbers[1] >> 12 == _REGULAR and size:
            return _exactly(plain, size), f"{path}:{name.removeprefix('./')}"
        _skip(plain, size + -size % 4)
    raise InputError("no kernel in this package: kernel-core or kernel-default-base has it", path=path)


def _exactly(stream: Stream, size: int) -> bytes:
    """``size`` bytes; EOFError where there are fewer."""
    if size > _MAX_KERNEL:
        raise ValueError(f"a file of {size} bytes")
    pieces, left = [], size
    while left:
        piece = stream.read(left)
        if not piece:
            raise EOFError("the package ends too early")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _skip(stream: Stream, size: int) -> None:
    while size:
        piece = stream.read(min(size, _CHUNK))
        if not piece:
            raise EOFError("the package ends too early")
        size -= len(piece)
