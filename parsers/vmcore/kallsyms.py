"""Symbols of a dump without debuginfo: the kernel's own kallsyms, or a System.map.

Since 6.0 VMCOREINFO says where the kallsyms tables are (f09bddbd8661 "vmcoreinfo: add kallsyms_num_syms symbol"),
and drgn decodes them; for older kernels a System.map of the same build does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from parsers.errors import FormatError, InputError
from parsers.vmcore.addresses import MASK
from parsers.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    import drgn

__all__ = ["SymbolAddress", "kallsyms", "system_map"]

SymbolAddress = Callable[[str], int | None]
"""Run-time address of a symbol, or None."""

_MAX_SYMBOLS = 1 << 24
_TABLES = ("kallsyms_names", "kallsyms_num_syms", "kallsyms_token_table", "kallsyms_token_index")
_ROW = re.compile(rb"^[0-9a-fA-F]{16} [A-Za-z] \S+$", re.MULTILINE)
_REFERENCES = ("_stext", "swapper_pg_dir", "init_uts_ns")


def kallsyms(prog: drgn.Program, info: VmcoreInfo) -> SymbolAddress | None:
    """Symbols from the kallsyms tables in the dump, also registered with ``prog``; None if VMCOREINFO names no tables.

    Raises FormatError where the tables are damaged or not in the dump.
    """
    import drgn  # noqa: PLC0415
    from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms  # noqa: PLC0415

    if any(info.symbol(name) is None for name in _TABLES):
        return None
    try:
        count = prog.read_u32(info.symbol("kallsyms_num_syms") or 0)
        if not 0 < count < _MAX_SYMBOLS:
            raise FormatError(f"kallsyms claims {count} symbols")
        index = load_vmlinux_kallsyms(prog)
    except (drgn.FaultError, drgn.BadDataError, LookupError, ValueError) as error:
        raise FormatError(f"kallsyms cannot be read: {error}") from error
    prog.register_symbol_finder("kallsyms", index, enable_index=-1)

    def address(name: str) -> int | None:
        found = index(prog, name, None, True)
        return int(found[0].address) if found else None

    return address


def system_map(data: bytes, info: VmcoreInfo, path: str) -> SymbolAddress:
    """Symbols from the text of a System.map, moved by the KASLR offset of the dump.

    Raises FormatError for other text, InputError when its symbols contradict VMCOREINFO: it is of another kernel.
    """
    if _ROW.search(data) is None:
        raise FormatError("no System.map", path=path)

    def linked(name: str) -> int | None:
        found = re.search(rb"^([0-9a-fA-F]{16}) [A-Za-z] " + re.escape(name.encode()) + rb"$", data, re.MULTILINE)
        return int(found[1], 16) if found else None

    offsets = {
        name: (info.symbol(name) or 0) - value & MASK
        for name in _REFERENCES
        if info.symbol(name) is not None and (value := linked(name)) is not None
    }
    if not offsets:
        raise FormatError("no symbol in common with the dump's VMCOREINFO", path=path)
    offset = info.kernel_offset
    if len(set(offsets.values())) > 1 or (offset is not None and offset & MASK not in offsets.values()):
        detail = ", ".join(f"{name} {value:#x}" for name, value in offsets.items())
        raise InputError(f"System.map is of another kernel: offsets to the dump's symbols differ ({detail})", path=path)
    slide = next(iter(offsets.values()))

    def address(name: str) -> int | None:
        value = linked(name)
        return None if value is None else (value + slide) & MASK

    return address
