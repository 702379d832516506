"""The walk of the page tables in a crash dump: the evidence behind every finding that comes from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rules.finding import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from parsers.errors import Diagnostic
    from parsers.mapping import U64, Bool, TablePages
    from parsers.vmcore.faults import TableFaults

__all__ = ["PageWalk", "WalkStep"]


class WalkStep(Protocol):
    """One level of the walk of one address (`parsers.vmcore.pagetable.Step`)."""

    @property
    def level(self) -> int:
        """Arm level."""

    @property
    def table_pa(self) -> int:
        """Physical address of the table."""

    @property
    def index(self) -> int:
        """Entry in the table."""

    @property
    def descriptor(self) -> int | None:
        """The entry, None where the dump does not hold it."""

    @property
    def meaning(self) -> str:
        """What the entry is, in words."""

    @property
    def entry_pa(self) -> int:
        """Physical address of the entry."""


@dataclass(frozen=True, eq=False)
class PageWalk:
    """The tables of a dump, and the walk of any address."""

    source: str
    tables: TablePages
    table_descriptor: U64
    """For each table, the descriptor that points at it."""
    repeated: Bool
    """Rows of the mapping in which every entry has the same output address."""
    faults: TableFaults
    """Malformed entries, and those that could not be followed."""
    diagnostics: tuple[Diagnostic, ...]
    steps: Callable[[int], list[WalkStep]]

    def evidence(self, va: int) -> tuple[Evidence, ...]:
        """The walk of ``va``, each level's table, index and value, and how to see the same in crash and drgn."""
        steps = self.steps(va)
        if not steps:
            return ()
        levels = tuple(Evidence(self.source, _text(step), address=step.entry_pa) for step in steps)
        last = steps[-1]
        return (
            *levels,
            Evidence(self.source, f"crash: vtop {va:x}"),
            Evidence(self.source, f"drgn: prog.read_u64({last.entry_pa:#x}, physical=True)"),
        )


def _text(step: WalkStep) -> str:
    value = "not in the dump" if step.descriptor is None else f"{step.descriptor:#018x}"
    return f"level {step.level} table {step.table_pa:#x} index {step.index}: {value} {step.meaning}"
