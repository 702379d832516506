"""Kernel logs of other architectures, told by what only their kernels print.

From arch/*/kernel/traps.c, process.c, arch/*/mm/fault.c (4.4 to 6.18).
"""

from __future__ import annotations

import re

__all__ = ["FOREIGN_WORDS", "foreign_architecture"]

# Fixed words, what must surround them, and whose they are.
_FOREIGN: tuple[tuple[bytes, bytes, str], ...] = (
    (b"RIP: 00", rb"RIP: 00[0-9a-f]{2}:", "x86-64"),
    (b"BIOS-provided physical RAM map", b"", "x86"),
    (b"BIOS-e820: ", b"", "x86"),
    (b"unable to handle page fault for address", b"", "x86"),
    (b"EIP: 00", rb"EIP: 00[0-9a-f]{2}:", "x86"),
    (b"badaddr: ", rb"badaddr: [0-9a-f]{8,16} cause: |badaddr: [0-9a-f]{8,16}$", "RISC-V"),
    (b"epc : ", rb"epc : [0-9a-f]{8,16}\s{1,3}(?: *ra : |$)|epc : [A-Za-z_][\w.]*\+0x", "RISC-V"),
    (b"SBI specification v", b"", "RISC-V"),
    (b"NIP [c0", rb"NIP \[c0[0-9a-f]{6,14}\]", "PowerPC"),
    (b"NIP:  c0", b"", "PowerPC"),
    (b"Oops: Kernel access of bad area", b"", "PowerPC"),
    (b"Krnl PSW : ", b"", "s390"),
    (b", era == ", b"", "LoongArch"),
    (b", epc == ", b"", "MIPS"),
    (b" ARM\n", rb" ARM$", "32-bit Arm"),
    (b" THUMB2\n", rb" THUMB2$", "32-bit Arm"),
)
FOREIGN_WORDS: tuple[bytes, ...] = tuple(words for words, _, _ in _FOREIGN)
_SHAPES = tuple(re.compile(shape or re.escape(words), re.MULTILINE) for words, shape, _ in _FOREIGN)
_OOPS_32 = re.compile(rb"Internal error: [^\n]{0,120}\] (?:PREEMPT |SMP ){0,2}(?:ARM|THUMB2)$", re.MULTILINE)

_ARM64 = re.compile(
    rb"(?:swapper|user) pgtable: \d+k pages|pstate: ?[0-9a-f]{8}|\bx29: ?[0-9a-f]{16}|\bESR = 0x|\(current EL\)"
    rb"|aarch64|arm64|ARM64|, code 0x[0-9a-f]{8,16} -- |\[#\d+\] (?:PREEMPT |SMP ){0,2}\n[^\n]{0,60}Modules"
)


def foreign_architecture(data: bytes, places: list[tuple[int, int]]) -> tuple[int, str] | None:
    """Where a log shows that its kernel is not arm64's, and whose it is; None where it does not.

    ``places`` are the offsets of FOREIGN_WORDS by number.  A log that also holds what an arm64 kernel prints is that
    one's: the other may be of a guest, or quoted.
    """
    for at, number in places:
        end = data.find(b"\n", at)
        line_end = len(data) if end < 0 else end
        found = _SHAPES[number].match(data, at, min(line_end, at + 400))
        arm = _FOREIGN[number][2] == "32-bit Arm"
        if arm:
            found = _OOPS_32.search(data, max(data.rfind(b"\n", max(0, at - 400), at), 0), min(line_end, at + 40))
        if found is not None:
            return None if _ARM64.search(data) else (at, _FOREIGN[number][2])
    return None
