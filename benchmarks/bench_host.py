"""The whole model and all rules on a generated host of 16 TiB: 131,072 sections, 8.4 million subsections.

    python benchmarks/bench_host.py [--tib 16]

Prints the time of each step beside a yardstick of the same run (sorting 10 million random 64-bit numbers), and
the peak memory.  The text dump of such a host is parsed by bench_ptdump.py; here the model starts from parsed files.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from analyzer.sources.read import Request, read_sources
from parsers.layout import KernelLayout
from rules.engine import builtin_rules, run
from rules.model.captured import build_facts
from rules.model.memory.coverage import Coverage
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.sections import SectionTable

GIB = 1 << 30
SECTION = 1 << 27
LINEAR, VMEMMAP = 0xFFFF000000000000, 0xFFFFFDFFC0000000
NORMAL = "RW NX SHD AF        BLK UXN    MEM/NORMAL-TAGGED"
STRUCTS = "RW NX SHD AF        BLK UXN    MEM/NORMAL"
BASE = "RW NX SHD AF            UXN    MEM/NORMAL"


def row(start: int, end: int, level: str, attributes: str = "") -> str:
    size, unit = (end - start) >> 10, "K"
    for larger in "MGTPE":
        if size % 1024:
            break
        size, unit = size >> 10, larger
    text = f"0x{start:016x}-0x{end & (2**64 - 1):016x}   {size:9d}{unit} {level}"
    return f"{text}       {attributes}\n" if attributes else f"{text}\n"


def host(tib: int) -> dict[str, str]:
    """A host with RAM from 0, every 64th section's struct pages in base pages, every 4th GiB a hole in RAM."""
    total = tib << 40
    linear, vmemmap, iomem, blocks = [], [], [], ["block_size_bytes:8000000\n"]
    for start in range(0, total, 4 * GIB):
        ram_end = start + 3 * GIB
        linear.append(row(LINEAR + start, LINEAR + ram_end, "PMD", NORMAL))
        linear.append(row(LINEAR + ram_end, LINEAR + start + 4 * GIB, "PUD"))
        iomem.append(f"{start:08x}-{ram_end - 1:08x} : System RAM\n")
        first, sections = start // SECTION, 3 * GIB // SECTION
        base = VMEMMAP + first * (2 << 20)
        if (start // (4 * GIB)) % 3 == 0:
            vmemmap.append(row(base, base + (2 << 20), "PTE", BASE))
            vmemmap.append(row(base + (2 << 20), base + sections * (2 << 20), "PMD", STRUCTS))
        else:
            vmemmap.append(row(base, base + sections * (2 << 20), "PMD", STRUCTS))
        vmemmap.append(row(base + sections * (2 << 20), base + 32 * (2 << 20), "PMD"))
        blocks += [f"memory{number}/state:online\n" for number in range(first, first + sections)]
    end = VMEMMAP + total // 64
    dump = [
        "---[ Linear Mapping start ]---\n",
        *linear,
        row(LINEAR + total, 0xFFFF800000000000, "PGD"),
        "---[ Linear Mapping end ]---\n---[ Modules start ]---\n",
        row(0xFFFF800000000000, VMEMMAP, "PUD"),
        "---[ Modules end ]---\n---[ vmalloc() area ]---\n---[ vmalloc() end ]---\n---[ vmemmap start ]---\n",
        *vmemmap,
        row(end, 0xFFFFFFFFC0000000, "PGD"),
        "---[ vmemmap end ]---\n",
        row(0xFFFFFFFFC0000000, 1 << 64, "PUD"),
    ]
    return {
        "kernel_page_tables": "".join(dump),
        "iomem": "".join(iomem),
        "memory_blocks": "".join(blocks),
        "uname": "Linux host 6.12.50 #1 SMP aarch64 GNU/Linux\n",
        "config": "CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_VA_BITS=48\n",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tib", type=int, default=20)
    tib = parser.parse_args().tib
    numbers = np.random.default_rng(0).integers(0, 1 << 62, 10_000_000)
    times: dict[str, float] = {}

    def timed(name: str, begin: float) -> float:
        times[name] = time.perf_counter() - begin
        return time.perf_counter()

    now = time.perf_counter()
    np.sort(numbers)
    now = timed("yardstick: sort 10 million numbers", now)
    del numbers
    with tempfile.TemporaryDirectory() as folder:
        for name, text in host(tib).items():
            (Path(folder) / name).write_text(text)
        now = time.perf_counter()
        sources = read_sources(Request((Path(folder),)))
    now = timed("read the captured files", now)
    facts = build_facts(sources.captured)
    now = timed("model", now)
    verdicts = run(builtin_rules(), facts)
    now = timed("rules", now)
    layout, sections = facts.get(KernelLayout), facts.get(SectionTable)
    assert layout is not None
    assert sections is not None
    numbers = np.arange(0, (tib << 40) // layout.section_size)
    coverage = Coverage.of_subsections(sections, facts.get(Vmemmap), facts.get(LinearMap), numbers)
    timed(f"coverage of {coverage.start_pfn.size:,} subsections", now)
    for name, seconds in times.items():
        print(f"{seconds:8.2f} s  {name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"{sum(list(times.values())[2:]):8.2f} s  model, rules and coverage together; peak memory {peak:.2f} GiB")
    print(f"{sections.present_sections.total:,} sections, {int((coverage.valid_pages > 0).sum()):,} valid subsections")
    print("fired:", ", ".join(v.rule.code for v in verdicts if v.findings) or "nothing")


if __name__ == "__main__":
    main()
