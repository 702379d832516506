"""Crash dumps as sources: told by their first bytes, read with whatever symbols are at hand."""

from __future__ import annotations

import lzma
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parsers.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from parsers.vmcore.extract import Distilled, VmcoreFacts

__all__ = ["Symbols", "distill_vmcore", "is_vmcore", "read_vmcore", "symbols_of", "whole_dumps"]

_MAGICS = (b"\x7fELF", b"KDUMP   ", b"DISKDUMP", b"makedumpfile")
PEEK = 64


@dataclass(frozen=True, slots=True)
class Symbols:
    """Files that tell symbols or structures of a crash dump's kernel."""

    vmlinux: Path | None = None
    system_map: Path | None = None
    vmcoreinfo: Path | None = None


def is_vmcore(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a crash dump, perhaps a compressed one."""
    return (first_bytes(head) or head).startswith(_MAGICS)


def first_bytes(head: bytes) -> bytes | None:
    """The first bytes inside of compressed data, None if it is not compressed or is damaged."""
    try:
        if head.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, PEEK)
        if head.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(head, PEEK)
        if head.startswith(b"\x28\xb5\x2f\xfd"):
            import zstandard  # noqa: PLC0415 only where such a file is read

            return zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(head).read(PEEK)
    except (zlib.error, lzma.LZMAError, EOFError, ValueError, MemoryError):
        return None
    except Exception as error:  # zstandard is not imported here, so its error has no name
        if type(error).__name__ != "ZstdError":
            raise
    return None


def whole_dumps(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The files of each dump, in order: those of a split kdump together, every other one by itself."""
    from parsers.vmcore.opening import is_split  # noqa: PLC0415 drgn and construct are slow to import

    parts = tuple(path for path in paths if len(paths) > 1 and is_split(path))
    return [parts if path in parts else (path,) for path in paths if path not in parts[1:]]


def read_vmcore(paths: Sequence[Path], symbols: Symbols) -> VmcoreFacts:
    """Everything that the audit takes from a dump; FormatError for one that ends before the page tables."""
    from parsers.vmcore.extract import extract  # noqa: PLC0415 drgn and construct are slow to import

    facts = extract(
        paths, vmlinux=symbols.vmlinux, system_map=symbols.system_map, vmcoreinfo=symbols.vmcoreinfo, with_dmesg=True
    )
    if not facts.mapping.observed_start.size:
        raise FormatError("truncated or filtered: the kernel's page tables are not in it", path=facts.path)
    return facts


def symbols_of(vmlinux: Path) -> frozenset[str]:
    """Names of all symbols of an ELF kernel; InputError if it is none."""
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 pyelftools is slow to import
    from elftools.elf.sections import SymbolTableSection  # noqa: PLC0415

    from parsers.vmcore.container import open_plain  # noqa: PLC0415

    with open_plain(vmlinux) as file:
        try:
            tables = [one for one in ELFFile(file).iter_sections() if isinstance(one, SymbolTableSection)]
            names = frozenset(symbol.name for one in tables for symbol in one.iter_symbols())
        except Exception as error:  # pyelftools raises whatever its own parsing trips over
            raise InputError(f"not an ELF file: {error or type(error).__name__}", path=str(vmlinux)) from error
    if not names:
        raise InputError("has no symbol table", path=str(vmlinux))
    return names


def distill_vmcore(paths: Sequence[Path], output: Path, symbols: Symbols, *, with_dmesg: bool) -> Distilled:
    """Write the small core of a dump; several paths for the files of a split one."""
    from parsers.vmcore.extract import distill  # noqa: PLC0415 as above

    return distill(
        paths,
        output,
        vmlinux=symbols.vmlinux,
        system_map=symbols.system_map,
        vmcoreinfo=symbols.vmcoreinfo,
        with_dmesg=with_dmesg,
    )
