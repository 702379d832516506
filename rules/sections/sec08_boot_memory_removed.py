"""SEC-08: boot memory that was taken offline, or that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.dmesg import Dmesg
from parsers.layout import KernelLayout
from parsers.ranges import Ranges
from parsers.vmcore.rows import SectionRows
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.log import address_ranges, messages_like, need_whole_log, quote_messages
from rules.model.memory.quotes import name_sections, quote_sections, section_pfns
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_GONE = r"^Boot memory \[[0-9a-f ]+\] offlined"
_REMOVABLE = r"^Boot memory \[[0-9a-f ]+\] is offline, can be removed"


@rule(
    code="SEC-08",
    name="boot-memory-removed",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "arch/arm64/mm/mmu.c prevent_bootmem_remove_notifier(), validate_bootmem_online() (v5.7 to 7.1)",
        "mm/sparse.c early_section() (v6.12)",
    ),
)
def boot_memory_removed(
    dmesg: Dmesg,
    *,
    kernel_layout: KernelLayout | None,
    section_rows: SectionRows | None,
    section_table: SectionTable | None,
) -> Iterator[Hit]:
    """Memory that the kernel booted with went offline, or has lost the mark that keeps it from being removed.

    What it means:
    arm64 cannot remove boot memory: its struct pages and its linear map were made in one piece with the rest, and
    tearing out a part takes neighbours along. The notifier that prevents it goes by the EARLY flag of the section.

    How it is detected:
    The notifier's own messages; and, in a crash dump, sections of the boot log's memory that lack the EARLY flag.

    When it is not a problem:
    A refused attempt is the protection at work (SEC-10).

    What to do:
    Do not offline or remove anything more. Save what the machine holds, and reboot.
    """
    for pattern, title, severity in (
        (_GONE, "Boot memory was taken offline", None),
        (_REMOVABLE, "Boot memory is offline from the start and can be removed", Severity.MEDIUM),
    ):
        said = messages_like(dmesg, pattern)
        if said:
            yield Hit(
                title=title,
                message=f'The kernel says so: "{said[0].text}".',
                claim=Claim.PROVEN,
                severity=severity,
                pfns=address_ranges(said, kernel_layout),
                evidence=quote_messages(dmesg, said),
                key=pattern,
            )
    if section_rows is not None and section_table is not None:
        yield from _unmarked(dmesg, section_rows, section_table)
    need_whole_log(dmesg)


def _unmarked(dmesg: Dmesg, rows: SectionRows, sections: SectionTable) -> Iterator[Hit]:
    memory = dmesg.boot.memory
    size = sections.layout.section_size
    boot = Ranges.of(memory.start.astype(np.int64) // size, memory.last.astype(np.int64) // size + 1)
    wrong = ~rows.early & boot.contains(rows.section_nr.astype(np.int64))
    if "SECTION_IS_EARLY" in rows.flags and wrong.any():
        yield Hit(
            title=f"{name_sections(rows, wrong)}: boot memory without the EARLY flag",
            message="The boot log lists this memory, and nothing keeps its sections from being removed.",
            claim=sections.claim,
            pfns=section_pfns(rows, wrong, sections.pages_per_section),
            evidence=quote_sections(rows, wrong, sections.source),
            key="not early",
        )
