"""What is missing for the undecided rules, as commands that collect it into the files that an audit understands."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from analyzer.advice import STEP_OF_RUNNING, Reader, reader_of, steps_for
from parsers.kinds import KINDS, in_order
from rules.engine import Outcome
from rules.facts import how_to_collect
from rules.model.memory.snapshots import Earlier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.audit import Report

__all__ = ["send_back"]

WIDTH = 100
DIRECTORY = "ptaudit-more"
ALL_AT_ONCE = "Or everything at once: ptaudit collect --print-script > collect.sh; on the host: sh collect.sh"

_SECOND_CAPTURE = "a second capture, after the next time that memory is plugged or unplugged, in its own directory"


def send_back(report: Report) -> list[str]:
    """The lines of a block for the shell, with the rules that each line is for; empty if nothing is undecided."""
    wanted: dict[str, list[str]] = {}
    for verdict in report.verdicts:
        if verdict.outcome is Outcome.UNDECIDED:
            for step in steps_for(verdict, report):
                wanted.setdefault(step, []).append(verdict.rule.code)
    if reader_of(report) is Reader.DUMP:
        for name in ("vmcore", "ptdump"):  # it is what is being read
            wanted.pop(KINDS[name].step, None)
    if not wanted:
        return []
    files = [(name, command, rules) for name, command, rules in _files(wanted) if rules]
    commands = {kind.step for kind in in_order() if kind.command}
    others = [step for step in wanted if step not in commands and step != STEP_OF_RUNNING]
    lines = ["To decide the rest, collect:"]
    if STEP_OF_RUNNING in wanted:  # of a running host it gives everything that the files below do
        lines += _note(f"{STEP_OF_RUNNING} ({_few(wanted[STEP_OF_RUNNING])}){'; or, file by file:' if files else ''}")
    if files:
        lines += [f"  mkdir -p {DIRECTORY} && cd {DIRECTORY}    # as root, on the host", *_block(files)]
        lines += [f"  tar -czf ../{DIRECTORY}.tar.gz ."]
    notes = {kind.step: kind.note for kind in in_order() if kind.note}
    notes |= dict.fromkeys([*how_to_collect(Earlier), *report.facts.collect(Earlier)], _SECOND_CAPTURE)
    for step in others:
        lines += _note(f"{'also ' if files else ''}{notes.get(step, step)} ({_few(wanted[step])})")
    return [*lines, *([ALL_AT_ONCE] if files else [])]


def _note(text: str) -> list[str]:
    return textwrap.wrap(f"# {text}", WIDTH, initial_indent="  ", subsequent_indent="  #   ")


def _files(wanted: dict[str, list[str]]) -> Iterator[tuple[str, str, list[str]]]:
    """Each file with its command and the rules that lack it."""
    for kind in in_order():
        if kind.command:
            yield kind.collected_as, kind.command, wanted.get(kind.step, [])


def _block(files: list[tuple[str, str, list[str]]]) -> Iterator[str]:
    for name, command, rules in files:
        grouped = f"{{ {command}; }}" if "||" in command else command
        yield from _wrapped(f"{grouped} > {name}", f"for {_few(rules)}")


def _wrapped(command: str, comment: str) -> list[str]:
    """The command, never broken, with its comment beside it or above."""
    line = f"  {command}"
    if len(line) + len(comment) + 4 <= WIDTH:
        return [f"{line}    # {comment}"]
    return [*textwrap.wrap(f"# {comment}", WIDTH, initial_indent="  ", subsequent_indent="  # "), line]


def _few(rules: list[str]) -> str:
    codes = list(dict.fromkeys(rules))
    return ", ".join(codes[:6]) + (f" and {len(codes) - 6} more" if len(codes) > 6 else "")
