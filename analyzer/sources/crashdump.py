"""Crash dumps as sources, read with whatever symbols are available."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyzer.sources.sniff import is_kdump
from parsers.errors import FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import drgn

    from parsers.vmcore.extract import Distilled, VmcoreFacts

__all__ = ["Symbols", "distill_vmcore", "read_vmcore", "symbols_of", "whole_dumps"]


@dataclass(frozen=True, slots=True)
class Symbols:
    """Files that give symbols or structures of a crash dump's kernel."""

    vmlinux: Path | None = None
    system_map: Path | None = None
    vmcoreinfo: Path | None = None


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
