"""What one report of an arm64 kernel log says, and all reports of a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from parsers.errors import Diagnostic
from parsers.esr import Esr
from parsers.oops_fields import Address, Quote, Walk
from parsers.oops_starts import ReportKind
from parsers.records import dataclass

__all__ = ["Panic", "Report", "Reports"]

_GENERAL_REGISTERS = 30


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """One report.  A field that was not printed, or was lost, is None or empty."""

    kind: ReportKind
    line: int
    """1-based line on which it begins."""
    time: float | None
    headline: str
    """The message of its first line; a WARN's own words are in ``warning``."""
    warning: str = ""
    """What WARN() or VM_BUG_ON_PAGE() said, empty where it said nothing."""
    address: Address | None = None
    esr: Esr | None = None
    page_size: int | None = None
    va_bits: int | None = None
    """Bits in use (vabits_actual)."""
    user_table: bool = False
    pgd: int | None = None
    """Physical address of the top table (5.2 and later)."""
    walk: Walk | None = None
    between: bool = False
    """The kernel says that the address is between user and kernel addresses."""
    nested: tuple[int, ...] = ()
    """Addresses at which the kernel faulted again while it printed the walk."""
    cpu: int | None = None
    pid: int | None = None
    comm: str = ""
    taint: str = ""
    """Letters, empty for a kernel that is not tainted or does not say."""
    release: str = ""
    """As in ``uname -r``, and after a blank what the report has of ``uname -v``."""
    pc: str = ""
    """``memunmap_pages+0x1a8/0x2a8``."""
    module: str = ""
    """The module that ``pc`` is in; empty for the kernel image."""
    image_pc: int | None = None
    """Address of ``pc``, which kernels before 4.17 print."""
    lr: str = ""
    place: str = ""
    """``mm/memremap.c:153`` of a WARN or BUG."""
    pfn: int | None = None
    page: int | None = None
    """Address of the struct page of ``pfn`` (``page:… pfn:…`` of a page dump)."""
    page_flags: tuple[str, ...] = ()
    """Flags of that page: ``reserved``, ``zone=4`` …"""
    trace: tuple[str, ...] = ()
    """Functions, innermost first, without offsets."""
    registers: Mapping[str, int] = field(default_factory=dict)
    text: str = ""
    """The whole of it, without the lines of other tasks."""
    complete: bool = False
    """Its last line is there."""
    repeats: int = 0
    """How often the log holds the same report again."""
    quotes: Mapping[str, Quote] = field(default_factory=dict)
    """Where each field was read: by field name, ``trace``, and ``start`` for the first line."""

    @property
    def function(self) -> str:
        """Where it happened, without the offset."""
        return self.pc.partition("+")[0]

    def passes(self, *names: str) -> str:
        """The first function of the report that begins with one of ``names``; empty if none does."""
        functions = (self.function, self.lr.partition("+")[0], *self.trace)
        return next((one for one in functions if one.startswith(names)), "")

    @property
    def is_torn(self) -> bool:
        """Lines are missing inside of it: the registers or some of them, or the walk of an address.

        arch/arm64/kernel/process.c __show_regs() prints pc, lr and x29 to x0, arch/arm64/mm/fault.c show_pte() two
        lines.
        """
        general = sum(name[0] == "x" for name in self.registers)
        walk = self.pgd is not None and self.walk is None
        nowhere = self.kind is ReportKind.ABORT and not self.pc
        return 0 < general < _GENERAL_REGISTERS or (self.complete and (walk or nowhere))

    @property
    def is_idle(self) -> bool:
        """The idle task of a CPU was interrupted, or the boot CPU has not got further."""
        return self.pid == 0 or self.comm == "swapper"

    @property
    def is_boot(self) -> bool:
        """The kernel was still booting: before its first process, or in the initcalls of what is built in."""
        return (
            bool(self.passes("start_kernel", "setup_arch", "kernel_init_freeable"))
            or self.comm == "swapper"
            or (self.comm == "swapper/0" and self.pid == 1)
            or self.time == 0
        )


@dataclass(frozen=True, slots=True)
class Panic:
    """What the panic notifier printed: the kernel image's offset, PHYS_OFFSET; None for what the line does not say."""

    line: int
    text: str
    kernel_offset: int | None
    phys_offset: int | None
    image: int | None = None
    """Where the kernel image begins, if the line says how far it was moved."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reports:
    """All reports of a log, in its order."""

    path: str
    reports: tuple[Report, ...]
    panics: tuple[Panic, ...]
    headless: tuple[int, ...] = ()
    """Lines of reports whose beginning is not in the log."""
    diagnostics: tuple[Diagnostic, ...] = ()

    def between(self, first: int, end: int) -> Reports:
        """Those that begin on lines from ``first`` up to ``end``."""
        return replace(
            self,
            reports=tuple(one for one in self.reports if first <= one.line < end),
            headless=tuple(line for line in self.headless if first <= line < end),
        )
