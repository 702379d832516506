"""ENV-05: memory that a hypervisor plugs in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rules.finding import Claim, Evidence, Hit, Impact, Severity
from rules.model.memory.resources import Resources
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="ENV-05",
    name="virtio-mem",
    severity=Severity.INFO,
    impact=Impact.INFORMATIONAL,
    references=("drivers/virtio/virtio_mem.c: sub-block mode keeps unplugged pages inside of online blocks",),
)
def virtio_mem(resources: Resources) -> Iterator[Hit]:
    """Part of the memory is plugged and unplugged by the hypervisor in pieces smaller than a block.

    What it means:
    In blocks of virtio-mem some pages may be unplugged (PageOffline) while the block is online: their struct
    pages and linear map stay. Nothing is wrong with that.

    How it is detected:
    "System RAM (virtio_mem)" in /proc/iomem.

    When it is not a problem:
    It is not a problem; it is reported because it explains mixed states.

    What to do:
    Nothing.
    """
    iomem = resources.iomem
    rows = iomem.named("System RAM (virtio_mem)").tolist()
    if rows:
        total = sum(int(iomem.last[row]) - int(iomem.start[row]) + 1 for row in rows)
        yield Hit(
            title=f"{total >> 20} MiB of RAM come from virtio-mem",
            message="Blocks of virtio-mem may be online in part; their struct pages and linear map are complete.",
            claim=Claim.PROVEN,
            evidence=tuple(
                Evidence(
                    iomem.path,
                    f"{int(iomem.start[row]):08x}-{int(iomem.last[row]):08x} : {iomem.name[row]}",
                    int(iomem.line[row]),
                )
                for row in rows[:6]
            ),
        )
