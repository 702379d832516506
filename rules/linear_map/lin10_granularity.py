"""LIN-10: what the linear map is made of, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import PTE, Attr
from parsers.cmdline import CommandLine
from parsers.dmesg import Dmesg
from parsers.kconfig import Kconfig
from parsers.ranges import distinct
from parsers.uname import KernelRelease
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.memory.regions import LinearMap
from rules.rule import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_RENAMED = (6, 18)
"""rodata=on means what rodata=full did, and rodata=noalias what rodata=on did."""
_EARLY_POOL = (6, 4)
"""bfa7965b33ab: KFENCE needs a page-mapped linear map only if it is to be enabled after the boot."""


@rule(
    code="LIN-10",
    name="linear-map-in-pages",
    severity=Severity.INFO,
    impact=Impact.PERFORMANCE,
    references=(
        "arch/arm64/mm/pageattr.c can_set_direct_map() (v6.12): rodata_full, debug_pagealloc, KFENCE, realms",
        "Linux commit a166563e7ec3 (v6.18): blocks with rodata=full on CPUs with BBML2_NOABORT",
    ),
)
def linear_granularity(
    linear: LinearMap,
    *,
    kconfig: Kconfig | None,
    command_line: CommandLine | None,
    kernel_release: KernelRelease | None,
    dmesg: Dmesg | None,
) -> Iterator[Hit]:
    """Most of the linear map is made of single pages.

    What it means:
    Page by page, the linear map needs 8 bytes of tables for each page and a TLB entry for each page that the kernel
    touches; what it buys is that permissions of single pages can be changed. No leaf is larger than a page, so
    removing memory splits none (LIN-02, LIN-04).

    How it is detected:
    The rows of the linear map by the size of their leaves; the reason from command line, configuration and log.

    When it is not a problem:
    It is how most distributions build their kernels (rodata=full), and no error.

    What to do:
    Nothing, or where the tables or TLB misses cost too much: rodata=on (up to 6.17) or rodata=noalias (since 6.18), on
    a CPU with BBML2 6.18 and later, after weighing what the protection is worth.
    """
    size = np.where(linear.valid, linear.end - linear.start, 0)
    total = int(size.sum())
    pages = int(size[(linear.level == PTE) & ~linear.has(Attr.CONT)].sum())
    if pages * 2 <= total:
        return
    shares = {}
    for unit in distinct(linear.leaf_size[linear.valid]).tolist():
        shares[unit] = int(size[linear.leaf_size == unit].sum())
    listed = ", ".join(f"{_bytes(unit)} {100 * share / total:.1f} %" for unit, share in shares.items())
    reasons = _reasons(kconfig, command_line, kernel_release, dmesg)
    why = f"Reason: {'; '.join(reasons)}." if reasons else "Command line and configuration do not say why."
    yield Hit(
        title=f"{100 * pages // total} % of the linear map is made of single pages",
        message=(
            f"By size of the leaves: {listed}. The last-level tables take "
            f"{_bytes(pages // linear.layout.page_size * 8)}. {why}"
        ),
        claim=Claim.PROVEN if linear.mapping.pa is not None else Claim.PROBABLE,
        key="linear map",
    )


def _reasons(
    config: Kconfig | None, line: CommandLine | None, release: KernelRelease | None, dmesg: Dmesg | None
) -> list[str]:
    """What makes can_set_direct_map() true, as far as the evidence says."""
    series = (6, 12) if release is None else release.series
    found = []
    rodata = None if line is None else line.value("rodata")
    if rodata in {"full", "on"} and (rodata == "full" or series >= _RENAMED):
        found.append(f"rodata={rodata} on the command line")
    elif rodata is None and (series >= _RENAMED or (config and config.is_enabled("RODATA_FULL_DEFAULT_ENABLED"))):
        found.append("rodata=full, the default of this kernel")
    if line is not None and line.value("debug_pagealloc") in {"on", "1"}:
        found.append("debug_pagealloc=on on the command line")
    elif config is not None and config.is_enabled("DEBUG_PAGEALLOC_ENABLE_DEFAULT"):
        found.append("debug_pagealloc, the default of this kernel")
    if config is not None and config.is_enabled("KFENCE"):
        interval = None if line is None else line.value("kfence.sample_interval")
        late = (interval == "0") if interval is not None else config.integer("KFENCE_SAMPLE_INTERVAL") == 0
        if late or series < _EARLY_POOL:
            found.append("KFENCE, which may be enabled after the boot" if late else "KFENCE")
    if dmesg is not None and any("RME: Using RSI" in one.text for one in dmesg.boot.messages):
        found.append("a realm")
    if found and series >= _RENAMED and dmesg is not None and dmesg.boot.feature("BBM Level 2") is None:
        found.append("the log names no BBML2 CPU feature, with which 6.18 and later use blocks")
    return found


def _bytes(count: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count >> 10} KiB"
