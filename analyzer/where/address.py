"""An address as a person types it: a number of one of the kernel's number spaces, or a symbol."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum

from parsers.errors import UsageError
from parsers.expressions import expression
from parsers.records import dataclass

__all__ = ["MAX_PHYSICAL_BITS", "Address", "Space", "is_address", "parse_address"]

MAX_PHYSICAL_BITS = 52
_KERNEL_HALF = 1 << 55
"""Bit 55 chooses the translation table (Arm ARM D8.2.1), whatever tag the top byte holds."""
_TOP_BYTE = 0xFF << 56
_FORM = expression(r"(?:(pfn|page|phys|virt):)?(0[xX][0-9a-fA-F]+|[0-9a-fA-F]{16}|[0-9]{1,99})", re.IGNORECASE)
_SYMBOL = expression(
    r"([A-Za-z_][\w.$]{0,511})(?:\+(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})(?:/0[xX][0-9a-fA-F]{1,16})?)?", re.ASCII
)
"""A symbol, with an offset and a size, as the kernel prints it: ``memunmap_pages+0x1a8/0x2a8``."""


class Space(StrEnum):
    """What a number counts."""

    VIRTUAL = "virtual address"
    PHYSICAL = "physical address"
    PFN = "page frame number"
    STRUCT_PAGE = "address of a struct page"


_PREFIXES = {"pfn": Space.PFN, "page": Space.STRUCT_PAGE, "phys": Space.PHYSICAL, "virt": Space.VIRTUAL}


@dataclass(frozen=True, slots=True)
class Address:
    """A number and the space it is in; ``guessed`` where only its value says which."""

    text: str
    space: Space
    value: int
    """Without the tag."""
    tag: int | None = None
    """Top byte of a tagged kernel address (KASAN, MTE), where it is not 0xff."""
    guessed: bool = False


def is_address(text: str) -> bool:
    """Whether the text has the form of an address or of a symbol."""
    return any(form.fullmatch(text.strip()) is not None for form in (_FORM, _SYMBOL))


def parse_address(text: str, symbol: Callable[[str], int | None] | None = None) -> Address:
    """Read ``0x…``, sixteen hexadecimal digits or a decimal number, bare or after ``pfn: page: phys: virt:``; a symbol.

    ``symbol`` gives the address of a symbol; None where the evidence has none.  UsageError for anything else, for
    unknown symbols and for numbers that their space does not have.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return _of_symbol(text, symbol)
    prefix, digits = match[1], match[2]
    base = 16 if len(digits) == 16 or digits[:2] in {"0x", "0X"} else 10
    value = int(digits, base)
    if value >> 64:
        raise UsageError(f"{text}: more than 64 bits")
    if prefix is not None:
        return _checked(text, _PREFIXES[prefix.lower()], value, guessed=False)
    return _checked(text, Space.VIRTUAL if value & _KERNEL_HALF else Space.PHYSICAL, value, guessed=True)


def _of_symbol(text: str, symbol: Callable[[str], int | None] | None) -> Address:
    match = _SYMBOL.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not an address: 0x…, pfn:0x…, page:0x…, phys:0x…, virt:0x… or a symbol is expected"
        )
    if symbol is None:
        raise UsageError(
            f"{text}: a symbol needs a crash dump or /proc/kcore, of kernels before 6.0 with --vmlinux or --system-map"
        )
    start = symbol(match[1])
    if start is None:
        raise UsageError(f"{text}: no such file, and the dump has no symbol {match[1]}, or not its address")
    value = start + int(match[2] or "0", 16 if (match[2] or "")[1:2] in {"x", "X"} else 10)
    if value >> 64:
        raise UsageError(f"{text}: more than 64 bits")
    return _checked(text, Space.VIRTUAL, value, guessed=False)


def _checked(text: str, space: Space, value: int, *, guessed: bool) -> Address:
    if space in {Space.VIRTUAL, Space.STRUCT_PAGE}:
        if not value & _KERNEL_HALF:
            raise UsageError(f"{text}: a user address, not one of the kernel's half (bit 55 is clear)")
        tag = value >> 56
        return Address(text, space, value | _TOP_BYTE, None if tag == 0xFF else tag, guessed)
    if value >> MAX_PHYSICAL_BITS:
        what = "neither a kernel address (bit 55 is clear) nor a physical one" if guessed else f"no {space}"
        raise UsageError(f"{text}: {what}, which have at most {MAX_PHYSICAL_BITS} bits")
    return Address(text, space, value, None, guessed)
