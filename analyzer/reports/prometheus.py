"""Metrics for node_exporter's textfile collector: gauges without timestamps, each family announced once.

The last-run gauge distinguishes a host whose audit no longer runs from one where nothing is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from analyzer.output import printable
from analyzer.verdict import State, evidence_of
from parsers.layout import KernelLayout
from parsers.uname import KernelRelease
from rules.engine import Outcome
from rules.finding import Severity

if TYPE_CHECKING:
    from analyzer.audit import Report

__all__ = ["render"]


class _Sample(NamedTuple):
    labels: dict[str, str]
    value: float


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 one shape for all
    """The metrics in the Prometheus text format."""
    return "".join(line for name, what, samples in _families(report) for line in _family(name, what, samples))


def _family(name: str, what: str, samples: list[_Sample]) -> Iterator[str]:
    yield f"# HELP {name} {_line(what)}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        text = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{f'{{{text}}}' if text else ''} {value:.15g}\n"


def _line(text: str) -> str:
    return printable(text).replace("\\", r"\\")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", " ")


def _families(report: Report) -> Iterator[tuple[str, str, list[_Sample]]]:
    found = Counter(one.severity for one in report.findings)
    outcomes = Counter(one.outcome for one in report.verdicts)
    overall = report.overall
    yield (
        "ptaudit_verdict",
        f"{overall.text} (1 for the state in the label)",
        [_Sample({"state": str(state)}, float(state is overall.state)) for state in State],
    )
    yield "ptaudit_info", "Version of ptaudit and of the kernel that was audited.", [_Sample(_info(report), 1)]
    yield (
        "ptaudit_last_run_timestamp_seconds",
        "When the audit ran.",
        [_Sample({}, report.when.timestamp())],
    )
    yield (
        "ptaudit_evidence",
        "Whether the audit had the evidence without which the state of memory cannot be judged.",
        [_Sample({"evidence": name}, float(there)) for name, there in evidence_of(report).items()],
    )
    yield (
        "ptaudit_severe_rules",
        "Rules of severity high or above: all that were run, and those that could not look.",
        [_Sample({"counted": "run"}, overall.of), _Sample({"counted": "undecided"}, overall.undecided)],
    )
    counts = Counter(one.severity for one in report.incidents)
    yield (
        "ptaudit_incidents",
        "Incidents by severity: findings that one event or state explains count once.",
        [_Sample({"severity": str(level)}, counts[level]) for level in reversed(Severity) if level >= Severity.HIGH],
    )
    yield (
        "ptaudit_findings",
        "Findings by severity, without accepted ones.",
        [_Sample({"severity": str(level)}, found[level]) for level in reversed(Severity)],
    )
    yield (
        "ptaudit_rules",
        "Rules by outcome; undecided ones lack evidence.",
        [_Sample({"outcome": str(outcome)}, outcomes[outcome]) for outcome in Outcome],
    )
    yield (
        "ptaudit_rule_outcome",
        "What each rule came to; 1 for the outcome in the label.",
        [
            _Sample({"rule": one.rule.code, "severity": str(one.rule.severity), "outcome": str(one.outcome)}, 1)
            for one in report.verdicts
        ],
    )
    prospects = report.outlook
    yield (
        "ptaudit_unsafe_units",
        "Namespaces, DIMMs and ranges whose removal would break something else.",
        [_Sample({}, prospects.unsafe)],
    )
    yield (
        "ptaudit_units",
        "What removing each unit, or taking each hot-added memory block offline, would come to.",
        [
            _Sample({"operation": str(verb), "answer": str(kind)}, count)
            for (verb, kind), count in prospects.counts.items()
        ],
    )
    yield "ptaudit_accepted_findings", "Findings that the baseline accepts.", [_Sample({}, len(report.accepted))]
    yield "ptaudit_stale_baseline_entries", "Baseline entries to remove.", [_Sample({}, len(report.stale))]


def _info(report: Report) -> dict[str, str]:
    release, layout = report.facts.get(KernelRelease), report.facts.get(KernelLayout)
    return {
        "version": version("ptaudit"),
        "kernel": release.raw if release else "",
        "page_size": str(layout.get("page_size") or "") if layout else "",
    }
