"""Synthetic traces: the lines that a kernel with every probe would have written."""

from __future__ import annotations

from dataclasses import dataclass, field

from analyzer.audit import audit
from analyzer.sources.read import Request
from parsers import ftrace
from rules.engine import Outcome
from rules.model.replay.timeline import Timeline
from tests.rules.drawn import MIB

VMEMMAP = 0xFFFFFDFFC0000000


@dataclass
class Tracer:
    """Writes one line an event, a microsecond apart."""

    page_size: int = 4096
    struct_page: int = 64
    section: int = 128 << 20
    whole_sections_only: bool = True
    lines: list[str] = field(default_factory=list)
    pid: int = 100
    cpu: int = 0

    @property
    def text(self):
        """The whole file."""
        return "# tracer: nop\n#\n" + "".join(f"{line}\n" for line in self.lines)

    def replay(self, **more):
        """What the replay makes of it."""
        return Timeline.replay(ftrace.read(self.text.encode(), path="trace"), None, None, **more)

    def event(self, name, function, arguments, *, caller="caller"):
        place = f"{caller}+0x10/0x20 <- {function}" if name.endswith("_ret") else f"{function}+0x0/0x100"
        time = f"{1 + len(self.lines) // 10**6}.{len(self.lines) % 10**6:06d}"
        self.lines.append(
            f"            task-{self.pid:<7d} [{self.cpu:03d}] d.... {time:>12}: {name}: ({place}) {arguments}"
        )

    def pages(self, start, size):
        return start // self.page_size, size // self.page_size

    def add(self, start, size, *, altmap=0, ret=0):
        """arch_add_memory() with everything inside."""
        self.event("mhp_arch_add", "arch_add_memory", f"nid=0 start={start:#x} size={size:#x} altmap={altmap:#x}")
        for low, length in self.pieces(start, size):
            pfn, nr = self.pages(low, length)
            self.event("mhp_sec_add", "sparse_add_section", f"nid=0 pfn={pfn:#x} nr={nr:#x} altmap={altmap:#x}")
            self.populate(pfn, nr, altmap)
            self.event("mhp_sec_add_ret", "sparse_add_section", "ret=0")
        self.event("mhp_arch_add_ret", "arch_add_memory", f"ret={ret}")

    def populate(self, pfn, nr, altmap):
        first, end = VMEMMAP + pfn * self.struct_page, VMEMMAP + (pfn + nr) * self.struct_page
        what = f"start={first:#x} end={end:#x} nid=0 altmap={altmap:#x}"
        self.event("mhp_vmm_pop", "vmemmap_populate", what)
        whole = nr * self.page_size == self.section
        huge = self.page_size == 4096 and (whole or not self.whole_sections_only)
        name = "vmemmap_populate_hugepages" if huge else "vmemmap_populate_basepages"
        self.event("mhp_vmm_huge" if huge else "mhp_vmm_base", name, what)
        self.event("mhp_vmm_pop_ret", "vmemmap_populate", "ret=0")

    def remove(self, start, size, *, altmap=0):
        """arch_remove_memory() with everything inside."""
        self.event("mhp_arch_rem", "arch_remove_memory", f"start={start:#x} size={size:#x} altmap={altmap:#x}")
        for low, length in self.pieces(start, size):
            pfn, nr = self.pages(low, length)
            first, end = VMEMMAP + pfn * self.struct_page, VMEMMAP + (pfn + nr) * self.struct_page
            self.event("mhp_sec_rem", "sparse_remove_section", f"pfn={pfn:#x} nr={nr:#x} altmap={altmap:#x}")
            self.event("mhp_vmm_free", "vmemmap_free", f"start={first:#x} end={end:#x} altmap={altmap:#x}")
            self.event("mhp_vmm_free_ret", "vmemmap_free", "")
            self.event("mhp_sec_rem_ret", "sparse_remove_section", "")
        self.event("mhp_arch_rem_ret", "arch_remove_memory", "")

    def online(self, start, size, *, ret=0):
        self.block("online", start, size, ret)

    def offline(self, start, size, *, ret=0):
        self.block("offline", start, size, ret)

    def block(self, what, start, size, ret):
        pfn, nr = self.pages(start, size)
        self.event(f"mhp_{what}", f"{what}_pages", f"pfn={pfn:#x} nr={nr:#x}")
        if ret is not None:
            self.event(f"mhp_{what}_ret", f"{what}_pages", f"ret={ret}")

    def pieces(self, start, size):
        """A range cut at the edges of sections, as __add_pages() does."""
        while size:
            length = min(size, self.section - start % self.section)
            yield start, length
            start, size = start + length, size - length


TRACED_BASE = 2 << 30
BLOCKS = {"whole_sections_only": False}
"""Parts of sections are populated by blocks, as before d4234d131b0a."""


def trace_verdict(folder, code, text):
    (folder / "trace").write_text(text)
    (verdict,) = audit(Request((folder,)), only=[code]).verdicts
    assert verdict.outcome in {Outcome.FIRED, Outcome.UNDECIDED}, verdict.reason
    return verdict


def played_trace(kernel, calls):
    """The trace of a kernel that adds and removes ranges of MiB."""
    tracer = Tracer(**kernel)
    for word, start, size in calls:
        {"+": tracer.add, "-": tracer.remove}[word](TRACED_BASE + start * MIB, size * MIB)
    return tracer


def predicted(folder, code, tracer):
    """Titles, and page frames in MiB from where the memory begins."""
    unit = MIB // tracer.page_size
    return [
        (
            one.hit.title,
            [(lo // unit - TRACED_BASE // MIB, hi // unit - TRACED_BASE // MIB) for lo, hi in one.hit.pfns.tuples()],
        )
        for one in trace_verdict(folder, code, tracer.text).findings
    ]
