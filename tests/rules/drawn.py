"""Synthetic machines for boundary tests: what the kernel would print of memory that no capture shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from analyzer.audit import Report, audit
from analyzer.sources.read import Request
from rules.engine import Verdict
from tests.rules.logs import STEPS

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LINEAR, VMEMMAP, VMEMMAP_END = 0xFFFF000000000000, 0xFFFFFDFFC0000000, 0xFFFFFFFFC0000000
RAM = 0x40000000
"""PHYS_OFFSET: pages are not numbered from the start of any area."""
SPANS = {"PTE": 4 * KIB, "PMD": 2 * MIB, "PUD": GIB, "PGD": 512 * GIB}
NORMAL = "RW NX SHD AF            UXN    MEM/NORMAL"
BLOCK = "RW NX SHD AF        BLK UXN    MEM/NORMAL"
CONT = "RW NX SHD AF    CON     UXN    MEM/NORMAL"
CONT_BLOCK = "RW NX SHD AF    CON BLK UXN    MEM/NORMAL"
READ_ONLY = "ro NX SHD AF            UXN    MEM/NORMAL"

Row = tuple[int, int, str, str]
"""Start and end (physical or virtual addresses), level, attributes: none for an empty entry."""


@dataclass(frozen=True)
class Drawn:
    """A machine of 4K pages and 48 bits; physical ranges in ``linear``, ``pages`` and ``iomem``."""

    linear: tuple[Row, ...] = ((RAM, RAM + GIB, "PUD", BLOCK),)
    pages: tuple[Row, ...] = ((RAM, RAM + GIB, "PMD", BLOCK),)
    """What maps the struct pages of a range."""
    iomem: tuple[tuple[int, int, str], ...] = ((RAM, RAM + GIB, "System RAM"),)
    boot: tuple[tuple[int, int], ...] = ((RAM, RAM + GIB),)
    """What the boot log says was there."""
    dmesg: str = ""
    release: str = "6.12.5"
    struct_page: int = 64
    files: dict[str, str] = field(default_factory=dict)
    """Other files, or others in their place; of an empty one there is none."""

    def audit(self, folder: Path) -> Report:
        """Written down and audited."""
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        texts = {
            "kernel_page_tables": self.dump(),
            "iomem": "".join(f"{lo:08x}-{hi - 1:08x} : {what}\n" for lo, hi, what in self.iomem),
            "dmesg": self.log(),
            "uname": f"Linux host {self.release} #1 SMP aarch64 GNU/Linux\n",
            "vmcoreinfo": self.vmcoreinfo(RAM),
        }
        for name, text in (texts | self.files).items():
            if text:
                (folder / name).write_text(text)
        return audit(Request((folder,)))

    def verdict(self, folder: Path, code: str) -> Verdict:
        """What one rule says."""
        return next(one for one in self.audit(folder).verdicts if one.rule.code == code)

    def dump(self) -> str:
        """/sys/kernel/debug/kernel_page_tables."""
        linear = [(LINEAR + lo - RAM, LINEAR + hi - RAM, level, what) for lo, hi, level, what in self.linear]
        pages = [(self.struct_page_of(lo), self.struct_page_of(hi), level, what) for lo, hi, level, what in self.pages]
        areas = (
            ("Linear Mapping", LINEAR, 0xFFFF800000000000, linear),
            ("vmalloc() area", 0xFFFF800080000000, VMEMMAP, []),
            ("vmemmap", VMEMMAP, VMEMMAP_END, pages),
        )
        lines, at = [], LINEAR
        for name, start, end, rows in areas:
            lines += [
                *_holes(at, start),
                f"---[ {name} start ]---",
                *_filled(rows, start, end),
                f"---[ {name} end ]---",
            ]
            at = end
        return "\n".join(lines) + "\n"

    def struct_page_of(self, pa: int) -> int:
        """Virtual address of the struct page of a physical address."""
        return VMEMMAP + (pa - RAM) // 4096 * self.struct_page

    def vmcoreinfo(self, phys_offset: int) -> str:
        """What the kernel exports about itself."""
        return (
            f"OSRELEASE={self.release}\nPAGESIZE=4096\nNUMBER(VA_BITS)=48\nNUMBER(TCR_EL1_T1SZ)=0x10\n"
            f"NUMBER(PHYS_OFFSET)={phys_offset:#x}\nSIZE(page)={self.struct_page}\nNUMBER(SECTION_SIZE_BITS)=27\n"
        )

    def log(self) -> str:
        """The kernel log."""
        said = [f"Linux version {self.release} (gcc) #1 SMP", "Early memory node ranges"]
        said += [f"  node   0: [mem {lo:#018x}-{hi - 1:#018x}]" for lo, hi in self.boot]
        said += ["Kernel command line: console=ttyAMA0", *STEPS]
        return "".join(f"[    0.000000] {line}\n" for line in said) + self.dmesg


def memory_blocks(online: tuple[int, ...], offline: tuple[int, ...] = (), size: int = 128 * MIB) -> str:
    """What sysfs says of memory blocks of these numbers."""
    states = [f"memory{one}/state:online\n" for one in online] + [f"memory{one}/state:offline\n" for one in offline]
    return f"block_size_bytes:{size:x}\n" + "".join(states)


def _filled(rows: list[Row], start: int, end: int) -> list[str]:
    lines, at = [], start
    for lo, hi, level, what in sorted(rows):
        lines += [*_holes(at, lo), _line(lo, hi, level, what)]
        at = hi
    return lines + _holes(at, end)


def _holes(start: int, end: int) -> list[str]:
    """Empty entries, each at the highest level that it fits."""
    lines: list[str] = []
    at, at_level, upto = start, "", start
    while upto < end:
        level = next(
            name for name, span in reversed(SPANS.items()) if (upto % span == 0 and upto + span <= end) or name == "PTE"
        )
        if level != at_level and upto > at:
            lines.append(_line(at, upto, at_level, ""))
            at = upto
        at_level, upto = level, upto + SPANS[level] * max(1, _fitting(upto, end, level))
    return [*lines, _line(at, end, at_level, "")] if end > at else lines


def _fitting(at: int, end: int, level: str) -> int:
    """Entries of a level up to the next entry of a higher one, or the end."""
    names = list(SPANS)
    above = SPANS[names[names.index(level) + 1]] if level != "PGD" else 1 << 60
    return (min(end, (at // above + 1) * above) - at) // SPANS[level]


def _line(start: int, end: int, level: str, what: str) -> str:
    size = end - start
    unit, letter = next((unit, letter) for unit, letter in ((GIB, "G"), (MIB, "M"), (KIB, "K")) if size % unit == 0)
    return f"0x{start:016x}-0x{end:016x} {size // unit:12d}{letter} {level:9} {what}".rstrip()
