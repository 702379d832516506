"""Addresses to symbols, from the ``/proc/kallsyms`` text that a trace.dat carries."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from parsers.ftrace.numbers import parse_hex
from parsers.mapping import U64

__all__ = ["Symbols"]

_LINE = re.compile(rb"^([0-9a-f]{8,16}) [A-Za-z?] (\S+)(?:\s+\[(\S+)\])?", re.MULTILINE)
_FAR = 1 << 24
"""A symbol this far below an address is not its function."""


class Symbols:
    """Symbols by address.  Of several at one address the first of the list is printed, as the kernel does."""

    def __init__(self, kallsyms: bytes) -> None:
        found = _LINE.findall(kallsyms)
        addresses, names, modules = zip(*found, strict=True) if found else ((), (), ())
        address, _ = parse_hex(np.array(addresses, dtype="S16"))
        order = np.argsort(address, kind="stable")
        self._address: U64 = address[order]
        self._order = order
        self._names = names
        self._modules = modules
        if address.size and not address.any():
            self._address = np.zeros(0, dtype=np.uint64)  # kptr_restrict: all zero

    def addresses_of(self, names: Iterable[str]) -> list[int]:
        """Addresses of those of ``names`` that are in the list."""
        wanted = {name.encode() for name in names}
        rows = [i for i, row in enumerate(self._order[: self._address.size].tolist()) if self._names[row] in wanted]
        return [int(address) for address in self._address[rows]]

    def find(self, address: int) -> tuple[str, int, int, str] | None:
        """(symbol, offset into it, its size, module) of ``address``; None if no symbol is near."""
        below = int(np.searchsorted(self._address, np.uint64(address), side="right")) - 1
        if below < 0:
            return None
        start = int(self._address[below])
        first = int(np.searchsorted(self._address, np.uint64(start), side="left"))
        end = int(self._address[below + 1]) if below + 1 < self._address.size else start
        if address - start > _FAR:
            return None
        row = int(self._order[first])
        return self._names[row].decode(errors="replace"), address - start, end - start, self._modules[row].decode()

    def name(self, address: int) -> str:
        """The function of ``address`` without an offset, or the address in hexadecimal."""
        found = self.find(address)
        return found[0] if found else f"{address:#x}"

    def place(self, address: int) -> str:
        """``function+0xoffset/0xsize [module]`` of ``address``, or the address in hexadecimal."""
        found = self.find(address)
        if not found:
            return f"{address:#x}"
        name, offset, size, module = found
        return f"{name}+{offset:#x}/{size:#x}" + (f" [{module}]" if module else "")
