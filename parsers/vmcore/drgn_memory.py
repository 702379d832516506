"""A kernel that is open in drgn, as a dump: its physical memory and its VMCOREINFO.

Where drgn reads a core file, the file itself is read: drgn gives zeros for memory that a core leaves out, and what is
left out is unknown here.  Any other program (a live kernel, a virtual machine through QMP, memory of one's own) is read
through drgn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parsers.errors import InputError
from parsers.mapping import U8, U64, Bool
from parsers.vmcore.memory import UNIT, PhysicalMemory, page_runs
from parsers.vmcore.opening import RawDump, open_dump
from parsers.vmcoreinfo import parse_vmcoreinfo

if TYPE_CHECKING:
    import drgn

__all__ = ["ProgramMemory", "open_program"]

_RUN = 256
"""Units that are read at once."""
_MAX_PHYSICAL = 1 << 52


class ProgramMemory(PhysicalMemory):
    """Physical memory that drgn reads."""

    def __init__(self, prog: drgn.Program) -> None:
        self._prog = prog

    @property
    def extents(self) -> tuple[U64, U64]:
        """All that can be: a program does not say where its memory lies."""
        return np.zeros(1, dtype=np.uint64), np.full(1, _MAX_PHYSICAL, dtype=np.uint64)

    def read_units(self, units: U64) -> tuple[U8, Bool]:
        data = np.zeros((units.size, UNIT), dtype=np.uint8)
        present = np.zeros(units.size, dtype=np.bool_)
        order, where = np.unique(units, return_inverse=True)
        found = np.zeros((order.size, UNIT), dtype=np.uint8)
        known = np.zeros(order.size, dtype=np.bool_)
        at = 0
        for first, count in zip(*(column.tolist() for column in page_runs(order)), strict=True):
            for step in range(0, count, _RUN):
                self._read(first + step, min(_RUN, count - step), found[at + step :], known[at + step :])
            at += count
        if units.size:
            data[:], present[:] = found[where], known[where]
        return data, present

    def _read(self, first: int, count: int, data: U8, known: Bool) -> None:
        """One run, in halves where a part of it is missing."""
        import drgn  # noqa: PLC0415 whoever has a program has drgn

        try:
            read = self._prog.read(first * UNIT, count * UNIT, True)
        except drgn.FaultError:
            if count > 1:
                half = count // 2
                self._read(first, half, data, known)
                self._read(first + half, count - half, data[half:], known[half:])
            return
        data[:count] = np.frombuffer(read, dtype=np.uint8).reshape(count, UNIT)
        known[:count] = True


def open_program(prog: drgn.Program) -> RawDump:
    """The kernel that a program is open on; InputError where it is not an arm64 kernel, or has no VMCOREINFO."""
    import drgn  # noqa: PLC0415

    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise InputError("the drgn program is not a Linux kernel: set_core_dump() or set_kernel() first")
    platform = prog.platform
    if platform is None or platform.arch is not drgn.Architecture.AARCH64:
        raise InputError(f"the drgn program is of {platform.arch.name if platform else 'no machine'}, not of arm64")
    path = getattr(prog, "core_dump_path", None)
    if path is not None and Path(path).exists():
        return open_dump(Path(path))
    try:
        text = bytes(prog["VMCOREINFO"].string_())
    except LookupError as error:
        raise InputError("the drgn program knows no VMCOREINFO") from error
    return RawDump("drgn", "drgn", ProgramMemory(prog), parse_vmcoreinfo(text, "VMCOREINFO"), text)
