"""SEC-13: a memory block whose sections are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.ranges import Ranges
from parsers.vmcore.rows import BlockRows, SectionRows
from rules.finding import Hit, Impact, Severity
from rules.model.memory.quotes import block_pfns, blocks_of_no_section, quote_blocks
from rules.model.memory.sections import SectionTable
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator


@rule(
    code="SEC-13",
    name="lingering-block",
    severity=Severity.MEDIUM,
    impact=Impact.LATENT,
    references=(
        "drivers/base/memory.c remove_memory_block_devices(); a leaked reference kept blocks until stable 6.12.92",
    ),
)
def lingering_block(blocks: BlockRows, rows: SectionRows, sections: SectionTable) -> Iterator[Hit]:
    """A memory block that is offline stays although its memory was removed.

    What it means:
    Removal deletes the block's device and then its sections. A leaked reference keeps the device: sysfs offers memory
    that does not exist, and the next add of the same range fails because its name is taken.

    How it is detected:
    struct memory_block of a block that is not online, none of whose sections is present.

    When it is not a problem:
    A dump taken during the removal shows the moment between the two. An online block without sections is SEC-02.

    What to do:
    Do not online the block. Update (stable 6.12.92), and reboot before the range is added again.
    """
    online = np.array([state == "online" for state in blocks.state], dtype=np.bool_)
    gone = np.flatnonzero(blocks_of_no_section(blocks, rows) & ~online)
    if gone.size:
        start, end = block_pfns(blocks, sections.pages_per_section)
        yield Hit(
            title=f"{gone.size} memory block{'s' if gone.size > 1 else ''} without any present section",
            message="The memory was removed, and the block's device is still there.",
            claim=sections.claim,
            pfns=Ranges.of(start[gone], end[gone]),
            evidence=quote_blocks(blocks, gone, sections.source),
        )
