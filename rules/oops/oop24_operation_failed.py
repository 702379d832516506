"""OOP-24: an operation on memory failed or was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsers.oops import ReportKind
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.hotplug_failures import failures_of
from rules.model.log import need_whole_log, quote_messages
from rules.model.oops import Oopses
from rules.oops.hits import oops_hit
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.model.hotplug_failures import Failed

MAX_PLACES = 50
"""Findings; operations beyond are counted in the last one's message."""


@rule(
    code="OOP-24",
    name="hotplug-operation-failed",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=(
        "mm/memory_hotplug.c offline_pages(), check_hotplug_memory_range()",
        "drivers/virtio/virtio_mem.c, drivers/dax/kmem.c, drivers/acpi/acpi_memhotplug.c, mm/memremap.c",
    ),
)
def operation_failed(oopses: Oopses) -> Iterator[Hit]:
    """Memory could not be added, removed, or brought online or offline.

    What it means:
    The kernel says in its log that an operation failed or was refused, with the range and often the reason. Some
    failures leave nothing behind; some leave memory half added (VMM-14), blocks that stay offline, a device that
    serves no further request, or memory without a driver. The finding says which.

    How it is detected:
    The messages of memory hotplug, virtio-mem, dax/kmem, pmem and ACPI memory devices, and failures to allocate a page
    table in arch_add_memory(). A soft lockup in unmap_hotplug_range() is reported as well: the removal takes long,
    and has not failed.

    When it is not a problem:
    Taking memory offline fails whenever a page cannot be moved; management software then tries another block.

    What to do:
    The finding says what to do about its operation. Compare block_size_bytes with the range first.
    """
    boot = oopses.dmesg.boot
    groups: dict[str, list[Failed]] = {}
    for failed in failures_of(boot):
        if failed.failure.name not in _ELSEWHERE:
            groups.setdefault(failed.key, []).append(failed)
    page_size = oopses.layout.get("page_size")
    kept = list(groups.items())[:MAX_PLACES]
    for number, (key, group) in enumerate(kept, 1):
        first, dumps = group[0], sum(failed.is_page_dump for failed in group)
        count = max(dumps, len(group) - dumps)
        times = f" {count} times." if count > 1 else ""
        left_out = len(groups) - len(kept) if number == MAX_PLACES else 0
        more = f" {left_out} more operations failed elsewhere." if left_out else ""
        yield Hit(
            title=first.failure.title,
            message=f"{first.describe()}{times} {first.failure.leaves} {first.failure.advice}{more}",
            claim=Claim.PROBABLE,
            severity=first.failure.severity,
            pfns=first.pfns(page_size),
            evidence=quote_messages(oopses.dmesg, tuple(failed.message for failed in group)),
            key=key,
        )
    for oops in oopses.of_kind(ReportKind.LOCKUP):
        remover = oops.report.passes("unmap_hotplug_", "free_hotplug_", "arch_remove_memory")
        if remover:
            yield oops_hit(
                oops,
                "A removal of memory keeps a CPU busy",
                f"{oops.who}: soft lockup in {remover}() (CNT-04). The removal goes on; large ranges take long.",
                Claim.PROBABLE,
                Severity.LOW,
            )
    need_whole_log(oopses.dmesg)


_ELSEWHERE = {"remove-online", "mixed-region", "unaligned"}
"""What OOP-23, OOP-21 and SEC-11 report."""
