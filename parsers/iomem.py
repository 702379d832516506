"""/proc/iomem: which physical addresses are System RAM, device memory, reserved.

Format from kernel/resource.c ``r_show`` (4.14 to 6.18): two blanks of indentation a level, inclusive
ranges of at least eight hexadecimal digits, at most five levels, eight in newer kernels; what lies
deeper is printed at the last one.  Without CAP_SYS_ADMIN every address is printed as zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from parsers.architecture import foreign_resource
from parsers.errors import ArchitectureError, Diagnostic, FormatError, WrongFormatError
from parsers.expressions import expression
from parsers.lines import at_lines, numbered, text_of, unread_lines
from parsers.mapping import I64, U32, U64
from parsers.ranges import distinct
from parsers.records import dataclass

__all__ = ["MAX_BYTES", "Iomem", "parse_iomem"]

MAX_BYTES = 16 << 20  # a machine of 4096 PCI functions stays below 1 MiB

_ROW = expression(
    rb"^([ \t]*)([0-9a-fA-F]{1,16})-([0-9a-fA-F]{1,16}) : ([^\r\n]*)",
    re.MULTILINE,
)
_COMMON_NAMES = (b"System RAM", b"Persistent Memory", b"Kernel code", b"Kernel data", b"Crash kernel", b"reserved")
_IOPORT_DIGITS = 4  # /proc/ioports pads to four digits where iomem pads to eight


@dataclass(frozen=True, eq=False, kw_only=True)
class Iomem:
    """The resource tree in the order of the file, one row a resource.

    Both bounds are stored inclusive, ``start`` and ``last``: the kernel lists ranges that end at 2**64.  The
    half-open ``end`` is derived, and 0 means 2**64 there, as in `parsers.mapping.Mapping`.

    >>> text = b'''
    ... 40000000-4c40ffff : System RAM
    ...   4a200000-4adfffff : Kernel code
    ... 80000000-9fffffff : System RAM (kmem)
    ... '''
    >>> iomem = parse_iomem(text, "iomem")
    >>> [hex(end) for end in iomem.end[iomem.named("System RAM")].tolist()]
    ['0x4c410000', '0xa0000000']
    >>> iomem.name[1], int(iomem.depth[1]), int(iomem.parent[1]), int(iomem.line[1])
    ('Kernel code', 1, 0, 3)
    """

    path: str
    start: U64
    """First address; 0 in every row if not ``privileged``."""
    last: U64
    """Inclusive last address."""
    name: tuple[str, ...]
    depth: I64
    """0 for a root."""
    parent: I64
    """Row number of the parent, -1 for a root."""
    line: U32
    """1-based line in the file."""
    privileged: bool
    """False if every address is zero: the file was read without privilege, and where memory is, is unknown."""
    cut_short: bool = False
    """The file ends in the middle of a line, or lacks the resource that another one lies in: the rest is unknown."""
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def end(self) -> U64:
        """Half-open end of each row; 0 means 2**64."""
        return self.last + np.uint64(1)

    def named(self, prefix: str) -> I64:
        """Row numbers, at any depth, of the resources whose name starts with ``prefix``."""
        return np.array([row for row, name in enumerate(self.name) if name.startswith(prefix)], dtype=np.int64)

    def leaves(self) -> I64:
        """Row numbers of the resources that contain no other."""
        return np.setdiff1d(np.arange(len(self), dtype=np.int64), distinct(self.parent), assume_unique=True)

    def __len__(self) -> int:
        return len(self.name)


def parse_iomem(data: bytes, path: str) -> Iomem:
    """Read ``/proc/iomem``; FormatError where nothing is a resource.

    WrongFormatError for ``/proc/ioports``, ArchitectureError where it has resources of another architecture.
    """
    data = text_of(data, path, limit=MAX_BYTES, what="/proc/iomem")
    rows = list(numbered(_ROW, data))
    if not rows:
        raise FormatError("no line 'start-end : name', no /proc/iomem", path=path)
    if all(len(match[3]) == _IOPORT_DIGITS for _, match in rows):
        raise WrongFormatError("four-digit addresses: this is /proc/ioports", path=path, line=rows[0][0])
    if (foreign := foreign_resource(data)) is not None:
        line = data.count(b"\n", 0, foreign[0]) + 1
        raise ArchitectureError(f"/proc/iomem of {foreign[1]}, not of arm64", path=path, line=line)
    every_line = [line for line, _ in rows]
    rows = [row for row in rows if int(row[1][2], 16) <= int(row[1][3], 16)]
    if not rows:
        raise FormatError("every range ends before it starts: no /proc/iomem", path=path, line=every_line[0])
    lines = [line for line, _ in rows]
    start = np.array([int(match[2], 16) for _, match in rows], dtype=np.uint64)
    last = np.array([int(match[3], 16) for _, match in rows], dtype=np.uint64)
    parent, depth, torn, diagnostics = _tree([len(match[1]) for _, match in rows], start, last, lines, path)
    return Iomem(
        path=path,
        start=start,
        last=last,
        name=tuple(match[4].strip().decode("utf-8", "replace") for _, match in rows),
        depth=depth,
        parent=parent,
        line=np.array(lines, dtype=np.uint32),
        privileged=bool(last.any()),
        cut_short=torn or _ends_in_a_line(data) or len(rows[0][1][1]) > min(len(match[1]) for _, match in rows),
        diagnostics=(
            *at_lines("the range ends before it starts, left out", sorted(set(every_line) - set(lines)), path),
            *diagnostics,
            *unread_lines(data, every_line, path),
        ),
    )


def _ends_in_a_line(data: bytes) -> bool:
    """Whether the last line lacks a newline (a copy may have lost it) and is not a resource, or has half a name."""
    rest = data[data.rfind(b"\n") + 1 :]
    row = _ROW.match(rest)
    half = row is None or any(name.startswith(row[4]) and name != row[4] for name in _COMMON_NAMES)
    return bool(rest.strip()) and half


def _tree(
    indents: Sequence[int], start: U64, last: U64, lines: Sequence[int], path: str
) -> tuple[I64, I64, bool, tuple[Diagnostic, ...]]:
    """Parent and depth of each row: by indentation, or by containment where a copy lost the indentation.

    Also whether lines are missing: __request_resource() in kernel/resource.c has no child leave its parent.
    """
    spans = list(zip(start.tolist(), last.tolist(), strict=True))
    flat = bool(last.any()) and len(set(indents)) == 1 and any(_within(b, a) for a, b in pairwise(spans))
    parent, depth, outside = [], [], []
    stack: list[int] = []
    for row, span in enumerate(spans):
        while stack and not (_within(span, spans[stack[-1]]) if flat else indents[row] > indents[stack[-1]]):
            stack.pop()
        if stack and not _within(span, spans[stack[-1]]):
            outside.append(lines[row])
        parent.append(stack[-1] if stack else -1)
        depth.append(len(stack))
        stack.append(row)
    diagnostics = (
        *at_lines("indentation is lost, nesting taken from the ranges", lines[:1] if flat else (), path),
        *at_lines("the range leaves its parent's: lines before it are missing", outside, path),
    )
    return np.array(parent, dtype=np.int64), np.array(depth, dtype=np.int64), bool(outside), diagnostics


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
