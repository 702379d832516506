"""Addresses to symbols, from the ``/proc/kallsyms`` text that a trace.dat carries."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from parsers.mapping import I64, U64, Bool

__all__ = ["Symbols"]

_DIGIT = np.full(256, 255, dtype=np.uint8)
_DIGIT[list(b"0123456789abcdef")] = np.arange(16)
_FAR = 1 << 24
"""A symbol this far below an address is not its function."""


class Symbols:
    """Symbols by address.  Of several at one address the first of the list is printed, as the kernel does."""

    def __init__(self, kallsyms: bytes) -> None:
        self._kallsyms = kallsyms
        self._text = np.frombuffer(kallsyms, dtype=np.uint8)
        new = np.flatnonzero(self._text == ord("\n"))
        start, end = np.concatenate(([0], new + 1)), np.append(new, self._text.size)
        # "ffff800080010000 T _text", with eight digits on 32-bit kernels
        widths = [(self._rows_of(start, end, width), width) for width in (16, 8)]
        rows, width = max(widths, key=lambda found: found[0].size)
        address = self._addresses(start[rows], width)
        order = np.argsort(address, kind="stable")
        self._address: U64 = address[order]
        self._name, self._end = start[rows[order]] + width + 3, end[rows[order]]
        if address.size and not address.any():
            self._address = np.zeros(0, dtype=np.uint64)  # kptr_restrict: all zero

    def _rows_of(self, start: I64, end: I64, width: int) -> NDArray[np.intp]:
        """Lines that begin with ``width`` hexadecimal digits and a type, and go on with a name."""
        rows = np.flatnonzero(end - start > width + 3)
        line = self._text[start[rows][:, None] + np.arange(width + 4)]
        good: Bool = (line[:, [width, width + 2]] == ord(" ")).all(axis=1) & (line[:, width + 3] > ord(" "))
        good &= (_DIGIT[line[:, :width]] < 16).all(axis=1)
        return rows[good]

    def _addresses(self, start: I64, width: int) -> U64:
        digits = _DIGIT[self._text[start[:, None] + np.arange(width)]]
        whole = np.zeros((start.size, 8), dtype=np.uint8)
        whole[:, 8 - width // 2 :] = digits[:, ::2] << 4 | digits[:, 1::2]
        address: U64 = whole.view(">u8").ravel().astype(np.uint64)
        return address

    def _words(self, row: int) -> list[bytes]:
        """The name and, for a symbol of a module, the module in brackets."""
        return self._kallsyms[self._name[row] : self._end[row]].split()

    def addresses_of(self, names: Iterable[str]) -> list[int]:
        """Addresses of those of ``names`` that are in the list."""
        wanted = {name.encode() for name in names}
        begins = np.array([name[:4].ljust(4, b"\0") for name in wanted], dtype="S4").view(np.uint32)
        name, end = self._name[: self._address.size], self._end[: self._address.size]
        place = name[:, None] + np.arange(4)
        letters = np.where(place < end[:, None], self._text.take(place, mode="clip"), 0)
        letters[np.logical_or.accumulate(letters <= ord(" "), axis=1)] = 0  # a shorter name ends before its module
        begin = letters.astype(np.uint8).view(np.uint32).ravel()
        rows = [row for row in np.flatnonzero(np.isin(begin, begins)).tolist() if self._words(row)[0] in wanted]
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
        name, module = (*self._words(first), b"")[:2]
        return (
            name.decode(errors="replace"), address - start, end - start, module.strip(b"[]").decode(errors="replace")
        )  # fmt: skip

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
