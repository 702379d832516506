"""What a file is an archive of, or compressed by, as its first bytes show; nothing is opened for that."""

from __future__ import annotations

from pathlib import PurePosixPath

from parsers.compressed import SUFFIXES, compression, first_bytes

__all__ = ["HEAD_BYTES", "archive_format", "inner_format", "plain_name"]

HEAD_BYTES = 16 << 10
"""Enough to recognise what is inside of a compressed file."""
_BLOCK = 512
_TARBALLS = {".tgz", ".tbz", ".tbz2", ".txz", ".tzst"}


def archive_format(head: bytes) -> str:
    """What a file that begins like this is: ``tar``, ``zip``, the name of a compression, or an empty string."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    return compression(head) or ("tar" if _is_tar(head) else "")


def _is_tar(head: bytes) -> bool:
    """The checksum of the first header is right: also in archives of tar's that write no magic."""
    block = head[:_BLOCK]
    if len(block) < _BLOCK or not block[0]:
        return False
    try:
        stated = int(block[148:156].split(b"\0")[0].strip() or b"-", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")


def plain_name(name: str) -> str:
    """The name without the suffix of a compression: ``dmesg.gz`` is ``dmesg``."""
    path = PurePosixPath(name)
    if path.suffix in _TARBALLS:
        return str(path.with_suffix(".tar"))
    return str(path.with_suffix("")) if path.suffix in SUFFIXES and path.stem else name


def inner_format(head: bytes) -> str:
    """`archive_format` of what is inside of a compression; empty if the beginning does not show it."""
    form = archive_format(head)
    if form in {"", "tar", "zip"}:
        return form
    return archive_format(first_bytes(head, _BLOCK))
