"""Runs rules over facts: five outcomes, and no rule can stop another."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import field, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

import rules as package
from parsers.errors import LayoutError, UsageError
from parsers.layout import KernelLayout
from parsers.mapping import Mapping
from parsers.memory_blocks import MemoryBlocks
from parsers.ranges import Ranges
from parsers.records import dataclass
from parsers.vmcore.moment import Flux
from parsers.vmcore.rows import BlockRows, SectionRows, SelfHostedRows, StructPageRows
from rules.facts import AUDIT_AGAIN
from rules.finding import Finding
from rules.model.memory.regions import RegionMap
from rules.model.memory.sections import SectionTable
from rules.model.memory.snapshots import Earlier
from rules.model.memory.walk import PageWalk
from rules.plugins import entry_points
from rules.rule import NotApplicableError, Rule, UndecidedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from rules.facts import Facts
    from rules.finding import Hit
    from rules.signature import Check

__all__ = ["Outcome", "Verdict", "builtin_rules", "load_rules", "run", "select"]

ENTRY_POINT_GROUP = "ptaudit.rules"
_OF_SECTIONS = frozenset({SectionTable, SectionRows, MemoryBlocks, BlockRows, StructPageRows, SelfHostedRows})
"""Facts that lack the sections that changed while they were read."""
MAX_SECTIONS = 1 << 20
"""Sections that a finding lists, 128 TiB; of more than that only the page frames are named."""


class Outcome(StrEnum):
    """The outcome of a rule."""

    FIRED = "fired"
    PASSED = "passed"
    UNDECIDED = "undecided"
    NOT_APPLICABLE = "not_applicable"
    ERROR = "error"


@dataclass(frozen=True)
class Verdict:
    """A rule's outcome, why, what to collect where that would decide it, and its findings."""

    rule: Rule
    outcome: Outcome
    reason: str = ""
    collect: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=())


@cache
def builtin_rules() -> tuple[Rule, ...]:
    """Every rule that lives under ``rules/<family>/<code>_<name>.py``, by code."""
    found: list[Rule] = []
    for family in pkgutil.iter_modules(package.__path__):
        if family.ispkg and family.name != "model":
            home = importlib.import_module(f"{package.__name__}.{family.name}")
            for member in pkgutil.iter_modules(home.__path__):
                found += _rules_of(importlib.import_module(f"{home.__name__}.{member.name}"))
    return tuple(sorted(found, key=lambda rule: _code_order(rule.code)))


def load_rules() -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """Built-in rules and those of installed plug-ins, and a message for each plug-in that failed to load."""
    loaded, broken = list(builtin_rules()), []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            target = point.load()
            found = [target] if isinstance(target, Rule) else _rules_of(target)
        except (Exception, SystemExit) as error:
            broken.append(f"plug-in {point.name}: {type(error).__name__}: {error}")
            continue
        loaded += found
        if not found:
            broken.append(f"plug-in {point.name}: {point.value} is not a rule and defines none")
    return tuple(loaded), tuple(broken)


def _rules_of(module: ModuleType) -> list[Rule]:
    return [value for value in vars(module).values() if isinstance(value, Rule)]


def _code_order(code: str) -> tuple[str, int, str]:
    family, _, number = code.partition("-")
    digits = re.match(r"\d*", number)
    return family, int(digits[0] or 0) if digits else 0, number


def select(rules: Iterable[Rule], only: Iterable[str] = (), ignore: Iterable[str] = ()) -> tuple[Rule, ...]:
    """The rules that ``only`` names (all if it is empty) and ``ignore`` does not, in their order.

    Rules are named by code (``VMM-02``), by family (``VMM``) or by name (``lost-struct-pages``), in any case.
    UsageError for anything else, with what is spelled like it, and where no rule is left.
    """
    known = tuple(rules)
    names = [(one, {one.code.upper(), one.code.partition("-")[0].upper(), one.name.upper()}) for one in known]
    given = tuple(only), tuple(ignore)
    wanted, unwanted = ({name.upper() for name in some} for some in given)
    _refuse_unknown([*given[0], *given[1]], set().union(*(mine for _, mine in names)))
    chosen = tuple(one for one, mine in names if (not wanted or wanted & mine) and not unwanted & mine)
    if known and not chosen:
        raise UsageError("no rule is left: all that are selected are ignored")
    return chosen


