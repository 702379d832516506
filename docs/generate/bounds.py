"""The page of bounds: what reading evidence may cost.  Amounts come from the code that enforces them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields

from analyzer.fleet.fleet_command import query as fleet_query
from analyzer.fleet.fleet_command import run as fleet_run
from analyzer.memory import SHARE
from analyzer.sources import folder
from analyzer.sources.archive import Limits
from analyzer.sources.budget import Bounds
from parsers import dmesg, oops, parts, transport
from parsers.ftrace import chrome, table
from parsers.image import read as image
from parsers.kinds import KINDS
from parsers.vmcore import container, kdump_file, pagetable, sparsemem

__all__ = ["bounds_page"]

_INTRODUCTION = """# Bounds

Evidence may be damaged or hostile: whatever it holds, reading it takes no more than this. What exceeds a bound is
listed as unread (`unread` in the JSON report) with the bound, or the command ends with status 2 and one line where
nothing else can be read. Nothing in evidence is executed, and archives are read in memory, never unpacked to disk.
"""
_BUDGET = """## One audit

Everything that is given to one audit shares these, whether it is a file, a directory, an archive or standard input.
`--budget N` (1 to 64) multiplies each by N.

What is held counts until the end, also what was let go before. While the largest text is parsed it takes up to
twice its size besides, so an audit stays below 5 GiB of memory, and usually takes a fraction of the size of its
evidence. Crash dumps are read where they lie; a compressed one is decompressed into a temporary file without a
name, up to the free space of that file system.
"""
_MEMORY = """## The whole program

On Linux the program allocates at most {0}/{1} of the memory of the host or container (RLIMIT_DATA); beyond that
it ends with status 4 and "out of memory". `ptaudit fleet` gives each bundle {2:.0f} s (`--timeout`) and {3} MiB
(`--memory`) in a process of its own, `ptaudit fleet query` takes {4:.0f} s and {5} MiB.
"""


def bounds_page() -> str:
    """Markdown."""
    budget = [(one.metadata["what"], amount(one.name, one.default)) for one in fields(Bounds) if one.metadata]
    rest = {one.name: one.default for one in fields(Limits)}
    archive = [
        ("members of one archive", number(rest["members"])),
        ("size of a member, compared with what is packed", f"{rest['ratio']} times, or {size(rest['ratio_from'])}"),
        ("archives in archives", f"{rest['depth']} deep"),
        ("files in one directory", number(folder.MAX_FILES)),
        ("directories in directories", f"{folder.MAX_DEPTH} deep"),
    ]
    query = {option.name: option.default for option in fleet_query.params}
    run = {option.name: option.default for option in fleet_run.params}
    return "\n".join(
        [
            _INTRODUCTION,
            _BUDGET,
            table_of(budget),
            "## Archives and directories\n",
            table_of(archive),
            "## One file\n",
            table_of(_of_files()),
            _MEMORY.format(*SHARE, run["timeout"], run["memory"], query["timeout"], query["memory"]),
        ]
    )


def _of_files() -> Iterator[tuple[str, str]]:
    """By kind, then within the large ones."""
    for kind in KINDS.values():
        if kind.parse is not None and (most := getattr(sys.modules[kind.parse.__module__], "MAX_BYTES", None)):
            yield kind.what, size(most)
    yield "a kernel image", size(image._MAX_FILE)
    yield "a text that is searched for several kinds of evidence", size(transport.MAX_BYTES)
    yield "changes of kind in such a text", number(parts.MAX_RUNS)
    yield "messages about memory that are kept of a log, the last ones", number(dmesg.MAX_MESSAGES)
    yield "boots in a log", number(dmesg.MAX_BOOTS)
    yield "oopses and warnings in a log, the first ones", number(oops.MAX_REPORTS)
    yield "events of memory hotplug in a trace", number(table.MAX_ROWS)
    yield "a trace in Chrome's format", size(chrome.MAX_BYTES)
    yield "size of a crash dump, compared with what is packed", f"{number(container.MAX_RATIO)} times"
    yield "translation tables in a crash dump", number(pagetable._MAX_TABLES)
    yield "rows of page tables in a crash dump", number(pagetable._MAX_ROWS)
    yield "sections in a crash dump", number(sparsemem._MAX_SECTIONS)
    yield "bitmap of a kdump", size(kdump_file._MAX_BITMAP)


def table_of(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | at most |", "|---|---|", *(f"| {what} | {most} |" for what, most in rows), ""])


def amount(name: str, value: float) -> str:
    if name.endswith("bytes"):
        return size(int(value))
    return f"{value:.0f} s" if name.endswith("seconds") else number(int(value))


def size(value: int) -> str:
    """As a multiple of the largest unit that it is a whole number of."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if not value % (1 << shift):
            return f"{value >> shift:,} {unit}"
    return f"{value:,} bytes"


def number(value: int) -> str:
    return f"{value:,}"
