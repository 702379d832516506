"""What a kernel log calls the machine: ``DMI: …`` (drivers/firmware/dmi_scan.c) or ``Machine model: …``
(drivers/of/fdt.c), near its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["machine_of"]

HEAD_BYTES = 1 << 20
_MODEL = re.compile(
    rb"\b(?:DMI: (?!Memory slots)([^\n]{1,200}?)(?:, BIOS [^\n]*)?|Machine model: ([^\n]{1,200}?))\s*$", re.MULTILINE
)


def machine_of(logs: Iterable[str]) -> str | None:
    """The machine that the first of these log files names; None where none does or none is a file."""
    for log in logs:
        path = Path(log)
        if path.is_file():
            with path.open("rb") as file:
                found = _MODEL.search(file.read(HEAD_BYTES))
            if found:
                return (found[1] or found[2]).decode("utf-8", "replace").strip()
    return None