def _refuse_unknown(given: list[str], known: set[str]) -> None:
    unknown = [name for name in dict.fromkeys(given) if name.upper() not in known]
    if not unknown:
        return
    from difflib import get_close_matches  # noqa: PLC0415 only for a misspelt name

    close = {match for name in unknown for match in get_close_matches(name.upper(), sorted(known), n=2, cutoff=0.7)}
    spelled = [name if "-" not in name or name[-1].isdigit() else name.lower() for name in sorted(close)]
    hint = f"did you mean {' or '.join(spelled)}? " if spelled else ""
    raise UsageError(f"no rule, family or name {', '.join(map(repr, unknown))}; {hint}ptaudit rules lists them")


def run(rules: Iterable[Rule], facts: Facts) -> list[Verdict]:
    """One verdict a rule, in the given order."""
    return [_verdict(rule, facts) for rule in rules]


def _verdict(rule: Rule, facts: Facts) -> Verdict:
    try:
        return _evaluate(rule, facts)
    except (Exception, SystemExit) as error:  # a rule that ends the program would set its exit status
        return Verdict(rule, Outcome.ERROR, f"{type(error).__name__}: {error}")


def _evaluate(rule: Rule, facts: Facts) -> Verdict:
    """The verdict of a rule; raises whatever its functions raise, except for the outcomes that they declare."""
    if lacking := rule.check.lacking(facts):
        reason = "; ".join(dict.fromkeys(facts.why_missing(kind) for kind in lacking))
        return _fall_back(rule, facts, reason, _steps(facts, lacking))
    hits, why = _decide(rule.check, facts)
    if isinstance(why, NotApplicableError):
        return Verdict(rule, Outcome.NOT_APPLICABLE, str(why))
    if isinstance(why, UndecidedError):
        missing = (facts.missing.get(kind, "") for kind in why.collect if isinstance(kind, type))
        reason = "; ".join(dict.fromkeys((why.reason, *filter(None, missing))))
        return _with_hits(rule, facts, hits, reason, _to_decide(facts, why.collect))
    if isinstance(why, LayoutError):
        if not hits:
            return _fall_back(rule, facts, str(why), facts.collect(KernelLayout))
        return _with_hits(rule, facts, hits, str(why), facts.collect(KernelLayout))
    unseen = _unseen(rule, facts)
    return _with_hits(rule, facts, hits, unseen, _how_to_see(facts) if unseen else ())


def _decide(check: Check, facts: Facts) -> tuple[list[Hit], Exception | None]:
    """The hits of a check, and what it raised after them to say that it does not decide."""
    hits: list[Hit] = []
    try:
        hits.extend(check(facts))
    except (NotApplicableError, UndecidedError, LayoutError) as why:
        return hits, why
    return hits, None


def _fall_back(rule: Rule, facts: Facts, reason: str, collect: tuple[str, ...]) -> Verdict:
    """The verdict where what the rule needs is missing: undecided, or what its fallbacks find.

    Also where an address cannot be placed, because the layout of the kernel is not known well enough.
    """
    hits: list[Hit] = []
    reasons = [reason]
    for check in rule.fallbacks:
        if not check.lacking(facts):
            found, why = _decide(check, facts)
            hits += found
            reasons += [why.reason] if isinstance(why, UndecidedError) else []
    return _with_hits(rule, facts, hits, "; ".join(dict.fromkeys(reasons)), collect)


def _to_decide(facts: Facts, kinds: tuple[type | str, ...]) -> tuple[str, ...]:
    """What to do to get what a rule lacks, of what changed while it was read too."""
    flux = facts.get(Flux)
    if flux is not None and flux.named and not _OF_SECTIONS.isdisjoint(kinds):
        return (AUDIT_AGAIN,)
    return _steps(facts, kinds)


def _steps(facts: Facts, kinds: Iterable[type | str]) -> tuple[str, ...]:
    """What to do to get all of these facts."""
    return tuple(dict.fromkeys(step for kind in kinds for step in facts.collect(kind)))


