"""Evidence of other architectures, recognised by what only their kernels print.

Logs: arch/*/kernel/traps.c, process.c, setup.c, arch/*/mm/fault.c (4.4 to 6.18).  Resources:
arch/x86/kernel/probe_roms.c, arch/x86/kernel/apic, arch/riscv/kernel/setup.c.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from parsers.expressions import expression

__all__ = ["FOREIGN_WORDS", "foreign_architecture", "foreign_resource"]

# Fixed words, what the line that holds them must look like, and whose it is.
_FOREIGN: tuple[tuple[bytes, bytes, str], ...] = (
    (b"RIP: 00", rb"RIP: 00[0-9a-f]{2}:", "x86-64"),
    (b"BIOS-provided physical RAM map", b"", "x86"),
    (b"BIOS-e820: ", b"", "x86"),
    (b"unable to handle page fault for address", b"", "x86"),
    (b"x86/fpu: ", b"", "x86"),
    (b".x86_64 (", rb"Linux version \S{1,100}\.x86_64 \(", "x86-64"),
    (b"-amd64 (", rb"Linux version \S{1,100}-amd64 \(", "x86-64"),
    (b"EIP: 00", rb"EIP: 00[0-9a-f]{2}:", "x86"),
    (b"badaddr: ", rb"status: [0-9a-f]{16} badaddr: [0-9a-f]{16}", "RISC-V"),
    (b"epc : ", rb"epc : [0-9a-f]{16}|epc : [A-Za-z_][\w.]*\+0x", "RISC-V"),
    (b"SBI specification v", b"", "RISC-V"),
    (b"riscv: base ISA extensions", b"", "RISC-V"),
    (b".riscv64 (", rb"Linux version \S{1,100}\.riscv64 \(", "RISC-V"),
    (b"NIP [c0", rb"NIP \[c0[0-9a-f]{6,14}\]", "PowerPC"),
    (b"NIP: ", rb"NIP:  ?c0[0-9a-f]{6,14}", "PowerPC"),
    (b"Oops: Exception in kernel mode", b"", "PowerPC"),
    (b"Oops: Kernel access of bad area", b"", "PowerPC"),
    (b"hash-mmu: ", b"", "PowerPC"),
    (b"radix-mmu: ", b"", "PowerPC"),
    (b".ppc64le (", rb"Linux version \S{1,100}\.ppc64le \(", "PowerPC"),
    (b".s390x (", rb"Linux version \S{1,100}\.s390x \(", "s390"),
    (b"Krnl PSW : ", rb"Krnl PSW : [0-9a-f]{16}", "s390"),
    (b", era == ", rb"at virtual address [0-9a-f]{16}, era == ", "LoongArch"),
    (b", epc == ", rb"at virtual address [0-9a-f]{8,16}, epc == ", "MIPS"),
    (b" ARM\n", rb"Internal error: .*\] (?:PREEMPT |SMP ){0,2}ARM$", "32-bit Arm"),
    (b"from [<", rb"\w\)? from \[<[0-9a-f]{8}>\]", "32-bit Arm"),
    (b"[<", rb"\[<[0-9a-f]{8}>\] (?:\? )?[A-Za-z_][\w.]*\+0x", "a 32-bit machine"),
    (b"[<ffffffff8", rb"\[<ffffffff8[0-9a-f]{7}>\]", "x86-64 or RISC-V"),
    (b"Call Trace:", rb"Call Trace:[ \t]*$", "another architecture"),  # arm64 prints "Call trace:"
    (b" THUMB2\n", rb"Internal error: .*\] (?:PREEMPT |SMP ){0,2}THUMB2$", "32-bit Arm"),
)
FOREIGN_WORDS: tuple[bytes, ...] = tuple(words for words, _, _ in _FOREIGN)
_SHAPES = tuple(expression(shape or re.escape(words)) for words, shape, _ in _FOREIGN)
_AROUND = 200
MAX_PLACES = 10_000

_ARM64 = expression(
    rb"(?:swapper|user) pgtable: \d+k pages|\b(?:pc|lr) : [A-Za-z_][\w.]*\+0x"
    rb"|pstate: ?[0-9a-f]{8}|\bx29: ?[0-9a-f]{16}|\bESR = 0x|\(current EL\)"
    rb"|Booting Linux on physical CPU 0x[0-9a-f]{10}|Linux version \d[^\n]{0,400}aarch64|, code 0x[0-9a-f]{8,16} -- "
)


def foreign_architecture(data: bytes, places: Sequence[tuple[int, int]]) -> tuple[int, str] | None:
    """Where a log shows that its kernel is not arm64's, and whose it is; None where it does not.

    ``places`` are the offsets of FOREIGN_WORDS by number.  A log that also holds what an arm64 kernel prints is that
    one's: the other may be of a guest, or quoted.
    """
    for at, number in places[:MAX_PLACES]:
        start = max(data.rfind(b"\n", max(0, at - _AROUND), at) + 1, at - _AROUND, 0)
        line = data[start : at + _AROUND].partition(b"\n")[0]
        if _SHAPES[number].search(line):
            return None if _ARM64.search(data) else (at, _FOREIGN[number][2])
    return None


_RESOURCES = (
    (expression(rb": (?:Local APIC|IOAPIC \d+|HPET \d+|Video ROM|System ROM)$", re.MULTILINE), "x86"),
    (expression(rb": Kernel image$", re.MULTILINE), "RISC-V"),
)


def foreign_resource(iomem: bytes) -> tuple[int, str] | None:
    """Where ``/proc/iomem`` names a resource of another architecture, and which; None where it does not."""
    found = ((match.start(), name) for shape, name in _RESOURCES if (match := shape.search(iomem)))
    return next(found, None)
