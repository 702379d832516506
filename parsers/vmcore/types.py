"""What is known of the kernel's structures: one interface, and those who provide it.

Debuginfo of a vmlinux is read with drgn (:mod:`parsers.vmcore.program`), BTF by :mod:`parsers.vmcore.btf`.  Where
neither is available, VMCOREINFO gives the offsets and sizes that makedumpfile needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from parsers.records import dataclass

if TYPE_CHECKING:
    from parsers.vmcoreinfo import VmcoreInfo

__all__ = ["Member", "Structures", "Types"]


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member of a structure lies."""

    offset: int
    """Bytes from the start of the structure."""
    size: int | None
    """Bytes, of the whole array for an array; None where only the offset is known."""
    count: int | None = None
    """Elements of an array; None for anything else."""


class Types(Protocol):
    """A provider of types.  ``type_name`` is the tag of a structure or union, without the keyword."""

    @property
    def source(self) -> str:
        """Where the types come from: ``debuginfo`` or ``BTF``."""

    def size(self, type_name: str) -> int | None:
        """Bytes of a structure; None where it is not known."""

    def member(self, type_name: str, path: str) -> Member | None:
        """A member, of a nested structure for a dotted ``path``; None where it is not known, or a bit field."""

    def enumerator(self, name: str) -> int | None:
        """Value of an enumerator; None where it is not known."""


class Structures:
    """The types of one dump: those of the first provider that knows, and VMCOREINFO for what they do not know."""

    def __init__(self, providers: Iterable[Types], info: VmcoreInfo) -> None:
        self._providers = tuple(providers)
        self._info = info
        self._members: dict[tuple[str, str], Member | None] = {}

    @property
    def source(self) -> str:
        """The provider that knows the kernel's structures: ``debuginfo``, ``BTF`` or ``VMCOREINFO``."""
        return next((one.source for one in self._providers), "VMCOREINFO")

    @property
    def known(self) -> bool:
        """Whether a provider knows the kernel's structures, so that one that it lacks does not exist."""
        return any(one.member("mem_section", "section_mem_map") is not None for one in self._providers)

    def size(self, type_name: str) -> int | None:
        """Bytes of a structure."""
        found = (one.size(type_name) for one in self._providers)
        return next((size for size in found if size is not None), self._info.size(type_name))

    def member(self, type_name: str, path: str) -> Member | None:
        """A member; its size is unknown where only VMCOREINFO has it."""
        if (type_name, path) not in self._members:
            self._members[type_name, path] = self._look_up(type_name, path)
        return self._members[type_name, path]

    def _look_up(self, type_name: str, path: str) -> Member | None:
        for one in self._providers:
            if (found := one.member(type_name, path)) is not None:
                return found
        offset = self._info.offset(f"{type_name}.{path}")
        return None if offset is None else Member(offset, None)

    def enumerator(self, name: str) -> int | None:
        """Value of an enumerator."""
        found = (one.enumerator(name) for one in self._providers)
        return next((value for value in found if value is not None), None)
