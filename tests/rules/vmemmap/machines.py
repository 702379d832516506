"""Machines with device memory, and the page frames and addresses that a rule names."""

from __future__ import annotations

from dataclasses import replace

from analyzer.audit import audit
from analyzer.sources.read import Request
from rules.engine import Outcome
from rules.finding import Claim
from tests.rules.drawn import BLOCK, MIB, RAM, Drawn

NVDIMM = 0x80000000
"""Right after the RAM, on a section edge."""


def namespaces(*ranges, base=None):
    """A machine with device memory in these ranges (MiB from the edge), their struct pages in blocks."""
    machine = base or Drawn()
    rows = tuple((NVDIMM + lo * MIB, NVDIMM + hi * MIB) for lo, hi in ranges)
    sections = sorted({number for lo, hi in rows for number in range(lo >> 27, (hi - 1 >> 27) + 1)})
    return replace(
        machine,
        linear=(*machine.linear, *((lo, hi, "PMD", BLOCK) for lo, hi in rows)),
        pages=(*machine.pages, *((one << 27, one + 1 << 27, "PMD", BLOCK) for one in sections)),
        iomem=(*machine.iomem, *((lo, hi, f"dax0.{at}") for at, (lo, hi) in enumerate(rows))),
    )


def all_pfns(verdict):
    return [one.hit.pfns.tuples() for one in verdict.findings]


def vas(verdict):
    return [[(va.start, va.end) for va in one.hit.vas] for one in verdict.findings]


def addresses(*ranges):
    """Virtual addresses of the struct pages of physical ranges (MiB from the edge)."""
    machine = Drawn()
    return [tuple(machine.struct_page_of(NVDIMM + at * MIB) for at in pair) for pair in ranges]


def verdict_on(code, *paths):
    return next(one for one in audit(Request(paths)).verdicts if one.rule.code == code)


def listed(folder, code, *names, release="5.10.100", page_size=4096, size="SIZE(page)=64\n", mib=(0, 32, 64)):
    """The outcome, severities and PFNs in MiB for adjacent ranges after RAM, without page tables."""
    edges = [NVDIMM + one * MIB for one in mib]
    iomem = (
        (RAM, RAM + 1024 * MIB, "System RAM"),
        (edges[0], NVDIMM + 1024 * MIB, "Persistent Memory"),
        *((lo, hi, f"  {name}") for lo, hi, name in zip(edges[:-1], edges[1:], names, strict=True)),
    )
    lines = "".join(
        f"{'  ' if what.startswith('  ') else ''}{lo:08x}-{hi - 1:08x} : {what.strip()}\n" for lo, hi, what in iomem
    )
    machine = replace(Drawn(), release=release)
    info = f"OSRELEASE={release}\nPAGESIZE={page_size}\nNUMBER(VA_BITS)=48\n{size}NUMBER(SECTION_SIZE_BITS)=27\n"
    files = {"kernel_page_tables": "", "iomem": lines, "vmcoreinfo": info}
    verdict = replace(machine, files=files).verdict(folder, code)
    shift = page_size.bit_length() - 1
    found = [
        (str(one.severity), [((lo << shift) - NVDIMM) // MIB for pair in one.hit.pfns.tuples() for lo in pair])
        for one in verdict.findings
    ]
    assert verdict.outcome is (Outcome.FIRED if found else Outcome.UNDECIDED), verdict.reason
    assert {one.hit.claim for one in verdict.findings} <= {Claim.SUSPECTED, Claim.PROBABLE}
    return found
