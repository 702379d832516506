"""``ptaudit explain``: one rule's page."""

from __future__ import annotations

import textwrap

import click

from parsers.errors import UsageError
from rules.engine import load_rules
from rules.facts import how_to_collect
from rules.rule import SECTIONS

__all__ = ["command"]

WIDTH = 96


@click.command(name="explain")
@click.argument("code")
def command(code: str) -> None:
    """What a rule means, how it decides, when it is no problem, what to do.

    \b
    Example:
      ptaudit explain VMM-02
    """
    rules, _ = load_rules()
    rule = next((rule for rule in rules if rule.code.upper() == code.upper()), None)
    if rule is None:
        raise UsageError(f"no rule {code}; ptaudit rules lists them")
    click.secho(f"{rule.code} {rule.name}", bold=True)
    click.echo(f"{rule.summary}\n{rule.severity}, {rule.impact}")
    for heading in SECTIONS:
        click.echo(
            f"\n{heading}\n{textwrap.fill(rule.pages[heading], WIDTH, initial_indent='  ', subsequent_indent='  ')}"
        )
    needed = dict.fromkeys(step for kind in rule.needs for step in how_to_collect(kind))
    click.echo("\nWhat it needs\n" + "\n".join(f"  {step}" for step in needed))
    if rule.references:
        click.echo("\nReferences\n" + "\n".join(f"  {reference}" for reference in rule.references))
