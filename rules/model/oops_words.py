"""An oops in words: what happened, in which function, and what it means for struct pages and the linear map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.esr import Fault
from parsers.expressions import expression
from parsers.layout import MASK
from parsers.oops import ReportKind
from rules.model.oops import Region
from rules.model.outside_vmemmap import struct_page_outside
from rules.model.plausibility import hotplug_signs, is_external_abort, linear_standing, struct_page_standing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rules.model.oops import DecodedOops

__all__ = ["concern_of", "function_of", "is_related", "what_happened"]

MAX_WORDS = 160

_UNHANDLED = expression(r"Unable to handle kernel (?P<what>[\w -]{1,80}?)(?: at\b.*)?$")
_FAULTS = {"NULL pointer dereference": "NULL pointer dereference", "paging request": "fault on a kernel address"}
"""What the kernel calls a fault whose syndrome is not in the log."""
_LABEL = expression(r"^(?:BUG|WARNING|INFO): ")
_KASAN = expression(r"\bKASAN: [\w -]{4,60} in range \[0x[0-9a-f]{1,16}-0x[0-9a-f]{1,16}\]")


def what_happened(oops: DecodedOops) -> str:
    """The event without its place: ``level 2 translation fault on a read``."""
    report = oops.report
    if report.kind in _FAULTING and report.esr is not None:
        return _syndrome(oops)
    words = _BY_KIND.get(report.kind)
    return words(oops) if words is not None else (report.warning or report.headline)[:MAX_WORDS]


def _syndrome(oops: DecodedOops) -> str:
    esr, report = oops.report.esr, oops.report
    if esr is None or not (esr.is_abort or esr.is_serror):
        return report.headline.partition(" [#")[0]
    if oops.region is Region.NULL and esr.fault is Fault.TRANSLATION:
        return f"NULL pointer dereference ({esr})"
    shadowed = _KASAN.search(report.text)
    return f"{esr} ({shadowed[0]})" if shadowed is not None else str(esr)


def _unhandled(oops: DecodedOops) -> str:
    """A fault whose syndrome is not in the log."""
    said = oops.report.headline
    found = _UNHANDLED.match(said)
    return said[:MAX_WORDS] if found is None else _FAULTS.get(found["what"], f"kernel {found['what']}")


def _bug(oops: DecodedOops) -> str:
    report = oops.report
    return f"BUG at {report.place}" if report.place else (report.warning or report.headline)[:MAX_WORDS]


def _warning(oops: DecodedOops) -> str:
    report = oops.report
    return f"WARNING{' at ' if report.place else ''}{report.place}" + (
        f' "{report.warning[:120]}"' if report.warning else ""
    )


def _headline(oops: DecodedOops) -> str:
    return _LABEL.sub("", oops.report.headline)[:MAX_WORDS]


def _panic(oops: DecodedOops) -> str:
    return f"panic{oops.report.headline.partition('syncing')[2][:MAX_WORDS]}"


def _serror(oops: DecodedOops) -> str:
    return "SError" if is_external_abort(oops) else oops.report.headline[:MAX_WORDS]


_FAULTING = frozenset({ReportKind.ABORT, ReportKind.DIED, ReportKind.SERROR})
_BY_KIND: Mapping[ReportKind, Callable[[DecodedOops], str]] = {
    ReportKind.ABORT: _unhandled,
    ReportKind.DIED: _unhandled,
    ReportKind.SERROR: _serror,
    ReportKind.BUG: _bug,
    ReportKind.WARNING: _warning,
    ReportKind.LOCKUP: _headline,
    ReportKind.CHECK: _headline,
    ReportKind.HUNG: _headline,
    ReportKind.SANITIZER: _headline,
    ReportKind.PANIC: _panic,
    ReportKind.PAGE_DUMP: lambda oops: f"page dump: {oops.report.warning[:120]}",
    ReportKind.BAD_PAGE: lambda _: "bad page state",
    ReportKind.BAD_PTE: lambda _: "bad page-table entry of a process",
    ReportKind.STALL: lambda _: "RCU stall",
}

_PRINTERS = (
    *("dump_", "show_", "bad_page", "__dump", "print_", "panic", "nmi_panic", "__warn", "report_", "rcu_"),
    *("check_cpu_stall", "arm64_serror_panic", "do_serror", "kasan_", "__kasan_", "kfence_"),
)


def function_of(oops: DecodedOops) -> str:
    """Where it happened; for a bad page, who freed or allocated it."""
    own = oops.report.function
    if own.startswith("0x"):  # a jump to nowhere: who made it
        return oops.report.lr.partition("+")[0] or own
    return own or next((name for name in oops.report.trace if not name.startswith(_PRINTERS)), "")


_HOTPLUG_FILES = (
    *("mm/memory_hotplug.c", "drivers/base/memory.c", "mm/sparse", "mm/memremap.c", "arch/arm64/mm/mmu.c"),
    "drivers/virtio/virtio_mem.c",
)
_HOTPLUG_CORE = ("add_memory_resource", "__add_memory", "__remove_memory", "try_remove_memory", "offline_pages")
_MAPPERS = ("unmap_hotplug_", "vmemmap_", "arch_remove_memory", "arch_add_memory", "free_hotplug_")
_NONE = "not struct pages, not the linear map"
_CORE = "in the code that adds and removes memory"
_NOT_A_PAGE = "not a struct page"
_NOT_TORN = "not a torn mapping"


def concern_of(oops: DecodedOops) -> str:
    """What it means for struct pages and the linear map; says so where it concerns neither."""
    report = oops.report
    if report.address is not None and report.kind in {ReportKind.ABORT, ReportKind.DIED, ReportKind.WARNING}:
        return _of_address(oops)
    if is_external_abort(oops):
        user = report.esr is not None and report.esr.from_user
        where = "a program's access" if user else "the address is not in the log"
        return f"the memory system or a device answered with an error; {where}"
    return _of_code(oops)


def _of_code(oops: DecodedOops) -> str:
    """By the file, the functions and the kind of the report."""
    report = oops.report
    if report.kind is ReportKind.SANITIZER or report.warning.startswith("kasan: "):
        who = "KFENCE" if "KFENCE" in report.headline else "KASAN"
        return _CORE if report.passes(*_HOTPLUG_CORE) else f"{_NONE}: a bug that {who} caught"
    if report.page is not None or report.kind in {ReportKind.BAD_PAGE, ReportKind.PAGE_DUMP}:
        return "the state of a page, not its mapping"
    if report.place.startswith(_HOTPLUG_FILES) or report.function in _HOTPLUG_CORE:
        return _CORE
    return "in the code that maps memory" if report.passes(*_MAPPERS) else _NONE


def is_related(oops: DecodedOops, concern: str) -> bool:
    """Whether the state of memory can have to do with it."""
    if concern.startswith((_NONE, _NOT_A_PAGE)) or _NOT_TORN in concern:
        return False
    answered = is_external_abort(oops) and oops.region is not Region.LINEAR
    return not answered or bool(hotplug_signs(oops))


def _of_address(oops: DecodedOops) -> str:
    if oops.region is Region.VMEMMAP:
        excluded = struct_page_standing(oops).excluded
        return f"{_NOT_A_PAGE}: {excluded}" if excluded else f"a struct page: {oops.describe()}"
    if oops.region is Region.LINEAR:
        excluded = "" if is_external_abort(oops) else _mapped(oops) or linear_standing(oops).excluded
        purpose = f"; {_NOT_TORN}: {excluded}" if excluded else ""
        return f"the linear map: {oops.describe()}{purpose}"
    if oops.region is None:
        aligned = oops.report.esr is None or oops.report.esr.fault not in _ADDRESS_ONLY
        return _not_known(oops) if aligned else f"{_NOT_TORN}: {_mapped(oops)}"
    detail = _elsewhere(oops)
    return f"{_NONE}: {detail}" if detail else _NONE


def _not_known(oops: DecodedOops) -> str:
    """What the log lacks to place an address, and where it would be."""
    lacks = [] if oops.layout.knows("page_size") else ["the page size and the address bits (swapper pgtable: ...)"]
    lacks += [] if oops.release is not None else ["the release (CPU: ... Comm: ... or the banner)"]
    said = f"the log lacks {' and '.join(lacks)}" if lacks else "the memory map of this release is not known"
    likely = {"linear": "in every layout that fits it is the linear map; "}.get(oops.area, "")
    return f"{likely}the region is not certain: {said}" if likely else f"the region is not known: {said}"


def _elsewhere(oops: DecodedOops) -> str:
    """What an address outside of both is."""
    esr, address = oops.report.esr, oops.report.address
    if oops.region is Region.ERROR and address is not None:
        return f"an error pointer, or a field before NULL ({address.value - (1 << 64)})"
    if (outside := struct_page_outside(oops)) is not None:
        return outside.text
    if esr is not None and esr.from_user:
        return "a program's access"
    return f"KASAN's shadow{_shadowed(oops)}" if oops.area == "kasan_shadow" else ""


_ONLY_MAPPED = frozenset({Fault.PERMISSION, Fault.ALIGNMENT, Fault.TAG_CHECK, Fault.ACCESS_FLAG})
"""Faults that only a valid entry gives."""


_ADDRESS_ONLY = frozenset({Fault.ALIGNMENT, Fault.TAG_CHECK})


def _mapped(oops: DecodedOops) -> str:
    """Why the page must be mapped."""
    fault = oops.report.esr.fault if oops.report.esr is not None else None
    return f"the page is mapped ({fault})" if fault in _ONLY_MAPPED else ""


def _shadowed(oops: DecodedOops) -> str:
    """The address that the shadow stands for (kasan_mem_to_shadow())."""
    shadow = next((area for area in oops.areas if area.name == "kasan_shadow"), None)
    address = oops.report.address
    if shadow is None or address is None or oops.kasan is None:
        return ""
    scale = oops.kasan.scale_shift
    offset = (shadow.end - (1 << (64 - scale))) & MASK
    return f" of {((address.value - offset) << scale) & MASK:#x}"
