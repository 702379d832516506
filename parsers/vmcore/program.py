"""A dump as a drgn program, for what only drgn reads: the debuginfo of a vmlinux.

Nothing else needs this module, so that dumps are read where drgn is not installed.  All memory that the program reads
goes through :class:`parsers.vmcore.dump.Dump`.  Its types come from debuginfo, or from BTF.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, BinaryIO

import drgn

from parsers.errors import FormatError, InputError
from parsers.vmcore.addresses import MASK
from parsers.vmcore.btf import Btf, BtfKind
from parsers.vmcore.memory import MissingMemoryError
from parsers.vmcore.types import Member

if TYPE_CHECKING:
    from parsers.vmcore.dump import Dump

__all__ = ["GLOBALS", "BtfForDrgn", "Debuginfo", "DrgnTypes", "program_of"]

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

_INT_BOOL, _INT_SIGNED = 4, 1
_INT_NAMES = {1: "char", 2: "short", 4: "int", 8: "long"}
_MAX_DEPTH = 64
_UNKNOWN = (LookupError, TypeError, ValueError, ArithmeticError, drgn.OutOfBoundsError)
"""What drgn raises for what it does not know."""


class DrgnTypes:
    """What a drgn program knows of types, as a provider of them."""

    source = "debuginfo"

    def __init__(self, prog: drgn.Program) -> None:
        self.prog = prog

    def size(self, type_name: str) -> int | None:
        """Bytes of a structure or union; None if there is none of that name."""
        found = self._type(type_name)
        try:
            return None if found is None else int(drgn.sizeof(found))
        except _UNKNOWN:
            return None

    def member(self, type_name: str, path: str) -> Member | None:
        """A member, members of anonymous structures included; None if there is none, or it is a bit field."""
        found = self._type(type_name)
        try:
            offset = int(drgn.offsetof(found, path))
            for name in path.split("."):
                member = _plain(found).member(name)
                found = member.type
            plain = _plain(found)
            count = (plain.length or 0) if plain.kind is drgn.TypeKind.ARRAY else None
            return None if member.bit_field_size else Member(offset, int(drgn.sizeof(plain)), count)
        except _UNKNOWN:
            return None

    def enumerator(self, name: str) -> int | None:
        """Value of an enumerator; None if there is none of that name."""
        try:
            return int(self.prog.constant(name))
        except _UNKNOWN:
            return None

    def _type(self, name: str) -> Any:  # noqa: ANN401 drgn is not typed
        for keyword in ("struct", "union"):
            try:
                return self.prog.type(f"{keyword} {name}")
            except LookupError:
                continue
        return None


class Debuginfo(DrgnTypes):
    """The types and symbols of a vmlinux, or of debuginfo of the dump's build that is installed here."""

    def __init__(self, dump: Dump, vmlinux: BinaryIO | None) -> None:
        super().__init__(_program(dump))
        self.has_symbols = vmlinux is not None
        if vmlinux is not None:
            self._load(vmlinux)
        else:
            self._find()

    @property
    def known(self) -> bool:
        """Whether there is debuginfo, not symbols alone."""
        return self.member("mem_section", "section_mem_map") is not None

    def symbol(self, name: str) -> int | None:
        """Run-time address of a symbol of the vmlinux; None where it has none, or none was given."""
        try:
            return int(self.prog.symbol(name).address) if self.has_symbols else None
        except LookupError:
            return None

    def _load(self, vmlinux: BinaryIO) -> None:
        """Load an open file; InputError where drgn cannot use it."""
        try:
            self.prog.load_debug_info([f"/proc/self/fd/{vmlinux.fileno()}"])  # unpacked files have no other name
        except (drgn.MissingDebugInfoError, drgn.BadDataError, LookupError, ValueError, OSError) as error:
            raise InputError(f"drgn cannot use this vmlinux: {error}") from error

    def _find(self) -> None:
        """Debuginfo of this build that is installed here; nothing is downloaded, and there need not be any."""
        try:
            self.prog.set_enabled_debug_info_finders(["standard"])
            self.prog.load_debug_info(main=True)
        except (drgn.MissingDebugInfoError, LookupError, ValueError, OSError):
            return


