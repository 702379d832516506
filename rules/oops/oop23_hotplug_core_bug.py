"""OOP-23: the core of memory hotplug found something that must not be, and stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.expressions import expression
from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.hotplug_failures import failures_of
from rules.model.log import quote_messages
from rules.model.oops import Oopses
from rules.oops.hits import need_whole, oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.oops import DecodedOops


@rule(
    code="OOP-23",
    name="bug-hotplug-core",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "mm/memory_hotplug.c add_memory_resource(), __remove_memory(), check_memblock_offlined_cb()",
        "Linux commit eca499ab3749 (v5.3): mm/hotplug: make remove_memory() interface usable",
    ),
)
def hotplug_core_bug(oopses: Oopses) -> Iterator[Hit]:
    """Memory hotplug itself stopped with a BUG, or was asked to remove memory that is online.

    What it means:
    The core of memory hotplug checks what its callers must have done. A BUG in add_memory_resource() means that the
    memory block, or its links in sysfs, are still there: an earlier removal did not finish. One in __remove_memory()
    or remove_memory() means that a driver removed memory that was online (TRC-01). The task dies holding the
    hotplug lock: no further operation will finish until a reboot.

    How it is detected:
    "kernel BUG at mm/memory_hotplug.c" or mm/sparse.c, or a BUG in those functions; or the message "removing memory
    fails, because memory is onlined", which stands before it and in later kernels alone.

    When it is not a problem:
    The message alone is a refusal: nothing was removed, and the driver has to take the memory offline first.

    What to do:
    Reboot after a BUG: the lock is held. Find the driver in the call trace and take memory blocks offline before its
    device is removed. Where adding failed, see in the log whether the same range was removed before.
    """
    broken = [oops for oops in oopses.of_kind(ReportKind.BUG, ReportKind.DIED) if _is_core(oops)]
    for oops in broken:
        yield oops_hit(
            oops,
            "Memory hotplug stopped with a BUG",
            f"{oops.who}: BUG at {oops.report.place or oops.report.function}. {_meaning(oops)}",
            Claim.PROBABLE,
        )
    if not any(oops.current for oops in broken):
        boot = oopses.dmesg.boot
        refused = [failed for failed in failures_of(boot) if failed.failure.name == "remove-online"]
        for failed in refused:
            yield Hit(
                title=failed.failure.title,
                message=f"{failed.describe()} {failed.failure.leaves}",
                claim=Claim.PROBABLE,
                severity=Severity.LOW,
                pfns=failed.pfns(oopses.layout.get("page_size")),
                evidence=quote_messages(oopses.dmesg, (failed.message,)),
                key=failed.key,
            )
    need_whole(oopses)


_FILES = expression(r"mm/(?:memory_hotplug|sparse)\.c:")
_FUNCTIONS = expression(
    r"(?:add_memory_resource|(?:__|try_)?remove_memory|__remove_memory|offline_pages|__add_pages|__remove_pages"
    r"|add_memory_block|remove_memory_block_devices)(?:\.\w+)?$"
)


def _is_core(oops: DecodedOops) -> bool:
    report = oops.report
    died_of_bug = report.kind is ReportKind.BUG or "BUG" in report.headline
    return bool(died_of_bug and (_FILES.match(report.place) or _FUNCTIONS.match(report.function)))


def _meaning(oops: DecodedOops) -> str:
    names = (oops.report.function, *oops.report.trace[:3])
    if any("remove_memory" in name for name in names):
        return "Memory was removed while it was online (TRC-01)."
    if any("add_memory" in name for name in names):
        return "Memory was added whose block or sysfs links are still there: an earlier removal did not finish."
    return "The state of memory that it found must not be."
