"""The walk of one address, level by level, in words: the evidence behind a finding of a dump."""

from __future__ import annotations

import numpy as np

from parsers.arm64 import PTE
from parsers.records import dataclass
from parsers.vmcore.addresses import AddressMap
from parsers.vmcore.descriptors import TABLE_ATTRIBUTES, DescriptorFormat, Kind
from parsers.vmcore.memory import MissingMemoryError, PhysicalMemory

__all__ = ["Step", "explain"]


@dataclass(frozen=True, slots=True)
class Step:
    """One level of the walk of one address."""

    level: int
    table_pa: int
    index: int
    descriptor: int | None
    """None where the dump does not hold the table."""
    meaning: str
    output: int | None = None
    """Physical address that the virtual one translates to, in the last step of a walk that ends in a leaf."""

    @property
    def entry_pa(self) -> int:
        """Physical address of the entry itself."""
        return self.table_pa + 8 * self.index


def explain(memory: PhysicalMemory, addresses: AddressMap, va: int) -> list[Step]:
    """The walk of one address, level by level, ending where the hardware would end it or the dump does."""
    form = DescriptorFormat(addresses.granule, addresses.lpa2)
    level = addresses.granule.first_level(addresses.va_bits)
    table, bits = addresses.root_pa, addresses.va_bits
    steps: list[Step] = []
    while True:
        shift = addresses.granule.span(level).bit_length() - 1
        index = (va & ((1 << bits) - 1)) >> shift
        try:
            descriptor = int.from_bytes(memory.read(table + 8 * index, 8), "little")
        except MissingMemoryError:
            return [*steps, Step(level, table, index, None, "the table page is not in the dump")]
        word = np.array([descriptor], dtype=np.uint64)
        at = np.array([level], dtype=np.int8)
        kind = Kind(int(form.kinds(word, at)[0]))
        output = int(form.output(word)[0]) if kind is Kind.TABLE else int(form.leaf_output(word, at)[0])
        leaf = output if kind is Kind.LEAF else None
        meaning = _meaning(kind, descriptor, output, level)
        steps.append(
            Step(level, table, index, descriptor, meaning, None if leaf is None else leaf + (va & ((1 << shift) - 1)))
        )
        if kind is not Kind.TABLE:
            return steps
        table, level, bits = output, level + 1, shift


def _meaning(kind: Kind, descriptor: int, output: int, level: int) -> str:
    if kind is Kind.TABLE:
        bits = " ".join(name for name, bit in TABLE_ATTRIBUTES.items() if descriptor & bit)
        return f"table at {output:#x}" + (f" ({bits})" if bits else "")
    if kind is Kind.LEAF:
        return f"{'page' if level == PTE else 'block'} at {output:#x}"
    return {Kind.EMPTY: "empty", Kind.RESERVED: "reserved encoding"}.get(kind, f"invalid, output {output:#x}")