def _plain(kind: Any) -> Any:  # noqa: ANN401 drgn is not typed
    """A type without typedefs."""
    while kind.kind is drgn.TypeKind.TYPEDEF:
        kind = kind.type
    return kind


def _program(dump: Dump) -> drgn.Program:
    """A program without types, which reads the memory of a dump; FormatError for a VMCOREINFO that drgn refuses."""
    logging.getLogger("drgn").addHandler(logging.NullHandler())  # what drgn warns of is a diagnostic here
    info = dump.vmcoreinfo_bytes.decode("ascii", "replace").replace("\ufffd", "?").encode()
    flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
    try:
        prog = drgn.Program(drgn.Platform(drgn.Architecture.AARCH64, flags), vmcoreinfo=info)
        prog.set_linux_kernel_custom(info, False)
    except (drgn.BadDataError, ValueError, LookupError, ArithmeticError) as error:
        raise FormatError(f"VMCOREINFO is not usable: {error}", path=dump.path) from error

    def read(address: int, count: int, _offset: int, physical: bool) -> bytes:
        try:
            return dump.memory.read(address, count) if physical else dump.read(address, count)
        except MissingMemoryError as error:
            raise drgn.FaultError(error.message, address) from error

    prog.add_memory_segment(0, 1 << 52, read, True)
    prog.add_memory_segment(0, MASK, read, False)
    return prog


def program_of(dump: Dump, debuginfo: Debuginfo | None, btf: Btf | None) -> drgn.Program:
    """The program in which drgn finds the dump's types and globals: debuginfo first, then BTF, then `GLOBALS`."""
    prog = _program(dump) if debuginfo is None else debuginfo.prog
    types = None if btf is None else BtfForDrgn(btf, dump.path)
    if types is not None:
        prog.register_type_finder("btf", types.type_finder, enable_index=-1)

    def find(prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None) -> drgn.Object | None:
        if flags & drgn.FindObjectFlags.VARIABLE and name in GLOBALS:
            address = dump.symbol(name)
            try:
                return None if address is None else drgn.Object(prog, GLOBALS[name], address=address)
            except LookupError:
                return None
        if types is not None and flags & drgn.FindObjectFlags.CONSTANT and filename is None:
            return types.constant(prog, name)
        return None

    prog.register_object_finder("ptaudit", find, enable_index=-1)
    return prog