def _how_to_see(facts: Facts) -> tuple[str, ...]:
    """What to do to get what the page tables and memory blocks that were read do not cover."""
    if facts.get(Flux) is not None:
        return (AUDIT_AGAIN,)
    from_text = (mapping := facts.get(Mapping)) is not None and mapping.pa is None
    return facts.collect(Mapping if from_text else "vmcore")


def _unseen(rule: Rule, facts: Facts) -> str:
    """What a dump lacks of the page tables and memory blocks that the rule looks at: no rule passes on it."""
    mapping, flux = facts.get(Mapping), facts.get(Flux)
    if mapping is None:
        return ""
    needed: list[object] = [facts.get(kind) for kind in rule.needs]
    regions = [region for region in needed if isinstance(region, RegionMap)]
    if Earlier in rule.needs and (earlier := facts.get(Earlier)) is not None:
        regions += [earlier.linear, earlier.vmemmap]
    parts = [
        f"{region.unobserved.total >> 10} KiB of the {region.name} area" for region in regions if region.unobserved
    ]
    if Mapping in rule.needs and not _is_whole(mapping, facts.get(KernelLayout)):
        parts.append("parts of the page tables")
    sections = facts.get(SectionTable) if SectionTable in rule.needs and flux is None else None
    if sections is not None and sections.unshown:
        parts.append("parts of the section table")
    if flux is not None:
        if flux.named and not _OF_SECTIONS.isdisjoint(rule.needs):
            parts.append(flux.named)
        return f"{' and '.join(parts)} changed while they were read" if parts else ""
    return f"{' and '.join(parts)} are not in the dump, or were not walked" if parts else ""


def _is_whole(mapping: Mapping, layout: KernelLayout | None) -> bool:
    """Whether a dump covers everything from the start of the linear map to the end of the vmemmap area."""
    if mapping.observed_start.size != 1:
        return False
    if mapping.pa is not None:
        return True  # the walk of a crash dump begins at the root
    if layout is None or not layout.knows("page_offset", "va_bits", "vmemmap_end"):
        return False
    first, last = int(mapping.observed_start[0]), int(mapping.observed_last[-1])
    return first <= layout.linear_start and last >= max(layout.linear_end, layout.vmemmap_end) - 1


def _with_hits(rule: Rule, facts: Facts, hits: list[Hit], reason: str, collect: tuple[str, ...]) -> Verdict:
    if not hits:
        return Verdict(rule, Outcome.UNDECIDED if reason else Outcome.PASSED, reason, collect)
    findings = sorted(_findings(rule, facts, hits), key=lambda finding: finding.order)
    return Verdict(rule, Outcome.FIRED, reason, collect, tuple(findings))


def _findings(rule: Rule, facts: Facts, hits: list[Hit]) -> Iterator[Finding]:
    layout, walk = facts.get(KernelLayout), facts.get(PageWalk)
    for hit in map(_drop_negative_pfns, hits):
        proven = hit if walk is None else _attach_walk(hit, walk)
        sections: tuple[int, ...] = ()
        if hit.pfns and layout is not None and layout.knows("section_size_bits", "page_size"):
            touched = hit.pfns.divide(layout.pages_per_section, outward=True)
            if touched.total <= MAX_SECTIONS:
                sections = tuple(number for lo, hi in touched.tuples() for number in range(lo, hi))
        yield Finding(rule, proven, sections)


def _drop_negative_pfns(hit: Hit) -> Hit:
    """Drop negative PFNs, which come from bad addresses."""
    return replace(hit, pfns=hit.pfns & Ranges.one(0, 1 << 52)) if hit.pfns and hit.pfns.start[0] < 0 else hit


def _attach_walk(hit: Hit, walk: PageWalk) -> Hit:
    """Attach the page walk; dump evidence has addresses, not lines."""
    seen = tuple(replace(one, line=None) if one.source == walk.source else one for one in hit.evidence)
    return replace(hit, evidence=seen + (walk.evidence(hit.vas[0].start) if hit.vas else ()))
