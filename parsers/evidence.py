"""What the table of evidence (`parsers.kinds`) says of each kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from parsers.expressions import POSSESSIVE
from parsers.records import dataclass

if TYPE_CHECKING:
    from pathlib import Path

    from parsers.errors import Diagnostic

__all__ = ["Configuration", "Kind", "OnlyRows", "Row", "Tree", "When"]


class When(IntEnum):
    """When evidence is collected: what changes with a hotplug operation is read around the page tables."""

    STATE = 0
    """Before the page tables and again after them; equal files are of one moment."""
    TABLES = 1
    BEFORE = 2
    AFTER = 3


class OnlyRows(Protocol):
    """What ``parse_file`` returns."""

    @property
    def only_rows(self) -> bool:
        """Whether no line of the text can be evidence of another kind."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]: ...


class Configuration(Protocol):
    """A kernel configuration as far as this table asks it (`parsers.kconfig.Kconfig`)."""

    @property
    def complete(self) -> bool: ...

    def is_enabled(self, name: str) -> bool | None: ...


def _never(_: bytes) -> bool:
    return False


@dataclass(frozen=True)
class Tree:
    """Evidence that sysfs shows as one small file an attribute."""

    root: str
    """The directory, without the leading slash."""
    attributes: str
    """Regular expression of the attributes that are read, by their path below ``root``."""
    parse: Callable[[dict[str, bytes], str], object]
    """Takes the contents by path below ``root``, and the name of the tree."""

    def attribute(self, path: str) -> str | None:
        """The attribute's path below the root if ``path``, in a copied sysfs, is one of this tree's."""
        found = re.search(rf"(?:^|/){re.escape(self.root)}/({self.attributes})$", path)
        return found[1] if found else None


class Row:
    """The lines that only one kind of evidence has, by which it is found in a text that holds several."""

    def __init__(self, line: bytes, *needles: bytes, least: int = 1) -> None:
        self.line = line
        """Regular expression of a line, from its beginning; the rest of the line is free."""
        self.needles = needles
        """One of these is in every such line: a fast way to see that a text has none."""
        self.least = least
        """Fewer rows in a text are not evidence: a mail may quote one."""

    def may_be_in(self, text: bytes) -> bool:
        """Whether a text may have such lines."""
        return any(needle in text for needle in self.needles)

    @cached_property
    def runs(self) -> re.Pattern[bytes]:
        """Matches consecutive rows, each with the newline before it: much faster to look for than ``^``."""
        return re.compile(rb"(?:\n(?:%b)[^\n]*+)+%b" % (self.line, POSSESSIVE), re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of evidence: how it is named, recognised, read, asked for and collected."""

    name: str
    """As in ``--kind``, and the file in a capture unless ``file`` says otherwise."""
    what: str
    """What a person calls it, as in "… was not collected"."""
    fact: type | None = None
    """What the parser returns and rules see; None where it only adds to another fact, or is not read."""
    paths: re.Pattern[str]
    """Matches the end of a path in a capture, or in a copied /proc, /sys or /boot."""
    sniff: Callable[[bytes], bool] = _never
    """Whether a file that begins with these bytes is of this kind; never, if content does not identify the kind."""
    row: Row | None = None
    """What its lines look like; None where they may look like anything."""
    parse: Callable[[bytes, str], object] | None = None
    """None, where ``read`` is None too: the file is known and the audit does not use it."""
    read: Callable[..., object] | None = None
    """Instead of ``parse`` for files that are too large to hold: takes a Path or bytes, ``path``, and ``progress``,
    which is called with the bytes that are done and those in all."""
    parse_file: Callable[[Path, str, Callable[[memoryview], object]], OnlyRows] | None = None
    """Besides ``parse``, for files on disk whose text is not held: takes what is called with all bytes as they are
    read, in order."""
    tree: Tree | None = None
    """The same evidence in a copied /sys."""
    sample: bytes = b""
    """A few lines of it: recognised by ``sniff`` if it can be recognised by content, and the first seed of the fuzz
    target."""

    file: str = ""
    command: str = ""
    """Shell command that prints it; empty where no single command does."""
    function: str = ""
    """Function of ``analyzer/collect/collect.sh`` that prints it, where that is more than ``command``."""
    how: str = ""
    """How a person is asked for it, unless by the command."""
    note: str = ""
    """How it is asked for below a block of commands, where there is no command for it."""
    when: When = When.AFTER
    only_if: str = ""
    """Shell condition without which `collect.sh` leaves it out in silence."""
    root: bool = False
    """Only root can read it."""
    private: bool = False
    """May hold the host's name, MAC addresses or serial numbers."""
    config: tuple[str, ...] = ()
    """Configuration symbols, at least one of which is set in a kernel that has it; empty if every kernel has it."""
    since: tuple[int, int] | None = None
    """First kernel that has it; None if every arm64 kernel that can plug memory does."""
    instead: str = ""
    """Kind to ask for where a kernel cannot give this one."""

    @property
    def is_read(self) -> bool:
        """Whether the audit uses such a file."""
        return self.parse is not None or self.read is not None

    @property
    def collected_as(self) -> str:
        """Name of the file in a capture."""
        return self.file or self.name

    @property
    def step(self) -> str:
        """How a person is asked for it."""
        return self.how or (f"as root: {self.command}" if self.root else self.command) or self.what

    @property
    def is_collected(self) -> bool:
        """Whether the collecting script takes it."""
        return bool(self.function or self.command)

    def why_not(self, config: Configuration | None, series: tuple[int, int] | None = None) -> str:
        """Why a kernel of this configuration and ``(major, minor)`` version cannot give it; empty if it may."""
        if config is not None and config.complete and self.config:
            enabled = [config.is_enabled(symbol) for symbol in self.config]
            if not any(enabled) and any(one is False for one in enabled):
                named = next(symbol for symbol, one in zip(self.config, enabled, strict=True) if one is False)
                return f"CONFIG_{named} is not set"
        if series is not None and self.since is not None and series < self.since:
            return f"kernels before v{self.since[0]}.{self.since[1]} do not have it"
        return ""
