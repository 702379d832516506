"""Crash dumps as sources, read with whatever symbols are available."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from analyzer.sources.found import Found, digest
from analyzer.sources.sniff import is_kdump
from parsers.errors import FormatError, InputError
from parsers.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import drgn

    from parsers.vmcore.extract import Distilled, VmcoreFacts

__all__ = ["DumpDigest", "Symbols", "digest_of_dump", "distill_vmcore", "read_vmcore", "symbols_of", "whole_dumps"]

_WHOLE_BYTES = 256 << 20  # what is hashed while nobody waits
_EDGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Symbols:
    """Files that give symbols or structures of a crash dump's kernel."""

    vmlinux: Path | None = None
    system_map: Path | None = None
    vmcoreinfo: Path | None = None


class DumpDigest(NamedTuple):
    """SHA-256 of a dump."""

    sha256: str
    whole: bool
    """Of the whole file, as sha256sum gives it; otherwise of what was read of it."""


def digest_of_dump(path: Path, facts: VmcoreFacts | None) -> DumpDigest:
    """The hash of a dump with these facts, or of one that could not be read; InputError where the file is gone.

    An audit reads a small part of a large dump, and hashing the rest would take most of its time: then the size, the
    first and the last MiB, VMCOREINFO and the page tables are hashed.  The memory of a running kernel has no end and
    changes, so that of it VMCOREINFO is hashed.
    """
    if facts is not None and facts.kind in {"kcore", "drgn"}:
        return DumpDigest(digest(repr(sorted(facts.vmcoreinfo.text.items())).encode()), whole=False)
    found = Found(str(path), path)
    size = found.size()
    if size <= _WHOLE_BYTES:
        return DumpDigest(found.digest(), whole=True)
    hashed = hashlib.sha256(f"{size}\n".encode())
    try:
        with path.open("rb") as file:
            for offset in (0, size - _EDGE_BYTES):
                hashed.update(os.pread(file.fileno(), _EDGE_BYTES, offset))
    except OSError as error:
        raise InputError(error.strerror or str(error), path=str(path)) from error
    if facts is not None:
        hashed.update(repr(sorted(facts.vmcoreinfo.text.items())).encode())
        mapping = facts.mapping
        for column in (mapping.start, mapping.size, mapping.level, mapping.attrs, mapping.pa, mapping.observed_start):
            if column is not None:
                hashed.update(column.data)
    return DumpDigest(hashed.hexdigest(), whole=False)


def whole_dumps(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The files of each dump, in order: those of a split kdump together, every other one by itself."""
    from parsers.vmcore.opening import is_split  # noqa: PLC0415 construct is slow to import

    # A compressed file is unpacked whole to read its header, so only those that can be a part are.
    parts = tuple(path for path in paths if len(paths) > 1 and is_kdump(path) and is_split(path))
    return [parts if path in parts else (path,) for path in paths if path not in parts[1:]]


def read_vmcore(paths: Sequence[Path], symbols: Symbols, name: str | None = None) -> VmcoreFacts:
    """Everything that the audit takes from a dump, called ``name``.

    Raises FormatError for one that ends before the page tables.
    """
    from parsers.vmcore.extract import extract  # noqa: PLC0415 construct is slow to import

    facts = extract(
        paths,
        vmlinux=symbols.vmlinux,
        system_map=symbols.system_map,
        vmcoreinfo=symbols.vmcoreinfo,
        with_dmesg=True,
        name=name,
    )
    if not facts.mapping.observed_start.size:
        raise FormatError("truncated or filtered: the kernel's page tables are not in it", path=facts.path)
    return facts


def read_program(prog: drgn.Program) -> VmcoreFacts:
    """Everything that the audit takes from a kernel that is open in drgn."""
    from parsers.vmcore.drgn_memory import open_program  # noqa: PLC0415 construct is slow to import
    from parsers.vmcore.extract import extract_facts  # noqa: PLC0415

    facts = extract_facts(open_program(prog), with_dmesg=True)
    if not facts.mapping.observed_start.size:
        raise FormatError("the kernel's page tables cannot be read", path=facts.path)
    return facts


def symbols_of(vmlinux: Path) -> frozenset[str]:
    """Names of all symbols of an ELF kernel; InputError if it is not one."""
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
