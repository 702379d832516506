"""A dump as the rest of this package reads it: physical and virtual memory, symbols, types.

All reads go through one :class:`~parsers.vmcore.memory.PhysicalMemory`, drgn's too, so that what is read can be
recorded.
Virtual addresses of the linear map and the kernel image are translated by arithmetic, others by the page tables.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from parsers.errors import Diagnostic, FormatError, InputError, MissingDependencyError, PtauditError, WrongFormatError
from parsers.mapping import U64, Bool
from parsers.vmcore.addresses import MASK, AddressMap
from parsers.vmcore.btf import Btf
from parsers.vmcore.container import open_plain
from parsers.vmcore.kallsyms import SymbolAddress, kallsyms, system_map
from parsers.vmcore.memory import MissingMemoryError, PhysicalMemory
from parsers.vmcore.opening import RawDump
from parsers.vmcore.pagetable import Step, explain

if TYPE_CHECKING:
    import drgn

__all__ = ["GLOBALS", "Dump"]

GLOBALS: dict[str, str] = {
    "bus_kset": "struct kset *",
    "contig_page_data": "struct pglist_data",
    "hstates": "struct hstate []",
    "hugetlb_max_hstate": "int",
    "kernel_ptdump_info": "struct ptdump_info",
    "memory_blocks": "struct xarray",
    "memory_subsys": "struct bus_type",
    "node_data": "struct pglist_data *[]",
    "sections_per_block": "unsigned long",
    "vmemmap_optimize_enabled": "_Bool",
}
"""C types of the globals that are read: BTF describes types, and variables only where they are per CPU."""

_MAX_BTF = 256 << 20
T = TypeVar("T")
_CACHED_PAGES = 512
_NOTE_GNU_BUILD_ID = "NT_GNU_BUILD_ID"

_SHADOW_SCALES = {"__asan_load8_noabort": 3, "__hwasan_load8_noabort": 4}  # mm/kasan/generic.c, mm/kasan/sw_tags.c


class Dump:
    """One opened dump, with what is known of the kernel in it.

    Raises FormatError or InputError for a ``vmlinux`` or ``system_map`` that does not fit, MissingDependencyError
    without drgn; what the dump itself lacks becomes a diagnostic.
    """

    def __init__(
        self,
        raw: RawDump,
        *,
        memory: PhysicalMemory | None = None,
        vmlinux: Path | None = None,
        system_map_path: Path | None = None,
    ) -> None:
        self.path = raw.path
        self.vmcoreinfo = raw.vmcoreinfo
        self.memory = raw.memory if memory is None else memory
        self.addresses = AddressMap.from_vmcoreinfo(raw.vmcoreinfo)
        self.diagnostics: list[Diagnostic] = [*raw.diagnostics, *raw.vmcoreinfo.diagnostics]
        self._page = lru_cache(maxsize=_CACHED_PAGES)(self._read_page)
        self.prog = self._program(raw.vmcoreinfo_bytes)
        self._has_vmlinux = vmlinux is not None
        if vmlinux is not None:
            self._load_vmlinux(vmlinux)
        self._symbols = self._find_symbols(system_map_path)
        self._bound_image()
        self._bound_linear_map()
        self._btf = self._load_btf()
        self.types = self._register()
        """Where structures are known from: ``debuginfo``, ``BTF`` or ``VMCOREINFO``."""

    # Memory ---------------------------------------------------------------------------------------------------------

    def physical(self, va: U64) -> tuple[U64, Bool]:
        """Physical addresses of kernel virtual addresses and which are known; each page is translated once."""
        pa, known = self.addresses.physical(va)
        rest = np.flatnonzero(~known)
        if rest.size:
            page = np.uint64(self.addresses.granule.page_size - 1)
            canonical = self.addresses.canonical(va[rest])
            pages, where = np.unique(canonical & ~page, return_inverse=True)
            frames = np.array([self._walked(int(item)) for item in pages.tolist()], dtype=np.int64)[where]
            pa[rest] = np.where(frames < 0, np.uint64(0), frames.astype(np.uint64) + (canonical & page))
            known[rest] = frames >= 0
        return pa, known

    def _walked(self, va: int) -> int:
        """Physical address of a page by the page tables; -1 if it has none."""
        if not va >> 63:
            return -1
        last = explain(self.memory, self.addresses, va)[-1]
        return last.output if last.output is not None else -1

    def explain(self, va: int) -> list[Step]:
        """The walk of one address, see :func:`parsers.vmcore.pagetable.explain`."""
        return explain(self.memory, self.addresses, va & MASK)

    def read(self, va: int, size: int) -> bytes:
        """``size`` bytes at a virtual address; MissingMemoryError when any are not mapped or not in the dump."""
        page = self.addresses.granule.page_size
        if not 0 <= size <= _MAX_BTF or not 0 <= va <= (1 << 64) - size:
            raise MissingMemoryError(f"no memory at {va:#x} (+{size:#x})", address=va)
        first = va & -page
        if va + size <= first + page:
            return self._page(first)[va - first : va - first + size]
        return b"".join(self._page(at) for at in range(first, va + size, page))[va - first : va - first + size]

    def _read_page(self, va: int) -> bytes:
        pa, known = self.physical(np.array([va], dtype=np.uint64))
        if not known[0]:
            raise MissingMemoryError(f"{va:#x} is not mapped, as far as the dump tells", address=va)
        return self.memory.read(int(pa[0]), self.addresses.granule.page_size)

    def string(self, va: int, limit: int = 256) -> bytes:
        """The NUL-terminated string at ``va``, of at most ``limit`` bytes."""
        page = self.addresses.granule.page_size
        text = b""
        while len(text) < limit and b"\0" not in text:
            at = va + len(text)
            text += self.read(at, page - at % page)
        return text[:limit].split(b"\0", 1)[0]

    def read_words(self, va: U64) -> tuple[U64, Bool]:
        """64-bit words at virtual addresses (multiples of 8): values (0 where unknown) and which are known."""
        pa, known = self.physical(va)
        known &= pa % np.uint64(8) == 0
        values = np.zeros(va.size, dtype=np.uint64)
        values[known], present = self.memory.read_words(pa[known])
        known[known] = present
        return values, known

    # Symbols and types ----------------------------------------------------------------------------------------------

    def symbol(self, name: str) -> int | None:
        """Run-time address of a symbol, or None."""
        if self._has_vmlinux:
            try:
                return int(self.prog.symbol(name).address)
            except LookupError:
                pass
        return self._symbols(name) if self._symbols is not None else None

    def offset(self, type_name: str, member: str) -> int | None:
        """Byte offset of a member of a structure, from types or VMCOREINFO; None if neither knows."""
        try:
            import drgn  # noqa: PLC0415

            return int(drgn.offsetof(self.prog.type(f"struct {type_name}"), member))
        except (LookupError, TypeError):
            return self.vmcoreinfo.offset(f"{type_name}.{member}")

    def size(self, type_name: str) -> int | None:
        """Bytes of a structure, from types or VMCOREINFO; None if neither knows."""
        try:
            import drgn  # noqa: PLC0415

            return int(drgn.sizeof(self.prog.type(f"struct {type_name}")))
        except (LookupError, TypeError):
            return self.vmcoreinfo.size(type_name)

    def member_size(self, type_name: str, member: str) -> int | None:
        """Bytes of a member; None if there are no types or no such member."""
        try:
            import drgn  # noqa: PLC0415

            return int(drgn.sizeof(self.prog.type(f"struct {type_name}").member(member).type))
        except (LookupError, TypeError):
            return None

    def enumerator(self, name: str) -> int | None:
        """Value of an enumerator; None if no types know it."""
        try:
            return int(self.prog.constant(name))
        except LookupError:
            return None

    @cached_property
    def has_types(self) -> bool:
        """Whether the kernel's structures are known, from debuginfo or BTF."""
        return self.member_size("mem_section", "section_mem_map") is not None

    def say(self, message: str) -> None:
        """Add a diagnostic."""
        self.diagnostics.append(Diagnostic(message, self.path))

    # Setting up -----------------------------------------------------------------------------------------------------

    def _program(self, vmcoreinfo: bytes) -> drgn.Program:
        try:
            import drgn  # noqa: PLC0415  # not installable everywhere
        except ImportError as error:
            raise MissingDependencyError("reading a dump needs drgn, which is not installed", path=self.path) from error
        logging.getLogger("drgn").addHandler(logging.NullHandler())  # what drgn warns of is a diagnostic here
        vmcoreinfo = vmcoreinfo.decode("ascii", "replace").replace("\ufffd", "?").encode()
        flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
        try:
            prog = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64, flags), vmcoreinfo=vmcoreinfo)
            prog.set_linux_kernel_custom(vmcoreinfo, False)
        except (drgn.BadDataError, ValueError, LookupError) as error:
            raise FormatError(f"VMCOREINFO is not usable: {error}", path=self.path) from error

        def read(address: int, count: int, _offset: int, physical: bool) -> bytes:
            try:
                return self.memory.read(address, count) if physical else self.read(address, count)
            except MissingMemoryError as error:
                raise drgn.FaultError(error.message, address) from error

        prog.add_memory_segment(0, 1 << 52, read, True)
        prog.add_memory_segment(0, MASK, read, False)
        return prog

    def _load_vmlinux(self, path: Path) -> None:
        import drgn  # noqa: PLC0415

        with open_plain(path) as stream:
            _check_vmlinux(stream, str(path), self.vmcoreinfo.build_id)
            try:
                self.prog.load_debug_info([f"/proc/self/fd/{stream.fileno()}"])  # unpacked files have no other name
            except (drgn.MissingDebugInfoError, drgn.BadDataError, LookupError, ValueError, OSError) as error:
                raise InputError(f"drgn cannot use this vmlinux: {error}", path=str(path)) from error

    def _find_symbols(self, path: Path | None) -> SymbolAddress | None:
        if path is not None:
            with open_plain(path) as stream:
                return system_map(stream.read(64 << 20), self.vmcoreinfo, str(path))
        try:
            found = kallsyms(self.prog, self.vmcoreinfo)
        except FormatError as error:
            self.say(error.message)
            found = None
        if found is None and not self._has_vmlinux:
            self.say(
                "no symbols: VMCOREINFO names no kallsyms (before 6.0) and neither vmlinux nor System.map is given"
            )
        return found

    def _bound_image(self) -> None:
        """Learn the true end of the kernel image: what follows it is vmalloc space, mapped by tables only."""
        start, end = self.symbol("_text"), self.symbol("_end")
        if start is not None and end is not None and start < end:
            self.addresses = self.addresses.with_image(start, end)
            self._page.cache_clear()

    def _bound_linear_map(self) -> None:
        """Cut off KASAN's shadow, which shows in the functions that instrumented code calls."""
        scale = next((scale for name, scale in _SHADOW_SCALES.items() if self.symbol(name) is not None), None)
        release = re.match(r"(\d{1,3})\.(\d{1,3})", self.vmcoreinfo.osrelease or "")
        if scale is not None and release is not None and (int(release[1]), int(release[2])) >= (5, 11):
            self.addresses = self.addresses.below_shadow(scale)
            self._page.cache_clear()

    def _load_btf(self) -> Btf | None:
        start, stop = self.symbol("__start_BTF"), self.symbol("__stop_BTF")
        why = "the kernel has none"
        if start is not None and stop is not None and 0 < stop - start <= _MAX_BTF:
            try:
                return Btf(self.read(start, stop - start), self.path)
            except (FormatError, MissingMemoryError) as error:
                why = error.message
        if self._symbols is not None and not self._has_vmlinux:
            self.say(f"no BTF ({why}): structures are known from VMCOREINFO only")
        return None

    def _register(self) -> str:
        """Let drgn find types and globals: debuginfo first where there is any, then BTF, then the table above."""
        import drgn  # noqa: PLC0415

        btf = self._btf
        if btf is None and not self._has_vmlinux:
            self._find_debuginfo()
        known = self.member_size("mem_section", "section_mem_map") is not None
        if self._has_vmlinux and not known:
            self.say("this vmlinux has no debuginfo")
        if btf is not None:
            self.prog.register_type_finder("btf", btf.type_finder, enable_index=-1)

        def find(
            prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None
        ) -> drgn.Object | None:
            if flags & drgn.FindObjectFlags.VARIABLE and name in GLOBALS:
                address = self.symbol(name)
                try:
                    return None if address is None else drgn.Object(prog, GLOBALS[name], address=address)
                except LookupError:
                    return None
            if btf is not None and flags & drgn.FindObjectFlags.CONSTANT and filename is None:
                return btf.constant(prog, name)
            return None

        self.prog.register_object_finder("ptaudit", find, enable_index=-1)
        return "debuginfo" if known else "BTF" if btf is not None else "VMCOREINFO"

    def _find_debuginfo(self) -> None:
        """Debuginfo of this build that is installed here; nothing is downloaded, and there need not be any."""
        import drgn  # noqa: PLC0415

        try:
            self.prog.set_enabled_debug_info_finders(["standard"])
            self.prog.load_debug_info(main=True)
        except (drgn.MissingDebugInfoError, LookupError, ValueError, OSError):
            return

    def attempt(self, what: str, function: Callable[[], T]) -> T | None:
        """The result of ``function``, or None and a diagnostic where the dump, its symbols or types lack something."""
        import drgn  # noqa: PLC0415

        try:
            return function()
        except (drgn.FaultError, drgn.BadDataError, drgn.OutOfBoundsError, MissingMemoryError, FormatError) as error:
            self.say(f"{what}: {error.message if isinstance(error, PtauditError) else error}")
        except (LookupError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
            self.say(f"{what}: not found ({error})")
        return None


def _check_vmlinux(stream: BinaryIO, path: str, build_id: str | None) -> None:
    """An arm64 ELF file of the build that the dump is of; InputError with both ids otherwise."""
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  # heavy

    try:
        elf: Any = ELFFile(stream)
        machine = elf.header.e_machine
        notes = [note for segment in elf.iter_segments("PT_NOTE") for note in segment.iter_notes()]
        notes += [note for section in elf.iter_sections("SHT_NOTE") for note in section.iter_notes()]
        ids = [note.n_desc for note in notes if note.n_type == _NOTE_GNU_BUILD_ID]
    except Exception as error:  # pyelftools raises whatever its own parsing trips over
        raise FormatError(f"no usable ELF file: {error or type(error).__name__}", path=path) from error
    if machine != "EM_AARCH64":
        raise WrongFormatError(f"this vmlinux is for {machine}, not for arm64", path=path)
    if not ids:
        raise InputError("this vmlinux has no build-id, so it cannot be told whether it fits", path=path)
    if build_id is not None and ids[0] != build_id:
        raise InputError(f"this vmlinux has build-id {ids[0]}, the dump is of {build_id}", path=path)
