"""The code of a dump's kernel that shows which fixes it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.image.code import KernelCode, read_code

if TYPE_CHECKING:
    from parsers.vmcore.dump import Dump

__all__ = ["read_kernel_code"]


def read_kernel_code(dump: Dump) -> KernelCode | None:
    """The code; None where kallsyms are not in the dump: nothing else shows where a function ends."""
    symbols = dump.kallsyms
    if symbols is None:
        return None
    return read_code(
        symbols,
        dump.read,
        dump.path,
        release=dump.vmcoreinfo.osrelease,
        page_size=dump.addresses.granule.page_size,
    )