class BtfForDrgn:
    """BTF as drgn's types, made one by one as they are asked for."""

    def __init__(self, btf: Btf, path: str = "") -> None:
        self._btf = btf
        self._path = path
        self._made: dict[int, drgn.Type] = {}

    def type_finder(
        self, prog: drgn.Program, kinds: drgn.TypeKindSet, name: str, filename: str | None
    ) -> drgn.Type | None:
        """What :meth:`drgn.Program.register_type_finder` calls."""
        if filename is not None:
            return None
        wanted = {
            drgn.TypeKind.INT: (BtfKind.INT,),
            drgn.TypeKind.BOOL: (BtfKind.INT,),
            drgn.TypeKind.STRUCT: (BtfKind.STRUCT,),
            drgn.TypeKind.UNION: (BtfKind.UNION,),
            drgn.TypeKind.ENUM: (BtfKind.ENUM, BtfKind.ENUM64),
            drgn.TypeKind.TYPEDEF: (BtfKind.TYPEDEF,),
            drgn.TypeKind.FLOAT: (BtfKind.FLOAT,),
        }
        for kind, btf_kinds in wanted.items():
            if kind in kinds:
                type_id = self._btf.find(name, *btf_kinds)
                if type_id:
                    found = self.make(prog, type_id)
                    if found.kind == kind:
                        return found
        return None

    def constant(self, prog: drgn.Program, name: str) -> drgn.Object | None:
        """An enumerator as a drgn constant."""
        found = self._btf.find_enumerator(name)
        return None if found is None else drgn.Object(prog, self.make(prog, found[0]), found[1])

    def make(self, prog: drgn.Program, type_id: int) -> drgn.Type:
        """The drgn type of a BTF type id; FormatError for an id or a chain of types that cannot be."""
        return self._make(prog, type_id, 0)

    def _make(self, prog: drgn.Program, type_id: int, depth: int) -> drgn.Type:
        if type_id in self._made:
            return self._made[type_id]
        if not 0 <= type_id < len(self._btf) or depth > _MAX_DEPTH:
            raise FormatError(f"BTF type {type_id} cannot be resolved", path=self._path)
        kind = BtfKind(int(self._btf.kind[type_id]))
        if kind in (BtfKind.STRUCT, BtfKind.UNION, BtfKind.FWD):
            made = self._compound(prog, type_id, kind)
        elif kind in (BtfKind.ENUM, BtfKind.ENUM64):
            made = self._enum(prog, type_id)
        else:
            made = self._other(prog, type_id, kind, depth)
        self._made[type_id] = made
        return made

    def _tag(self, type_id: int) -> str | None:
        return self._btf.string(int(self._btf.name[type_id])) or None

    def _compound(self, prog: drgn.Program, type_id: int, kind: BtfKind) -> drgn.Type:
        is_union = kind is BtfKind.UNION or (kind is BtfKind.FWD and bool(self._btf.kind_flag[type_id]))
        make = prog.union_type if is_union else prog.struct_type
        if kind is BtfKind.FWD:
            return make(self._tag(type_id))
        return make(self._tag(type_id), int(self._btf.size_or_type[type_id]), self._members(prog, type_id))

    def _members(self, prog: drgn.Program, type_id: int) -> list[drgn.TypeMember]:
        return [
            drgn.TypeMember(
                lambda prog=prog, member_type=member_type, bits=bits: self._member_object(prog, member_type, bits),
                self._btf.string(name) or None,
                bit_offset,
            )
            for name, member_type, bit_offset, bits in self._btf.fields(type_id)
        ]

    def _member_object(self, prog: drgn.Program, type_id: int, bits: int) -> drgn.Object:
        return drgn.Object(prog, self.make(prog, type_id), bit_field_size=bits or None)

    def _enum(self, prog: drgn.Program, type_id: int) -> drgn.Type:
        if not self._btf.vlen[type_id]:
            return prog.enum_type(self._tag(type_id))
        size = int(self._btf.size_or_type[type_id])
        signed = bool(self._btf.kind_flag[type_id])
        compatible = prog.int_type(f"{'' if signed else 'unsigned '}{_INT_NAMES.get(size, 'int')}", size, signed)
        return prog.enum_type(
            self._tag(type_id),
            compatible,
            [drgn.TypeEnumerator(name, value) for name, value in self._btf.enumerators(type_id)],
        )

    def _other(self, prog: drgn.Program, type_id: int, kind: BtfKind, depth: int) -> drgn.Type:
        name = self._btf.string(int(self._btf.name[type_id]))
        target = int(self._btf.size_or_type[type_id])
        qualifiers = {
            BtfKind.CONST: drgn.Qualifiers.CONST,
            BtfKind.VOLATILE: drgn.Qualifiers.VOLATILE,
            BtfKind.RESTRICT: drgn.Qualifiers.RESTRICT,
        }
        made: drgn.Type
        if kind is BtfKind.VOID:
            made = prog.void_type()
        elif kind is BtfKind.INT:
            encoding = self._btf.words(type_id, 1)[0] >> 24
            make_bool = encoding & _INT_BOOL
            made = (
                prog.bool_type(name, target) if make_bool else prog.int_type(name, target, bool(encoding & _INT_SIGNED))
            )
        elif kind is BtfKind.FLOAT:
            made = prog.float_type(name, target)
        elif kind is BtfKind.PTR:
            made = prog.pointer_type(self._make(prog, target, depth + 1))
        elif kind is BtfKind.TYPEDEF:
            made = prog.typedef_type(name, self._make(prog, target, depth + 1))
        elif kind in qualifiers:
            inner = self._make(prog, target, depth + 1)
            made = inner.qualified(inner.qualifiers | qualifiers[kind])
        elif kind is BtfKind.ARRAY:
            element, _, count = self._btf.words(type_id, 3)
            made = prog.array_type(self._make(prog, element, depth + 1), count or None)
        elif kind is BtfKind.FUNC_PROTO:
            made = prog.function_type(self._make(prog, target, depth + 1), ())
        elif kind is BtfKind.TYPE_TAG:
            made = self._make(prog, target, depth + 1)
        else:
            raise FormatError(f"BTF type {type_id} of kind {kind.name} is not the type of an object", path=self._path)
        return made
