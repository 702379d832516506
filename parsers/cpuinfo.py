"""``/proc/cpuinfo``, which shows the architecture of the machine.

Lines are those of c_show() in arch/*/kernel.  ``ptaudit collect`` counts equal lines: a number may stand before each.
"""

from __future__ import annotations

import re

from parsers.errors import ArchitectureError, Diagnostic, FormatError
from parsers.expressions import expression
from parsers.lines import text_of
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "CpuInfo", "looks_like_cpuinfo", "parse_cpuinfo"]

MAX_BYTES = 64 << 20  # x86 with 8192 CPUs is below 16 MiB

_COUNT = rb"^(?: *\d+ )?"
_ARM64 = expression(_COUNT + rb"CPU architecture\s*: (?:8|AArch64)\b", re.MULTILINE)
_FOREIGN = (
    (expression(_COUNT + rb"vendor_id\s*: IBM/S390", re.MULTILINE), "s390"),
    (expression(_COUNT + rb"vendor_id\s*: \w", re.MULTILINE), "x86"),
    (expression(_COUNT + rb"isa\s*: rv(?:32|64)", re.MULTILINE), "RISC-V"),
    (expression(_COUNT + rb"(?:cpu\s*: POWER\d|timebase\s*: \d)", re.MULTILINE), "PowerPC"),
    (expression(_COUNT + rb"CPU Family\s*: Loongson", re.MULTILINE), "LoongArch"),
    (expression(_COUNT + rb"cpu model\s*: MIPS", re.MULTILINE), "MIPS"),
    (expression(_COUNT + rb"CPU architecture\s*: [4-7]", re.MULTILINE), "32-bit Arm"),
)


@dataclass(frozen=True, kw_only=True)
class CpuInfo:
    r"""That the machine is arm64.

    >>> parse_cpuinfo(b"processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\n", "cpuinfo").path
    'cpuinfo'
    """

    path: str
    diagnostics: tuple[Diagnostic, ...] = ()


def looks_like_cpuinfo(head: bytes) -> bool:
    """Whether a file begins like ``/proc/cpuinfo`` of any architecture."""
    head = head[:4096]
    begins = head.startswith((b"processor\t", b"processor :", b"processor:"))
    return begins or _ARM64.search(head) is not None or _first(head) is not None


def parse_cpuinfo(data: bytes, path: str) -> CpuInfo:
    """Read ``/proc/cpuinfo``; ArchitectureError for that of another architecture, FormatError if it names none."""
    text = text_of(data, path, limit=MAX_BYTES, what="/proc/cpuinfo")
    found = _first(text)
    if found is not None:
        at, name = found
        raise ArchitectureError(f"the CPUs are {name}, not arm64", path=path, line=text.count(b"\n", 0, at) + 1)
    if not _ARM64.search(text):
        raise FormatError("no line 'CPU architecture: 8', no /proc/cpuinfo of arm64", path=path)
    return CpuInfo(path=path)


def _first(text: bytes) -> tuple[int, str] | None:
    """Where a line is of another architecture, and which; None in arm64's, and where nothing shows."""
    if _ARM64.search(text):
        return None
    found = ((match.start(), name) for shape, name in _FOREIGN if (match := shape.search(text)))
    return next(found, None)
