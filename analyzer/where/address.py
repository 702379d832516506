"""An address as a person types it: which of the kernel's number spaces it belongs to."""

from __future__ import annotations

import re
from enum import StrEnum

from parsers.errors import UsageError
from parsers.expressions import expression
from parsers.records import dataclass

__all__ = ["MAX_PHYSICAL_BITS", "Address", "Space", "parse_address"]

MAX_PHYSICAL_BITS = 52
_KERNEL_HALF = 1 << 55
"""Bit 55 chooses the translation table (Arm ARM D8.2.1), whatever tag the top byte holds."""
_TOP_BYTE = 0xFF << 56
_FORM = expression(r"(?:(pfn|page|phys|virt):)?(0[xX][0-9a-fA-F]+|[0-9a-fA-F]{16}|[0-9]{1,99})", re.IGNORECASE)


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


def parse_address(text: str) -> Address:
    """Read ``0x…``, sixteen hexadecimal digits or a decimal number, bare or after ``pfn: page: phys: virt:``.

    UsageError for anything else, and for numbers that their space does not have.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not an address: 0x…, pfn:0x…, page:0x…, phys:0x… or virt:0x… is expected")
    prefix, digits = match[1], match[2]
    base = 16 if len(digits) == 16 or digits[:2] in {"0x", "0X"} else 10
    value = int(digits, base)
    if value >> 64:
        raise UsageError(f"{text}: more than 64 bits")
    if prefix is not None:
        return _checked(text, _PREFIXES[prefix.lower()], value, guessed=False)
    return _checked(text, Space.VIRTUAL if value & _KERNEL_HALF else Space.PHYSICAL, value, guessed=True)


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
