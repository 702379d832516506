"""CNT-05: an address that changed its leaf size between two dumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parsers.arm64 import Attr
from parsers.dmesg import Dmesg
from parsers.ftrace.functions import Kind
from parsers.ranges import distinct
from parsers.uname import KernelRelease
from rules.finding import Claim, Hit, Impact, Severity
from rules.model.log import messages_like
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.snapshots import Earlier
from rules.model.replay.timeline import Timeline
from rules.rule import NotApplicableError, rule
from rules.trace.anomalies import live_changes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parsers.ranges import Ranges
    from rules.model.memory.regions import RegionMap


@rule(
    code="CNT-05",
    name="size-change-without-bbm",
    severity=Severity.HIGH,
    impact=Impact.LATENT,
    references=(
        "Arm ARM D8.17: break-before-make, FEAT_BBM level 2",
        "Linux commit a166563e7ec3 (v6.18): lazily split blocks on BBML2_NOABORT CPUs",
    ),
)
def size_change(
    linear: LinearMap,
    vmemmap: Vmemmap,
    earlier: Earlier,
    *,
    dmesg: Dmesg | None,
    kernel_release: KernelRelease | None,
) -> Iterator[Hit]:
    """A mapped address changed between block, contiguous run and pages while mapped.

    What it means:
    Changing the size of a live translation without break-before-make may leave two translations in
    the TLB, on CPUs without FEAT_BBM level 2: a conflict abort, or stale data.

    How it is detected:
    Two dumps of one boot: ranges that are mapped in both, with another level or Contiguous bit.

    When it is not a problem:
    Kernels since 6.18 split blocks on CPUs that allow it; where no whole boot log names the features of the CPU, this
    is of medium severity. Memory that was unmapped and mapped again between the dumps looks the same; only a trace
    distinguishes them.

    What to do:
    Collect a trace of the change, and the CPU features from the boot log.
    """
    splits = kernel_release is not None and kernel_release.series >= (6, 18)
    if splits and messages_like(dmesg, r"CPU features: .*BBM"):
        raise NotApplicableError("this CPU allows size changes of live translations (BBML2) and the kernel uses it")
    harmless = splits and (dmesg is None or bool(dmesg.boot.lost) or not dmesg.boot.cpu_features)
    for now, before in ((linear, earlier.linear), (vmemmap, earlier.vmemmap)):
        changed = changed_size(before, now)
        if changed:
            yield Hit(
                title=f"Live {now.name} mappings changed their size",
                message=(
                    f"{changed.total >> 10} KiB of the {now.name} area are mapped in both dumps with another leaf size."
                    + (" Whether the CPU allows that (BBML2) is not known." if harmless else "")
                ),
                claim=Claim.SUSPECTED,
                severity=Severity.MEDIUM if harmless else None,
                vas=now.va_ranges(changed)[:64],
                evidence=before.quote_at(changed) + now.quote_at(changed),
                key=now.name,
            )


@size_change.fallback
def predicted_by_trace(timeline: Timeline) -> Iterator[Hit]:
    """Blocks that are split while they are in use, not flushed before they are used again."""
    yield from live_changes(timeline, "A live block was split without a flush in between", Kind.VMEMMAP_SPLIT_PMD)


def changed_size(before: RegionMap, now: RegionMap) -> Ranges:
    """Byte offsets that are valid in both with different level or Contiguous bit."""
    same = before.where(np.zeros(before.start.size, dtype=np.bool_))
    for level in distinct(now.level).tolist():
        for cont in (False, True):
            here = now.where((now.level == level) & (now.has(Attr.CONT) == cont))
            there = before.where((before.level == level) & (before.has(Attr.CONT) == cont))
            same = same | (here & there)
    return (before.mapped & now.mapped) - same
