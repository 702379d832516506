"""Machines with more in their linear map, and the page frames that a rule names."""

from __future__ import annotations

from dataclasses import replace

from tests.rules.drawn import GIB, MIB, RAM, Drawn

DIMM = RAM + GIB
"""Right after the RAM."""
PFN = DIMM >> 12
PAGES = 256
"""Of a MiB."""


def with_more(*, linear=(), iomem=(), **changes):
    """A machine with more in its linear map and in its iomem: ranges in MiB from the end of RAM."""
    machine = Drawn()
    return replace(
        machine,
        linear=machine.linear + tuple((at(lo), at(hi), *what) for lo, hi, *what in linear),
        iomem=machine.iomem + tuple((at(lo), at(hi), what) for lo, hi, what in iomem),
        **changes,
    )


def at(mib):
    return DIMM + int(mib * MIB)


def all_pfns(verdict):
    return [one.hit.pfns.tuples() for one in verdict.findings]


def mib(*ranges):
    """Page frames of ranges in MiB from the end of RAM."""
    return [(PFN + int(lo * PAGES), PFN + int(hi * PAGES)) for lo, hi in ranges]
