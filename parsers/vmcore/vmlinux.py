"""Whether a vmlinux belongs to a dump: its machine and its build-id."""

from __future__ import annotations

from typing import Any, BinaryIO

from parsers.errors import ArchitectureError, FormatError, InputError

__all__ = ["check_vmlinux"]

_NOTE_GNU_BUILD_ID = "NT_GNU_BUILD_ID"


def check_vmlinux(stream: BinaryIO, path: str, build_id: str | None) -> None:
    """An arm64 ELF file of the build that the dump is of; InputError with both ids otherwise."""
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  # heavy

    try:
        elf: Any = ELFFile(stream)
        machine = elf.header.e_machine
        notes = [note for segment in elf.iter_segments("PT_NOTE") for note in segment.iter_notes()]
        notes += [note for section in elf.iter_sections("SHT_NOTE") for note in section.iter_notes()]
        ids = [note.n_desc for note in notes if note.n_type == _NOTE_GNU_BUILD_ID]
    except Exception as error:  # pyelftools raises whatever its own parsing trips over
        raise FormatError(f"no usable ELF file: {error or type(error).__name__}", path=path) from error
    if machine != "EM_AARCH64":
        raise ArchitectureError(f"this vmlinux is for {machine}, not for arm64", path=path)
    if not ids:
        raise InputError("this vmlinux has no build-id, so whether it fits is unknown", path=path)
    if build_id is not None and ids[0] != build_id:
        raise InputError(f"this vmlinux has build-id {ids[0]}, the dump is of {build_id}", path=path)
