"""Recognise dumps that are not arm64 kernel page tables, and say what to collect instead.

Other architectures print with the same mm/ptdump.c (arch/{x86,riscv,powerpc,s390,arm}/mm), and arm64 itself prints
firmware and stage-2 tables in the same grammar (drivers/firmware/efi, arch/arm64/kvm/ptdump.c).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from parsers.errors import ArchitectureError, FormatError, WrongFormatError
from parsers.expressions import expression
from parsers.ptdump.pieces import Text
from parsers.ptdump.rows import Rows, below_kernel_half

__all__ = ["SNIFFED", "looks_like", "refuse_binary", "refuse_by_rows", "refuse_by_text", "refuse_hidden_addresses"]

SNIFFED = 1 << 16
"""Bytes from the start of a text that are looked at before it is read."""

_IS_CONTROL = np.arange(256) < 0x20
_IS_CONTROL[list(b"\t\n\r\x1b")] = False

_COLLECT = "collect /sys/kernel/debug/kernel_page_tables of the arm64 machine, as root"

# No row is longer than 300 bytes: what is searched within one ends there, else a line of rows would take forever.
_RANGE = rb"(?:0x)?[0-9a-fA-F]{8,16}-(?:0x)?[0-9a-fA-F]{8,16}\s+"
_ANY_ROW = expression(_RANGE + rb"(?:0x[0-9a-fA-F]+\s+)?\d+[BKMGTPE](?=\s|$)", re.MULTILINE)
_ANY_MARKER = expression(
    rb"---\[ (?:Linear Mapping|Modules|vmalloc\(\)|vmemmap|Kasan shadow|Fixmap|Guest IPA|UEFI runtime)[^\]\n]* \]---"
)
_ARM64_ROW = expression(
    rb"0xfff[0-9a-f]{13}-0x[0-9a-f]{16}\s+\d+[KMGTPE](?:\s+(?:PGD|P4D|PUD|PMD|PTE)(?:\s*$|\s)|\s.{0,300}\b(?:MEM|DEVICE)/)",
    re.MULTILINE,
)


_STAGE_2 = "a stage-2 page-table dump (a guest's memory)"
_FIRMWARE = "efi_page_tables, the firmware's page tables"


class _Kind(NamedTuple):
    sign: re.Pattern[bytes]
    what: str
    error: type[WrongFormatError] = ArchitectureError


def _rows_with(rest: bytes) -> re.Pattern[bytes]:
    return expression(_RANGE + rest, re.MULTILINE)


_KINDS = (
    _Kind(expression(rb"---\[ (?:Guest IPA|IPA start) \]---"), _STAGE_2, WrongFormatError),
    _Kind(_rows_with(rb"\d+[KMGTPE] [0-4](?:\s|$)"), _STAGE_2, WrongFormatError),
    _Kind(expression(rb"---\[ UEFI runtime start \]---"), _FIRMWARE, WrongFormatError),
    _Kind(
        _rows_with(rb"0x[0-9a-f]+\s+\d+[KMGTPE]\s.{0,300}\b(?:valid|present|pte|dirty)\b"), "a powerpc page-table dump"
    ),
    _Kind(_rows_with(rb"0x[0-9a-f]+\s+\d+[KMGTPE]\s"), "a riscv page-table dump"),
    _Kind(
        _rows_with(rb"\d+[KMGTPE]\s.{0,300}(?:\b(?:PSE|GLB|PCD|PWT)\b|\b(?:pgd|p4d|pud|pmd|pte)\s*$)"),
        "an x86 page-table dump",
    ),
    _Kind(expression(rb"---\[ (?:Low Kernel|High Kernel|User Space|Kernel Space|ESPfix)\b"), "an x86 page-table dump"),
    _Kind(expression(rb"(?<![0-9a-f])0x[0-9a-f]{8}-0x[0-9a-f]{8}\s+\d+[KMGT]\s"), "a 32-bit Arm page-table dump"),
    _Kind(_rows_with(rb"\d+[KMGTPE] (?:PGD|P4D|PUD|PMD|PTE) (?:I|R[WO] N?X)\s*$"), "an s390 page-table dump"),
)

_ZERO_ADDRESSES = expression(rb"(?:0x)?0{16}-(?:0x)?0{16}\s")
_HASHED_ADDRESSES = expression(rb"(?:0x)?0{8}[0-9a-f]{8}-(?:0x)?0{8}[0-9a-f]{8}\s+\d+[KMGTPE]\s")


def looks_like(data_prefix: bytes) -> bool:
    """Whether a text that begins with ``data_prefix`` holds a page-table dump, of whatever tables.

    True for foreign dumps as well: `parsers.ptdump.parse` then says what they are.
    """
    sample = data_prefix[:SNIFFED].replace(b"\xc2\xa0", b" ")
    return bool(_ANY_ROW.search(sample) or _ANY_MARKER.search(sample))


def refuse_binary(text: Text, path: str) -> None:
    """FormatError for data that is not text."""
    sample = text.head(SNIFFED)
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError("UTF-16 text: convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)", path=path, offset=0)
    control = np.flatnonzero(_IS_CONTROL[np.frombuffer(sample, np.uint8)])
    if control.size * 64 > len(sample):
        raise FormatError("binary data, not the text of a page-table dump", path=path, offset=int(control[0]))


def refuse_by_text(text: Text, path: str, first_line: int = 1) -> None:
    """WrongFormatError where a text begins with rows of something else and has no rows of an arm64 kernel."""
    sample = text.head(SNIFFED)
    if _ARM64_ROW.search(sample):
        return
    for kind in _KINDS:
        if (found := kind.sign.search(sample)) and not text.holds(_ARM64_ROW, SNIFFED):
            line = sample.count(b"\n", 0, found.start()) + first_line
            raise kind.error(f"this is {kind.what}; {_COLLECT}", path=path, line=line)


def refuse_hidden_addresses(bad_lines: list[bytes], path: str) -> None:
    """WrongFormatError where unusable rows have addresses of 0, or hashes for addresses."""
    for pattern, what in ((_ZERO_ADDRESSES, "are all 0"), (_HASHED_ADDRESSES, "are hashed")):
        if any(pattern.search(line) for line in bad_lines):
            message = f"the addresses {what} (%pK on kernels before 4.15): set kernel.kptr_restrict=0 and {_COLLECT}"
            raise WrongFormatError(message, path=path)


def refuse_by_rows(rows: Rows, markers: set[str], path: str) -> None:
    """WrongFormatError where no row is in an arm64 kernel's half."""
    if len(rows) and below_kernel_half(rows).all():
        what = (
            _FIRMWARE
            if any("UEFI" in each for each in markers)
            else ("a dump of tables below the kernel's half (a process, firmware, a guest or another architecture)")
        )
        raise WrongFormatError(f"this is {what}; {_COLLECT}", path=path, line=int(rows.line[0]))
