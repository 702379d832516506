"""Which findings one event or one state explains.

An incident grows around findings of severity high or above.  Two findings belong together where the same event of the
trace caused both, where both quote the same line of a log or trace, or where rules about the same subject name the same
page frames or addresses.  Findings that hold for the whole machine join an incident about their subject if there is one
only.  Everything else stays alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyzer.incidents.subjects import subjects_of
from parsers.ranges import Ranges
from rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from rules.finding import Finding

__all__ = ["grouped", "joined_pfns"]

SEED = Severity.HIGH
LEAST = Severity.LOW
MAX_SECTIONS = 64
"""A finding of more sections is compared with every other one."""
MAX_COMPARED = 64
"""Findings of one subject in one section, or without a section, that one is compared with."""


def grouped(findings: Sequence[Finding], logs: frozenset[str], pages_per_section: int | None) -> list[list[Finding]]:
    """Groups of findings, each worst first; ``logs`` are the sources whose lines are events.

    The time is linear in the findings: only those of one section, event or line are compared.
    """
    nodes = [_Node(one, logs, pages_per_section) for one in findings if one.severity >= LEAST]
    groups = _with_machine_wide(_connected(nodes))
    kept = (group for group in groups if any(node.finding.severity >= SEED for node in group))
    ordered = [sorted((node.finding for node in group), key=lambda one: one.order) for group in kept]
    return sorted(ordered, key=lambda group: group[0].order)


class _Node:
    """A finding with what can tie it to others."""

    def __init__(self, finding: Finding, logs: frozenset[str], pages_per_section: int | None) -> None:
        hit = finding.hit
        self.finding = finding
        self.subjects = subjects_of(finding.rule)
        self.event = None if hit.cause is None else (hit.cause.event, hit.cause.time, hit.cause.what)
        self.lines = frozenset((one.source, one.line) for one in hit.evidence if one.line and one.source in logs)
        self.pfns = hit.pfns
        if self.pfns and finding.rule.family == "oops" and pages_per_section:
            # An oops names one page of what is gone: a block of struct pages is at most a section's.
            self.pfns = self.pfns.divide(pages_per_section, outward=True).scale(pages_per_section)
        self.vas = () if self.pfns else tuple((va.start, va.end) for va in hit.vas)

    @property
    def everywhere(self) -> bool:
        return not self.pfns and not self.vas

    @property
    def ties(self) -> Iterator[Hashable]:
        """What ties it to whatever has the same."""
        yield from () if self.event is None else (self.event,)
        yield from self.lines

    @property
    def places(self) -> list[Hashable]:
        """Where others that may overlap with it are found: by subject, and by section where there are few."""
        sections = self.finding.sections if self.pfns and len(self.finding.sections) <= MAX_SECTIONS else ()
        return [(subject, section) for subject in self.subjects for section in sections or (None,)]

    def belongs_to(self, other: _Node) -> bool:
        return bool(self.subjects & other.subjects) and self._overlaps(other)

    def _overlaps(self, other: _Node) -> bool:
        if self.pfns and other.pfns:
            return bool(self.pfns & other.pfns)
        return any(start < end2 and start2 < end for start, end in self.vas for start2, end2 in other.vas)


def _connected(nodes: list[_Node]) -> list[list[_Node]]:
    """The nodes in groups: whatever is tied, directly or through others."""
    home = list(range(len(nodes)))

    def root(number: int) -> int:
        while home[number] != number:
            home[number] = number = home[home[number]]
        return number

    first: dict[Hashable, int] = {}
    placed: dict[Hashable, list[int]] = {}
    for number, node in enumerate(nodes):
        for tie in node.ties:
            home[root(number)] = root(first.setdefault(tie, number))
        for place in node.places:
            others = placed.setdefault(place, [])
            for other in others[:MAX_COMPARED]:
                if root(other) != root(number) and node.belongs_to(nodes[other]):
                    home[root(number)] = root(other)
            others.append(number)
    _join_wide(nodes, home, root)
    groups: dict[int, list[_Node]] = {}
    for number, node in enumerate(nodes):
        groups.setdefault(root(number), []).append(node)
    return list(groups.values())


def _join_wide(nodes: list[_Node], home: list[int], root: Callable[[int], int]) -> None:
    """Findings of many sections have no single place: they are compared with all."""
    wide = [number for number, node in enumerate(nodes) if len(node.finding.sections) > MAX_SECTIONS]
    for number in wide[:MAX_COMPARED]:
        for other, node in enumerate(nodes):
            if root(other) != root(number) and node.belongs_to(nodes[number]):
                home[root(other)] = root(number)


def _with_machine_wide(groups: list[list[_Node]]) -> list[list[_Node]]:
    """Findings without a place go to the only group of their subject."""
    homes: dict[str, list[list[_Node]]] = {}
    for group in groups:
        for subject in frozenset().union(*(node.subjects for node in group)):
            homes.setdefault(subject, []).append(group)
    kept: list[list[_Node]] = []
    for group in groups:
        others = _others(group, homes) if all(node.everywhere for node in group) else []
        if len(others) == 1:
            others[0].extend(group)
            group.clear()
        else:
            kept.append(group)
    return [group for group in kept if group]


def _others(group: list[_Node], homes: dict[str, list[list[_Node]]]) -> list[list[_Node]]:
    """The other groups that share a subject with one."""
    subjects = frozenset().union(*(node.subjects for node in group))
    found = {id(one): one for subject in subjects for one in homes[subject] if one is not group and one}
    return list(found.values())


def joined_pfns(findings: Iterable[Finding]) -> Ranges:
    """All page frames of findings."""
    return Ranges.pairs(pair for one in findings for pair in one.hit.pfns.tuples())
