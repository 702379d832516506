"""A dump as the rest of this package reads it: physical and virtual memory, symbols, types.

All reads go through one :class:`~parsers.vmcore.memory.PhysicalMemory`, drgn's too, so that what is read can be
recorded.  drgn is needed for the debuginfo of a vmlinux only (:mod:`parsers.vmcore.program`).
Virtual addresses of the linear map and the kernel image are translated by arithmetic, others by the page tables.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from parsers.errors import Diagnostic, FormatError, InputError, MissingDependencyError
from parsers.mapping import U64, Bool
from parsers.ranges import distinct
from parsers.vmcore.addresses import MASK, AddressMap
from parsers.vmcore.btf import BTF_HEADER_SIZE, Btf, btf_size
from parsers.vmcore.container import open_plain
from parsers.vmcore.explain import Step, explain
from parsers.vmcore.exports import EXPORTED, find_exports
from parsers.vmcore.kallsyms import Kallsyms, SymbolAddress, kallsyms, system_map
from parsers.vmcore.memory import MissingMemoryError, PhysicalMemory
from parsers.vmcore.opening import RawDump
from parsers.vmcore.types import Member, Structures
from parsers.vmcore.vmlinux import check_vmlinux

if TYPE_CHECKING:
    import drgn

    from parsers.vmcore.program import Debuginfo

__all__ = ["UNREADABLE", "Dump"]

_MAX_BTF = 256 << 20
_MIN_BTF = 64 << 10  # a kernel's is megabytes; a module's is less, and is not in the image
_BTF_START = 0x0001_EB9F  # magic, version, no flags (include/uapi/linux/btf.h)
_MAX_IMAGE = 512 << 20
_SEARCH_STEP = 4 << 20
_INTEGERS = (1, 2, 4, 8)
_DAMAGED = (MissingMemoryError, FormatError)
_UNKNOWN = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError)
UNREADABLE = (*_DAMAGED, *_UNKNOWN)
"""What reading a structure raises where the dump, its symbols or types lack something."""
T = TypeVar("T")
_CACHED_PAGES = 512

_SHADOW_SCALES = {"__asan_load8_noabort": 3, "__hwasan_load8_noabort": 4}  # mm/kasan/generic.c, mm/kasan/sw_tags.c


class Dump:
    """One opened dump, with what is known of the kernel in it.

    ``like`` is an earlier reading of the same running kernel, whose symbols and types are taken over.

    Raises FormatError or InputError for a ``vmlinux`` or ``system_map`` that does not fit, MissingDependencyError
    for a ``vmlinux`` without drgn; what the dump itself lacks becomes a diagnostic.
    """

    def __init__(
        self,
        raw: RawDump,
        *,
        memory: PhysicalMemory | None = None,
        vmlinux: Path | None = None,
        system_map_path: Path | None = None,
        like: Dump | None = None,
    ) -> None:
        self.path = raw.path
        self.vmcoreinfo = raw.vmcoreinfo
        self.vmcoreinfo_bytes = raw.vmcoreinfo_bytes
        self.memory = raw.memory if memory is None else memory
        self.addresses = AddressMap.from_vmcoreinfo(raw.vmcoreinfo)
        self.diagnostics: list[Diagnostic] = [*raw.diagnostics, *raw.vmcoreinfo.diagnostics]
        self.unreadable: dict[str, str] = {}
        """What is there and damaged, or lies in memory that is not in the dump, and why."""
        self._page = lru_cache(maxsize=_CACHED_PAGES)(self._read_page)
        self._is_of_image = False
        """Whether symbols and types are the kernel's own, which do not change while it runs."""
        if like is not None and like._is_of_image and like.vmcoreinfo_bytes == raw.vmcoreinfo_bytes:
            self._take_over(like)
            return
        self._debuginfo = None if vmlinux is None else self._load_debuginfo(vmlinux)
        self._symbols = self._find_symbols(system_map_path)
        self._bound_image()
        self._bound_linear_map()
        self._btf = self._load_btf()
        if self._btf is None and self._debuginfo is None:
            self._debuginfo = self._find_debuginfo()
        with_types = self._debuginfo if self._debuginfo is not None and self._debuginfo.known else None
        if self._debuginfo is not None and with_types is None and vmlinux is not None:
            self.say("this vmlinux has no debuginfo")
        self.structures = Structures([one for one in (with_types, self._btf) if one is not None], raw.vmcoreinfo)
        self._is_of_image = self._debuginfo is None
        self._said_of_image = tuple(self.diagnostics)

    def _take_over(self, like: Dump) -> None:
        self._debuginfo, self._symbols, self._btf = None, like._symbols, like._btf
        self.addresses, self.structures = like.addresses, like.structures
        self._is_of_image, self._said_of_image = True, like._said_of_image
        self.diagnostics = list(like._said_of_image)
        if "_exports" in like.__dict__:  # they were looked for
            self._exports = like._exports

    @property
    def types(self) -> str:
        """Where structures are known from: ``debuginfo``, ``BTF`` or ``VMCOREINFO``."""
        return self.structures.source

    @cached_property
    def prog(self) -> drgn.Program:
        """The dump as a drgn program; MissingDependencyError where drgn is not installed."""
        return self._drgn("a drgn program").program_of(self, self._debuginfo, self._btf)

    # Memory ---------------------------------------------------------------------------------------------------------

    def physical(self, va: U64) -> tuple[U64, Bool]:
        """Physical addresses of kernel virtual addresses and which are known; each page is translated once."""
        pa, known = self.addresses.physical(va)
        rest = np.flatnonzero(~known)
        if rest.size:
            page = np.uint64(self.addresses.granule.page_size - 1)
            canonical = self.addresses.canonical(va[rest])
            pages, where = np.unique(canonical & ~page, return_inverse=True)
            frames = np.array([self._walk(int(item)) for item in pages.tolist()], dtype=np.int64)[where]
            pa[rest] = np.where(frames < 0, np.uint64(0), frames.astype(np.uint64) + (canonical & page))
            known[rest] = frames >= 0
        return pa, known

    def _walk(self, va: int) -> int:
        """Physical address of a page by the page tables; -1 if it has none."""
        if not va >> 63:
            return -1
        last = explain(self.memory, self.addresses, va)[-1]
        return last.output if last.output is not None else -1

    def explain(self, va: int) -> list[Step]:
        """The walk of one address, see :func:`parsers.vmcore.explain.explain`."""
        return explain(self.memory, self.addresses, va & MASK)

    def read(self, va: int, size: int) -> bytes:
        """``size`` bytes at a virtual address; MissingMemoryError when any are not mapped or not in the dump."""
        page = self.addresses.granule.page_size
        if not 0 <= size <= _MAX_BTF or not 0 <= va <= (1 << 64) - size:
            raise MissingMemoryError(f"no memory at {va:#x} (+{size:#x})", address=va)
        first = va & -page
        if va + size <= first + page:
            return self._page(first)[va - first : va - first + size]
        return self._read_pages(first, -(-(va + size - first) // page))[va - first : va - first + size]

    def _read_page(self, va: int) -> bytes:
        pa, known = self.physical(np.array([va], dtype=np.uint64))
        if not known[0]:
            raise MissingMemoryError(f"{va:#x} is not mapped, as far as the dump shows", address=va)
        return self.memory.read(int(pa[0]), self.addresses.granule.page_size)

    def _read_pages(self, va: int, count: int) -> bytes:
        """Pages that follow each other, read at once and not cached."""
        page = self.addresses.granule.page_size
        pa, known = self.physical(va + np.arange(count, dtype=np.uint64) * np.uint64(page))
        data, present = self.memory.read_pages(pa[known], page)
        if known.all() and present.all():
            return data.tobytes()
        known[known] = present
        return self._read_page(va + int(np.argmin(known)) * page)  # raises, and says why

    def peek(self, va: int, size: int) -> bytes:
        """Up to ``size`` bytes at a virtual address, fewer where the dump has no more in a row; not recorded.

        For what ends somewhere in it: what is then used is to be read, so that a small core holds it.
        """
        page = self.addresses.granule.page_size
        first = va & -page
        pages = first + np.arange(-(-(va + size - first) // page), dtype=np.uint64) * np.uint64(page)
        pa, known = self.physical(pages)
        data, present = self.memory.unrecorded.read_pages(pa, page)
        missing = np.flatnonzero(~(known & present))
        end = int(missing[0]) * page if missing.size else data.size
        return data.reshape(-1)[va - first : min(end, va - first + size)].tobytes()

    def string(self, va: int, limit: int = 256) -> bytes:
        """The NUL-terminated string at ``va``, of at most ``limit`` bytes.

        MissingMemoryError where the dump lacks it, or has a page of zeros for it.
        """
        page = self.addresses.granule.page_size
        text = b""
        while len(text) < limit and b"\0" not in text:
            at = va + len(text)
            self._need_used(at)
            text += self.read(at, page - at % page)
        return text[:limit].split(b"\0", 1)[0]

    def read_words(self, va: U64, *, in_use: bool = False) -> tuple[U64, Bool]:
        """64-bit words at virtual addresses (multiples of 8): values (0 where unknown) and which are known.

        ``in_use`` as for `PhysicalMemory.read_words`.
        """
        pa, known = self.physical(va)
        known &= pa % np.uint64(8) == 0
        values = np.zeros(va.size, dtype=np.uint64)
        values[known], present = self.memory.read_words(pa[known], in_use=in_use)
        known[known] = present
        return values, known

    # Symbols and types ----------------------------------------------------------------------------------------------

    def symbol(self, name: str) -> int | None:
        """Run-time address of a symbol, or None."""
        found = None if self._debuginfo is None else self._debuginfo.symbol(name)
        if found is None and self._symbols is not None:
            found = self._symbols(name)
        return self._exports.get(name) if found is None and name in EXPORTED else found

    def symbol_at(self, va: int) -> tuple[str, int] | None:
        """The symbol that an address of the kernel image belongs to, and the offset from it; None without kallsyms."""
        end = self.symbol("_end")
        is_image = end is not None and self.addresses.image_start <= va < end
        return self.kallsyms.at(va) if is_image and self.kallsyms is not None else None

    @cached_property
    def _exports(self) -> dict[str, int]:
        """Exported variables, which are searched for where the symbols are those of functions only, or none."""
        try:
            known = self._symbols is not None and self._symbols("iomem_resource") is not None
            return {} if known else find_exports(self)
        except MissingMemoryError:
            return {}

    @property
    def kallsyms(self) -> Kallsyms | None:
        """The kernel's own symbols, which also say where each ends; None without them."""
        return self._symbols if isinstance(self._symbols, Kallsyms) else None

    @property
    def has_symbols(self) -> bool:
        """Whether kallsyms, a System.map or a vmlinux gives symbols."""
        return self._symbols is not None or (self._debuginfo is not None and self._debuginfo.has_symbols)

    def member(self, type_name: str, path: str) -> Member:
        """A member of a structure, from types or VMCOREINFO; LookupError if neither knows it."""
        found = self.structures.member(type_name, path)
        if found is None:
            raise LookupError(f"struct {type_name} has no known member {path}")
        return found

    def offset(self, type_name: str, member: str) -> int | None:
        """Byte offset of a member of a structure, from types or VMCOREINFO; None if neither knows."""
        found = self.structures.member(type_name, member)
        return None if found is None else found.offset

    def size(self, type_name: str) -> int | None:
        """Bytes of a structure, from types or VMCOREINFO; None if neither knows."""
        return self.structures.size(type_name)

    def member_size(self, type_name: str, member: str) -> int | None:
        """Bytes of a member; None if there are no types or no such member."""
        found = self.structures.member(type_name, member)
        return None if found is None else found.size

    def enumerator(self, name: str) -> int | None:
        """Value of an enumerator; None if no types know it."""
        return self.structures.enumerator(name)

    @cached_property
    def has_types(self) -> bool:
        """Whether the kernel's structures are known, from debuginfo or BTF."""
        return self.structures.known

    def number(self, va: int, size: int) -> int:
        """The unsigned integer of ``size`` bytes at ``va``; MissingMemoryError where the dump lacks it.

        Of structures that the kernel uses: a page of zeros is taken to be left out of the dump.
        """
        value = int.from_bytes(self.read(va, size), "little")
        if not value:
            self._need_used(va)
        return value

    def _need_used(self, va: int) -> None:
        """MissingMemoryError where all of a page reads as zeros, and not because the kernel's memory holds them."""
        page = self._page(va & -self.addresses.granule.page_size)
        if not self.memory.zeros_are_read and page.count(0) == len(page):
            self.memory.has_false_zeros = True
            raise MissingMemoryError(f"the page at {va:#x} reads as zeros", address=va)

    def field(self, va: int, type_name: str, path: str) -> int:
        """An unsigned integer or pointer member of the structure at ``va``.

        LookupError where types do not know it, MissingMemoryError where the dump lacks it.
        """
        found = self.member(type_name, path)
        if found.size not in _INTEGERS:
            raise LookupError(f"struct {type_name}: {path} is not an integer")
        return self.number(va + found.offset & MASK, found.size)

    def global_at(self, name: str) -> int:
        """Address of a variable; LookupError where there is no symbol (no CONFIG_KALLSYMS_ALL)."""
        address = self.symbol(name)
        if address is None:
            raise LookupError(name)
        return address

    def forget(self) -> None:
        """Read everything again from here on: a running kernel changes."""
        self._page.cache_clear()

    def say(self, message: str) -> None:
        """Add a diagnostic."""
        self.diagnostics.append(Diagnostic(message, self.path))

    # Setting up -----------------------------------------------------------------------------------------------------

    def _drgn(self, what: str) -> ModuleType:
        try:
            return importlib.import_module("parsers.vmcore.program")
        except ImportError as error:
            raise MissingDependencyError(f"{what} needs drgn, which is not installed", path=self.path) from error

    def _load_debuginfo(self, vmlinux: Path) -> Debuginfo:
        path = str(vmlinux)
        with open_plain(vmlinux) as stream:
            check_vmlinux(stream, path, self.vmcoreinfo.build_id)
            try:
                debuginfo: Debuginfo = self._drgn("the debuginfo of a vmlinux").Debuginfo(self, stream)
            except InputError as error:
                raise InputError(error.message, path=path) from error
        return debuginfo

    def _find_debuginfo(self) -> Debuginfo | None:
        """Debuginfo that is installed on this machine, where drgn is, too."""
        try:
            found: Debuginfo = self._drgn("installed debuginfo").Debuginfo(self, None)
        except (MissingDependencyError, FormatError):
            return None
        return found if found.known else None

    def _find_symbols(self, path: Path | None) -> SymbolAddress | None:
        if path is not None:
            with open_plain(path) as stream:
                return system_map(stream.read(64 << 20), self.vmcoreinfo, str(path))
        try:
            found = kallsyms(self, self.vmcoreinfo)
        except FormatError as error:
            self.say(error.message)
            found = None
        if found is None and self._debuginfo is None:
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
        """Cut off KASAN's shadow, which shows in the functions that instrumented code calls, or in the top table."""
        scale = next((scale for name, scale in _SHADOW_SCALES.items() if self.symbol(name) is not None), None)
        scale = self._scale_in_tables() if scale is None else scale
        release = re.match(r"(\d{1,3})\.(\d{1,3})", self.vmcoreinfo.osrelease or "")
        if scale is not None and release is not None and (int(release[1]), int(release[2])) >= (5, 11):
            self.addresses = self.addresses.below_shadow(scale)
            self._page.cache_clear()

    def _scale_in_tables(self) -> int | None:
        """The scale of KASAN's shadow from the top table, None where it shows no shadow.

        What has no memory is shadowed by one page, below tables that many entries share
        (kasan_populate_early_shadow() in mm/kasan/init.c); nothing else in the linear map is shared.
        """
        where, granule = self.addresses, self.addresses.granule
        span = granule.span(granule.first_level(where.va_bits))
        scales = sorted(_SHADOW_SCALES.values())
        first, *others = ((where.below_shadow(scale).linear_end // span) % granule.entries for scale in scales)
        try:
            table = np.frombuffer(self.memory.unrecorded.read(where.root_pa, granule.page_size), np.uint64)
        except MissingMemoryError:
            return None
        below = np.flatnonzero(table[first : where.linear_end // span % granule.entries] & np.uint64(1)) + first
        if below.size == distinct(table[below]).size:
            return None
        return scales[int(np.searchsorted(others, below[0], side="right"))]

    def _load_btf(self) -> Btf | None:
        """The kernel's BTF, by its symbols or by its magic number in the image."""
        start, stop = self.symbol("__start_BTF"), self.symbol("__stop_BTF")
        try:
            if start is None or stop is None:  # they are data: hidden without CONFIG_KALLSYMS_ALL
                start, stop = self._search_btf()
            if 0 < stop - start <= _MAX_BTF:
                return Btf(self.read(start, stop - start), self.path)
            why = f"impossible size {stop - start:#x}"
        except (FormatError, MissingMemoryError) as error:
            why = error.message
        if self._debuginfo is None and self._symbols is not None:
            self.say(f"no BTF ({why}): structures are known from VMCOREINFO only")
        return None

    def _search_btf(self) -> tuple[int, int]:
        """Address and end of BTF in the kernel's read-only data; FormatError where there is none.

        The data lies between the text and ``swapper_pg_dir`` (arch/arm64/kernel/vmlinux.lds.S, 5.2 to 7.3), and the
        section is aligned to 4 bytes.  What is searched is not recorded: a small core holds what was found.
        """
        first, last = self.addresses.image_start, self.addresses.swapper_pg_dir
        memory, page, lost = self.memory.unrecorded, self.addresses.granule.page_size, 0
        for at in range(first, min(last, first + _MAX_IMAGE), _SEARCH_STEP):
            va = np.arange(at, min(at + _SEARCH_STEP, last), page, dtype=np.uint64)
            pa, _ = self.addresses.physical(va)
            data, present = memory.read_pages(pa, page)
            lost += int((~present).sum())
            words = data.reshape(-1).view("<u4")
            for place in (np.flatnonzero(words == _BTF_START) * 4).tolist():
                size = btf_size(self.peek(at + place, BTF_HEADER_SIZE))
                if size is not None and size > _MIN_BTF:
                    return at + place, at + place + size
        raise FormatError(f"not found, and {lost} pages of the image are missing" if lost else "the kernel has none")

    def attempt(self, what: str, function: Callable[[], T]) -> T | None:
        """The result of ``function``, or None and a diagnostic where the dump, its symbols or types lack something."""
        try:
            return function()
        except _DAMAGED as error:
            self.say(f"{what}: {error.message}")
            self.unreadable[what] = error.message
        except _UNKNOWN as error:
            self.say(f"{what}: not found ({error})")
        return None
