"""From oopses and messages of the kernel log to hits: what all rules of this family share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from parsers.dmesg import Dmesg
from parsers.oops import ReportKind
from rules.finding import Hit, Severity
from rules.model.log import address_ranges, messages_like, need_whole_log, quote_messages
from rules.rule import UndecidedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules.finding import Claim
    from rules.model.bugs import Judgement
    from rules.model.oops import DecodedOops, Oopses
    from rules.model.plausibility import Standing

__all__ = ["need_whole", "oops_hit", "said", "spoken_hits", "urgency"]


def urgency(standing: Standing, owner: str, severity: Severity | None = None) -> Severity | None:
    """At most medium where neither the owner of the memory nor a sign of hotplug makes lost struct pages likely."""
    if owner or standing.has_reason:
        return severity
    return Severity.MEDIUM


def oops_hit(
    oops: DecodedOops,
    title: str,
    message: str,
    claim: Claim,
    severity: Severity | None = None,
    judgement: Judgement | None = None,
) -> Hit:
    """A hit for one oops.  What an earlier boot of the log left behind is gone: less urgent."""
    if not oops.current:
        severity = Severity.HIGH if severity is None else min(severity, Severity.HIGH)
    again = f" The log has it {oops.report.repeats + 1} times." if oops.report.repeats else ""
    return Hit(
        title=title,
        message=f"{message}{again}",
        claim=claim,
        severity=severity,
        pfns=oops.pfns,
        vas=oops.vas,
        evidence=oops.evidence,
        known_bug=None if judgement is None else judgement.as_known(),
        key="" if oops.vas else f"{oops.report.kind} {oops.report.place or oops.report.function}",
    )


def said(oopses: Oopses, pattern: str, *kinds: ReportKind) -> Iterator[DecodedOops]:
    """Reports whose own words match."""
    wanted = re.compile(pattern)
    return (oops for oops in oopses.of_kind(*kinds) if wanted.search(oops.report.text))


def spoken_hits(
    oopses: Oopses, pattern: str, title: str, message: str, claim: Claim, severity: Severity | None = None
) -> Iterator[Hit]:
    """One hit for all messages of the boot that match, whether they come with a WARN or alone."""
    warned = [oops for oops in oopses.all if re.search(pattern, oops.report.warning)]
    for oops in warned:
        yield oops_hit(oops, title, f"{oops.who}: {message}", claim, severity)
    lines = messages_like(oopses.dmesg, pattern)
    if lines and not any(oops.current for oops in warned):
        yield Hit(
            title=title,
            message=message,
            claim=claim,
            severity=severity,
            pfns=address_ranges(lines, oopses.layout),
            evidence=quote_messages(oopses.dmesg, lines),
            key=pattern,
        )


def need_whole(oopses: Oopses) -> None:
    """UndecidedError where the log may have lost what the rule looks for."""
    ending = oopses.of_kind(ReportKind.ABORT, ReportKind.BUG, ReportKind.DIED, ReportKind.WARNING)
    lost = next((oops for oops in ending if oops.current and not oops.report.complete), None)
    if lost is not None:
        raise UndecidedError(f"the report of line {lost.report.line} is cut short", Dmesg)
    need_whole_log(oopses.dmesg)
