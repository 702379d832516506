"""The fields of a report of the kernel, as arm64 kernels print them.

Formats from arch/arm64/mm/fault.c, arch/arm64/kernel/{traps,process,setup}.c, kernel/panic.c, lib/bug.c,
mm/page_alloc.c, mm/memory.c and mm/debug.c (4.4 to 6.18).  A field may be wrapped once, as mail does it, and its
digits may be upper case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

from parsers.esr import Esr
from parsers.expressions import expression
from parsers.records import dataclass

__all__ = ["MAX_LINE", "Address", "Quote", "Walk", "find_fields", "frames", "registers", "text_of_bytes", "values_of"]

MAX_LINE = 1024
MAX_FRAMES = 128

_G = rb"[ \t]*\n?[ \t]*"  # a gap that may be wrapped
_X = rb"[0-9a-fA-F]"
_HEX = rb"(%b{8,16})" % _X
_SYNDROME = rb"(%b{16}|%b{8})\b" % (_X, _X)
_SYMBOL = rb"([A-Za-z_][\w.$]{0,255}\+0x%b{1,8}/0x%b{1,8})" % (_X, _X)
_FIELDS: Mapping[str, re.Pattern[bytes]] = {
    "address": expression(
        rb"(?:\bat\s{1,8}virtual\s{1,8}address\s{1,8}|Unhandled fault at\s{1,8}|\(0x%b{8,16}\)\s{1,8}at\s{1,8})"
        rb"(?:0x)?%b" % (_X, _HEX)
    ),
    "esr": expression(
        rb"ESR = 0x%b|Internal error: (?:[^\n]{1,120}\n)??[^\n]{0,120}?\b%b\s{1,3}\[#\d"
        rb"|[A-Za-z ]\(0x%b\) at |, code 0x%b" % ((_SYNDROME,) * 4)
    ),
    "pgtable": expression(
        rb"(swapper|user) pgtable:%b(\d{1,3})k pages,%b(\d\d)-bit VAs,%bpgdp? ?=%b(?:0x)?(%b{16})?"
        % (_G, _G, _G, _G, _X)
    ),
    "walk": expression(rb"\[(%b{16})\]%b(\*?pgd ?=%b{8,16}(?:,%b\*?p[\w]{2} ?=%b{8,16}){0,4})" % (_X, _G, _X, _G, _X)),
    "between": expression(rb"\[(%b{16})\] address between user and kernel address ranges" % _X),
    "task": expression(
        rb"CPU:? ?(\d{1,5}) (?:UID: \d{1,10} )?PID: (\d{1,10}) Comm: ([^\n]{1,32}?) (?:Kdump: loaded )?"
        rb"(Not%btainted(?:[ -]{2,24}-(?= ))?|Tainted: [A-Z() -]{1,60}?)"
        rb"\s{1,12}([1-9]\d?\.\d{1,3}\S{0,120})(?:\s{1,4}(#\d[^\n]{0,120}))?" % _G
    ),
    "process": expression(
        rb"\bProcess ([^\n]{1,32}?) \(pid: (\d{1,10})|, CPU#(?:\d{1,5}): ([^\n/]{1,32})/(\d{1,10})"
        rb"|INFO: task ([^\n]{1,32}?):(\d{1,10}) (?:is )?blocked"
    ),
    "pc": expression(
        rb"(?:\bpc : |\bPC is at )(?:\[<[0-9a-f]{1,16}>\] )?(?:%b(?:%b\[(\w{1,60})\])?|(0x[0-9a-f]{1,16}))"
        % (_SYMBOL, _G)
    ),
    "lr": expression(rb"(?:\blr : |\bLR is at )(?:\[<[0-9a-f]{1,16}>\] )?%b" % _SYMBOL),
    "image_pc": expression(rb"\bpc : \[<([0-9a-f]{16})>\]"),
    "place": expression(
        rb"(?:kernel BUG at%b|WARNING: (?:CPU: \d+ PID: \d+ at%b|(?:\[[^\n]{0,200}?\] )?))"
        rb"([\w./+-]{1,200}(?:-[ \t]*\n[ \t]*[\w./+-]{1,100})?:\d{1,6})(?:!|\s{1,3}(?:at\s{1,3})?%b)?"
        % (_G, _G, _SYMBOL)
    ),
    "pfn": expression(rb"pfn:(?:0x)?([0-9a-fA-F]{1,13})\b"),
    "page": expression(rb"\bpage: ?([0-9a-f]{16}) (?:ref)?count:[^\n]{0,200}?"),
    "page_flags": expression(rb"\bflags: 0x[0-9a-f]{1,16}\(([^)\n]{0,200})\)"),
}
# A field needs one of these words: searching for them is many times faster than the expression.
_FIXED: Mapping[str, tuple[bytes, ...]] = {
    "address": (b"address", b"Unhandled fault at", b"at 0x", b"at\n"),
    "esr": (b"ESR = 0x", b"Internal error: ", b"(0x", b", code 0x"),
    "pgtable": (b" pgtable:",),
    "walk": (b"pgd=", b"pgd ="),
    "between": (b"address between user",),
    "task": (b" Comm: ",),
    "process": (b"Process ", b"CPU#", b"INFO: task "),
    "pc": (b"pc : ", b"PC is at "),
    "lr": (b"lr : ", b"LR is at "),
    "image_pc": (b"pc : [<",),
    "place": (b"kernel BUG at ", b"WARNING: "),
    "pfn": (b"pfn:",),
    "page": (b"page:",),
    "page_flags": (b"flags: 0x",),
}
_BEFORE_FIXED = 64
_ENTRY = expression(rb"(p\w{2}) ?=(%b{8,16})" % _X)
_REGISTER = expression(rb"\b(x\d{1,2}|sp) ?: (%b{16})\b" % _X)
_FRAME = expression(rb"(?<![\w+])" + _SYMBOL)
_DECODED_FRAME = expression(
    rb"(?:^|[\]:>]) {0,3}([A-Za-z_][\w.]{2,80})(?: \([\w./+-]{1,200}:\d{1,6}[^\n)]{0,60}\))?\s*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A line of the log; a wrapped one with its second part."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Address:
    """A faulting address: ``value`` is as translated, ``tag`` the top byte that was printed instead of 0xff."""

    value: int
    tag: int | None

    @classmethod
    def of(cls, printed: int) -> Address:
        """What the register held: a kernel pointer (bit 55 set) may carry a KASAN tag in its top byte."""
        top = printed >> 56
        if printed >> 55 & 1 and top != 0xFF:
            return cls(printed | 0xFF << 56, top)
        return cls(printed, None)

    @property
    def printed(self) -> int:
        """As the log has it."""
        return self.value if self.tag is None else self.value & ~(0xFF << 56) | self.tag << 56


@dataclass(frozen=True, slots=True)
class Walk:
    """The line that ``show_pte()`` prints: raw descriptors from the top, ending with the one that is empty or bad.

    Before 6.12.110 the walk held no lock and can itself be wrong.
    """

    entries: tuple[tuple[str, int], ...]
    """(``pgd``, value), (``p4d``, value) …"""

    @property
    def last(self) -> tuple[str, int]:
        """Where the walk ended."""
        return self.entries[-1]

    def get(self, name: str) -> int | None:
        """The descriptor of a level, None where the walk did not get there."""
        return dict(self.entries).get(name)

    @property
    def is_cut(self) -> bool:
        """The walk ends at a table that it could not read: show_pte() itself faulted, or the line is not complete."""
        name, descriptor = self.last
        return name != "pte" and descriptor & 3 == 3


def find_fields(block: bytes) -> dict[str, re.Match[bytes]]:
    """The first place of each field that a report has."""
    found = {}
    for name, pattern in _FIELDS.items():
        places = [at for word in _FIXED[name] if (at := block.find(word)) >= 0]
        match = pattern.search(block, max(0, min(places) - _BEFORE_FIXED)) if places else None
        if match is not None:
            found[name] = match
    return found


def values_of(found: Mapping[str, re.Match[bytes]]) -> dict[str, Any]:
    """The values of the fields that were found; the first that gives a value counts."""
    values: dict[str, Any] = {}
    for name, read in _VALUES.items():
        if match := found.get(name):
            values = read(match) | values
    return values


def registers(block: bytes) -> dict[str, int]:
    """Register values by name; of several dumps in one report the first."""
    if b"x29" not in block and b"x0 " not in block:
        return {}
    return {name.decode(): int(value, 16) for name, value in reversed(_REGISTER.findall(block))}


def frames(block: bytes, start: int) -> tuple[str, ...]:
    """The functions of a call trace that begins at ``start``, also where a script put file names for offsets."""
    stop = block.find(b"Code: ", start)
    end = stop if stop >= 0 else len(block)
    found = _FRAME.findall(block, start, end) or _DECODED_FRAME.findall(block, block.find(b"\n", start) + 1, end)
    return tuple(frame.decode().partition("+")[0] for frame in found[:MAX_FRAMES])


def text_of_bytes(text: bytes) -> str:
    """Text of the log, whatever its encoding."""
    return text.decode("utf-8", "replace").strip()


def _walk(match: re.Match[bytes]) -> dict[str, Any]:
    found = _ENTRY.findall(match[2])
    # All are printed with the same number of digits: a shorter one is where the log ends.
    whole = takewhile(lambda entry: len(entry[1]) == len(found[0][1]), found)
    entries = tuple((name.decode(), int(value, 16)) for name, value in whole)
    return {"walk": Walk(entries), "address": Address.of(int(match[1], 16))}


def _between(match: re.Match[bytes]) -> dict[str, Any]:
    return {"between": True, "address": Address(int(match[1], 16), None)}


def _pgtable(match: re.Match[bytes]) -> dict[str, Any]:
    return {
        "page_size": int(match[2]) << 10,
        "va_bits": int(match[3]),
        "user_table": match[1] == b"user",
        "pgd": int(match[4], 16) if match[4] else None,
    }


def _task(match: re.Match[bytes]) -> dict[str, Any]:
    return {
        "cpu": int(match[1]),
        "pid": int(match[2]),
        "comm": text_of_bytes(match[3]),
        "taint": "".join(match[4].decode().partition(":")[2].replace("-", "").split()),
        "release": text_of_bytes(b" ".join(part.strip() for part in match.group(5, 6) if part)),
    }


def _process(match: re.Match[bytes]) -> dict[str, Any]:
    comm, pid = (group for group in match.groups() if group)
    return {"comm": text_of_bytes(comm), "pid": int(pid)}


def _pc(match: re.Match[bytes]) -> dict[str, Any]:
    return {"pc": text_of_bytes(match[1] or match[3]), "module": text_of_bytes(match[2] or b"")}


def _place(match: re.Match[bytes]) -> dict[str, Any]:
    return {"place": text_of_bytes(match[1]).replace(" ", "").replace("\n", "")} | (
        {"pc": text_of_bytes(match[2])} if match[2] else {}
    )


_VALUES: Mapping[str, Callable[[re.Match[bytes]], dict[str, Any]]] = {
    "between": _between,
    "address": lambda match: {"address": Address.of(int(match[1], 16))},
    "esr": lambda match: {"esr": Esr(int(next(group for group in match.groups() if group), 16))},
    "pgtable": _pgtable,
    "walk": _walk,
    "task": _task,
    "process": _process,
    "pc": _pc,
    "lr": lambda match: {"lr": text_of_bytes(match[1])},
    "image_pc": lambda match: {"image_pc": int(match[1], 16)},
    "place": _place,
    "pfn": lambda match: {"pfn": int(match[1], 16)},
    "page": lambda match: {"page": int(match[1], 16)},
    "page_flags": lambda match: {"page_flags": tuple(text_of_bytes(match[1]).split("|"))},
}
