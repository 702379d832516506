"""The exception syndrome of an abort, decoded: ESR_EL1 as an oops prints it.

Classes and fault status codes from the Arm ARM (D24.2.40) and arch/arm64/include/asm/esr.h (6.12).
"""

from __future__ import annotations

from enum import StrEnum

from parsers.records import dataclass

__all__ = ["Esr", "Fault"]


class Fault(StrEnum):
    """What kind of abort a fault status code means."""

    ADDRESS_SIZE = "address size fault"
    TRANSLATION = "translation fault"
    ACCESS_FLAG = "access flag fault"
    PERMISSION = "permission fault"
    EXTERNAL_ABORT = "synchronous external abort"
    EXTERNAL_ABORT_ON_WALK = "synchronous external abort on a table walk"
    TAG_CHECK = "tag check fault"
    PARITY = "parity or ECC error"
    PARITY_ON_WALK = "parity or ECC error on a table walk"
    ALIGNMENT = "alignment fault"
    TLB_CONFLICT = "TLB conflict abort"
    OTHER = "fault of another kind"


_INSTRUCTION_ABORTS, _DATA_ABORTS, _SERROR = (0x20, 0x21), (0x24, 0x25), 0x2F
_FROM_USER = (0x20, 0x24)  # from a lower exception level

# By first code; a level is what exceeds it.
_BY_LEVEL = (
    (0x00, 0x03, 0, Fault.ADDRESS_SIZE),
    (0x04, 0x07, 0, Fault.TRANSLATION),
    (0x08, 0x0B, 0, Fault.ACCESS_FLAG),
    (0x0C, 0x0F, 0, Fault.PERMISSION),
    (0x13, 0x17, -1, Fault.EXTERNAL_ABORT_ON_WALK),
    (0x1B, 0x1F, -1, Fault.PARITY_ON_WALK),
    (0x29, 0x29, -1, Fault.ADDRESS_SIZE),  # with LPA2
    (0x2B, 0x2B, -1, Fault.TRANSLATION),
)
_SINGLE = {
    0x10: Fault.EXTERNAL_ABORT,
    0x11: Fault.TAG_CHECK,
    0x18: Fault.PARITY,
    0x21: Fault.ALIGNMENT,
    0x30: Fault.TLB_CONFLICT,
}


@dataclass(frozen=True, slots=True)
class Esr:
    """An exception syndrome.

    >>> esr = Esr(0x96000047)
    >>> hex(esr.exception_class), esr.fault, esr.level, esr.write, str(esr)
    ('0x25', <Fault.TRANSLATION: 'translation fault'>, 3, True, 'level 3 translation fault on a write')
    """

    value: int

    @property
    def exception_class(self) -> int:
        """EC."""
        return self.value >> 26 & 0x3F

    @property
    def is_abort(self) -> bool:
        """A data or an instruction abort: only these have a fault status."""
        return self.exception_class in _INSTRUCTION_ABORTS + _DATA_ABORTS

    @property
    def is_serror(self) -> bool:
        return self.exception_class == _SERROR

    @property
    def from_user(self) -> bool:
        """An abort that a program took, not the kernel."""
        return self.exception_class in _FROM_USER

    @property
    def execute(self) -> bool:
        """An instruction fetch aborted."""
        return self.exception_class in _INSTRUCTION_ABORTS

    @property
    def status(self) -> int | None:
        """FSC, None for no abort."""
        return self.value & 0x3F if self.is_abort else None

    @property
    def fault(self) -> Fault | None:
        """The kind of abort, None for none."""
        status = self.status
        if status is None:
            return None
        by_level = next((fault for first, last, _, fault in _BY_LEVEL if first <= status <= last), None)
        return by_level or _SINGLE.get(status, Fault.OTHER)

    @property
    def level(self) -> int | None:
        """The Arm level whose entry faulted, None where the code names none."""
        status = self.status
        if status is None:
            return None
        return next((status - first + base for first, last, base, _ in _BY_LEVEL if first <= status <= last), None)

    @property
    def write(self) -> bool | None:
        """WnR; None for what is not a data abort, and for cache maintenance, which always sets it."""
        if self.exception_class not in _DATA_ABORTS or self.value >> 8 & 1:
            return None
        return bool(self.value >> 6 & 1)

    def __str__(self) -> str:
        if self.fault is None:
            return "SError" if self.is_serror else f"exception class {self.exception_class:#x}"
        level = "" if self.level is None else f"level {self.level} "
        return f"{level}{self.fault}" + {None: "", True: " on a write", False: " on a read"}[self.write]
