"""The facts that rules decide on, by type, and for each one that is missing, why and how to collect it."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from parsers.kconfig import Kconfig
from parsers.kinds import KINDS, Kind, kinds_of_fact, steps
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.records import dataclass
from parsers.uname import KernelRelease
from parsers.vmcore.moment import CHANGED
from parsers.vmcore.rows import RECORDS
from rules.model.log_events import LogEvents
from rules.model.memory.regions import LinearMap, Vmemmap
from rules.model.memory.resources import Resources
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import Earlier, ListedSections, PrintedTables
from rules.model.memory.walk import PageWalk
from rules.model.oops import Oopses
from rules.model.replay.offlining import Offlining
from rules.model.replay.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Mapping as Dict

__all__ = ["AUDIT_AGAIN", "Facts", "how_to_collect", "is_known", "what_it_is", "with_how_to_collect"]

F = TypeVar("F")
AUDIT_AGAIN = "audit again when hotplug is quiet"
"""What to do about memory that changed while it was read."""


class _Made(NamedTuple):
    """A fact that is worked out from evidence: what a person calls it, and the kinds of evidence that give it."""

    what: str
    kinds: tuple[str, ...]
    step: str = ""
    """How it is asked for, with ``{}`` for how the first of ``kinds`` is; empty if as all of them are."""
    in_memory: bool = False
    """Whether a crash dump, or /proc/kcore, gives it too."""


_CRASH_DUMP = ("vmcore",)

_MADE: dict[type, _Made] = {
    Mapping: _Made("a page-table dump", ("ptdump",), in_memory=True),
    LinearMap: _Made("the linear map", ("ptdump",), in_memory=True),
    Vmemmap: _Made("the vmemmap area", ("ptdump",), in_memory=True),
    Earlier: _Made("an earlier page-table dump", ("ptdump",), "a second time, later: {}", in_memory=True),
    KernelLayout: _Made("the kernel's address layout", ("vmcoreinfo",)),
    Resources: _Made("/proc/iomem", ("iomem",)),
    SectionTable: _Made("the section table (/proc/iomem, memory blocks)", ("iomem", "memory_blocks"), in_memory=True),
    Oopses: _Made("the kernel log", ("dmesg",)),
    Offlining: _Made("which blocks could go offline", ("ptdump", "memory_blocks", "iomem")),
    LogEvents: _Made("the kernel log", ("dmesg",)),
    Timeline: _Made("a trace of hotplug operations", ("trace",)),
    PrintedTables: _Made("a page-table dump beside a crash dump", ("ptdump",)),
    ListedSections: _Made("the section table of /proc/iomem and the memory blocks", ("iomem", "memory_blocks")),
    **{record.fact: _Made(record.described, _CRASH_DUMP) for record in RECORDS},
    PageWalk: _Made("output addresses (a crash dump or /proc/kcore)", _CRASH_DUMP),
}
"""Facts that no parser returns; all others are in `parsers.kinds.KINDS`."""


def _kinds(fact: type | str) -> tuple[Kind, ...]:
    """The kinds of evidence that give a fact, by its type or by the name of a kind of evidence; none if unknown."""
    if isinstance(fact, str):
        kind = KINDS.get(fact.replace(" ", "_"))
        return () if kind is None else (kind,)
    return tuple(KINDS[name] for name in _MADE[fact].kinds) if fact in _MADE else tuple(kinds_of_fact(fact))[:1]


def is_known(fact: type | str) -> bool:
    """Whether there is a way to get such a fact: a type of fact, or the name of a kind of evidence."""
    return bool(_kinds(fact))


def what_it_is(fact: type | str) -> str:
    """What a person calls a fact."""
    if isinstance(fact, type) and fact in _MADE:
        return _MADE[fact].what
    kinds = _kinds(fact)
    return kinds[0].what if kinds else _name(fact)


def how_to_collect(
    fact: type | str, config: Kconfig | None = None, release: KernelRelease | None = None
) -> tuple[str, ...]:
    """What to do to get a fact, by its type or by the name of a kind of evidence; for an unknown one, its name.

    ``config`` and ``release`` are those of the kernel that is asked: what it cannot give is not asked for, but, where
    there is something else that gives the fact, that.
    """
    kinds = _kinds(fact)
    if not kinds:
        return (_name(fact),)
    series = release.series if release is not None else None
    found = tuple(dict.fromkeys(step for kind in kinds for step in steps(kind, config, series)))
    made = _MADE.get(fact) if isinstance(fact, type) else None
    return tuple(made.step.format(step) for step in found) if made is not None and made.step else found


def with_how_to_collect(fact: type) -> str:
    """What a person calls a fact, and every way to get it from any kernel: a line of a rule's page."""
    what, ways = what_it_is(fact), "; ".join(how_to_collect(fact))
    if fact in _MADE and _MADE[fact].in_memory:
        ways += "; or a crash dump, or /proc/kcore (ptaudit audit --live)"
    return what if ways.startswith(what) else f"{what}: {ways}"


def _name(fact: type | str) -> str:
    return fact if isinstance(fact, str) else fact.__name__


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts by type.  ``missing`` says, for a type that is absent, why."""

    known: Dict[type, Any]
    missing: Dict[type, str] = field(default_factory=dict)

    def get(self, kind: type[F]) -> F | None:
        """The fact of that type, or None."""
        return self.known.get(kind)

    def why_missing(self, kind: type) -> str:
        """Why there is no such fact."""
        if kind in self.missing:
            return self.missing[kind]
        config, release = self.get(Kconfig), self.get(KernelRelease)
        series = release.series if release is not None else None
        refused = next((why for one in _kinds(kind) if (why := one.why_not(config, series))), "")
        what = what_it_is(kind)
        return f"{what} cannot be collected from this kernel: {refused}" if refused else f"{what} was not collected"

    def changed(self, kind: type) -> bool:
        """Whether it is missing because memory came or went while a running kernel was read."""
        return self.missing.get(kind, "").endswith(CHANGED)

    def collect(self, kind: type | str) -> tuple[str, ...]:
        """What to do to get it from this kernel."""
        if isinstance(kind, type) and self.changed(kind):
            return (AUDIT_AGAIN,)
        return how_to_collect(kind, self.get(Kconfig), self.get(KernelRelease))
