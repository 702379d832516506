"""The pages that are made of the code: rules, commands, known bugs, evidence, exit statuses.

Nothing of them is written by hand, so nothing of them can be out of date.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click
from bounds import bounds_page

from analyzer.catalogue.rule_page import rule_parts
from analyzer.cli import ptaudit
from parsers.kinds import KINDS, Kind
from rules.engine import builtin_rules
from rules.facts import how_to_collect
from rules.finding import Severity
from rules.model.bugs import KNOWN_BUGS, KnownBug, Version
from rules.rule import Rule

SCHEMA = Path(__file__).parents[2] / "analyzer" / "reports" / "report.schema.json"
FAMILIES = {
    "vmemmap": "Struct pages",
    "linear_map": "Linear map",
    "sections": "Sections, blocks, zones",
    "memmap_on_memory": "Self-hosted struct pages (memmap_on_memory)",
    "hvo": "HugeTLB vmemmap optimisation",
    "contiguous": "Contiguous runs, break-before-make",
    "attributes": "Attributes",
    "tables": "Translation tables",
    "trace": "Traces of hotplug",
    "oops": "Kernel logs: oopses and warnings",
    "witnesses": "Witnesses against each other",
    "environment": "The kernel as a whole",
}


def generated_pages() -> dict[str, str]:
    """Contents by path in the site."""
    rules = builtin_rules()
    pages = {f"rules/{rule.code}.md": rule_page(rule) for rule in rules}
    pages["rules/index.md"] = rules_index(rules)
    pages["reference/commands.md"] = commands_page()
    pages["reference/known-bugs.md"] = known_bugs_page(rules)
    pages["reference/bounds.md"] = bounds_page()
    pages["reference/evidence.md"] = evidence_page(rules)
    pages["reference/report.schema.json"] = SCHEMA.read_text()
    return pages


def code(text: str) -> str:
    """Text as it is, in a table too."""
    return f"`{text}`".replace("|", "\\|")


def prose(text: str) -> str:
    """Text that Markdown must not read anything into."""
    for character in "\\*_<>[]|#":
        text = text.replace(character, f"\\{character}")
    return text


def link(rule: str, known: set[str], below: str = "") -> str:
    return f"[{rule}]({below}{rule}.md)" if rule in known else rule


def rule_page(rule: Rule) -> str:
    lines = [f"# {rule.code} {rule.name}", "", f"**{prose(rule.summary)}**", ""]
    lines += [f"{rule.severity} · {rule.impact} · {FAMILIES[rule.family]}", ""]
    for part in rule_parts(rule):
        lines += [f"## {part.heading}", ""]
        lines += [prose(part.text)] if part.text else [f"- {prose(item)}" for item in part.items]
        lines.append("")
    lines += ["On the command line:", "", "```sh", f"ptaudit explain {rule.code}",
              f"ptaudit audit captured-host/ --select {rule.code} -v", "```", ""]  # fmt: skip
    return "\n".join(lines)


def rules_index(rules: tuple[Rule, ...]) -> str:
    counts = {level: sum(rule.severity is level for rule in rules) for level in reversed(Severity)}
    lines = [
        "# Rules",
        "",
        f"{len(rules)} rules: {', '.join(f'{count} {level}' for level, count in counts.items())}.",
        "",
    ]
    lines += [
        "The severity is the highest that a finding of the rule can have; a finding says less where its evidence is"
        " weak. How urgent each is:",
        "",
        "| severity | means |",
        "|---|---|",
        "| critical | memory is corrupt, or an ordinary access faults, now |",
        "| high | a plausible next operation (an unplug, an online) corrupts or crashes; or a security hole |",
        "| medium | performance, robustness |",
        "| low | waste |",
        "| info | context |",
        "",
    ]
    for family, title in FAMILIES.items():
        lines += [f"## {title}", "", "| rule | severity | impact | finds |", "|---|---|---|---|"]
        lines += [
            f"| [{rule.code}]({rule.code}.md) | {rule.severity} | {rule.impact} | {prose(rule.summary)} |"
            for rule in rules
            if rule.family == family
        ]
        lines.append("")
    return "\n".join(lines)


def walk(command: click.Command, names: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command, click.Context]]:
    """A command and those below it, each with a context to ask it in."""
    context = click.Context(command, info_name=" ".join(names), terminal_width=80, max_content_width=80,
                            help_option_names=["-h", "--help"])  # fmt: skip
    found = [(names, command, context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += walk(below, (*names, name))
    return found


def commands_page() -> str:
    lines = ["# Commands", "", "What `--help` prints. [Exit statuses](exit-status.md) are the same for all.", ""]
    for names, command, context in walk(ptaudit, ("ptaudit",)):
        lines += [f"## {' '.join(names)}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def known_bugs_page(rules: tuple[Rule, ...]) -> str:
    known = {rule.code for rule in rules}
    lines = [
        "# Known kernel bugs",
        "",
        "Bugs of arm64 memory hotplug and page tables, the releases that can have them, and the rules that find the"
        " state that each one leaves. A release says what *could* be there: vendors backport and revert."
        " [ENV-01](../rules/ENV-01.md) lists those that are possible in a capture; the other rules look at the state.",
        "",
        "| bug | since | fixed in | pages | CVE | found by |",
        "|---|---|---|---|---|---|",
    ]
    for bug in KNOWN_BUGS:
        pages = "all" if len(bug.page_sizes) == 3 else ", ".join(f"{size >> 10}K" for size in bug.page_sizes)
        found = ", ".join(link(one, known, "../rules/") for one in bug.rules) or "the release alone"
        lines.append(f"| {prose(bug.title)} | {bug.since} | {fixes(bug)} | {pages} | {bug.cve} | {found} |")
    return "\n".join(lines) + "\n"


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def fixes(bug: KnownBug) -> str:
    if bug.fixed is None:
        return "no fix is known"
    stable = [f"{dotted(branch)}.{patch}" for branch, patch in sorted(bug.stable.items(), reverse=True)]
    return f"{', '.join([dotted(bug.fixed), *stable])}<br>{prose(bug.commit or bug.subject)}"


def which_kernels(kind: Kind) -> str:
    since = f"v{kind.since[0]}.{kind.since[1]} and later" if kind.since else ""
    options = " or ".join(f"`CONFIG_{symbol}`" for symbol in kind.config)
    return ", ".join(filter(None, (since, options))) or "all"


def evidence_page(rules: tuple[Rule, ...]) -> str:
    needed, used = defaultdict(list), defaultdict(list)
    for rule in rules:
        weaker = tuple(kind for check in rule.fallbacks for kind in check.needs)
        for kinds, where in ((rule.needs, needed), (rule.uses + weaker, used)):
            for step in dict.fromkeys(step for kind in kinds for step in how_to_collect(kind)):
                where[step].append(rule.code)
    lines = [
        "# What each evidence decides",
        "",
        "A rule whose evidence is missing is undecided, never passed. What it uses beyond that makes its claim"
        " stronger, or its finding more exact.",
        "",
        "## By what is collected",
        "",
    ]
    for step in sorted(needed | used, key=lambda step: -len(needed[step])):
        lines += [f"### {prose(step)}", ""]
        for title, where in (("needed by", needed), ("used by", used)):
            found = ", ".join(link(one, set(where[step]), "../rules/") for one in where[step])
            if found:
                lines += [f"{title} {len(where[step])}: {found}", ""]
    lines += [
        "## Files that are recognised",
        "",
        "In a directory a file is recognised by the end of its path, alone by its content; `--kind KIND=PATH` says it.",
        "",
        "| kind | what it is | which kernels | paths (regular expression) |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {code(kind.name)} | {prose(kind.what)} | {which_kernels(kind)} | {code(kind.paths.pattern)} |"
        for kind in KINDS.values()
        if kind.is_read
    ]
    return "\n".join(lines) + "\n"
