"""``ptaudit explain``: one rule's page."""

from __future__ import annotations

import textwrap

import click

from analyzer.catalogue.rule_page import Part, rule_parts
from rules.engine import load_rules, select

__all__ = ["command"]

WIDTH = 96


@click.command(name="explain")
@click.argument("codes", nargs=-1, required=True, metavar="CODE...")
def command(codes: tuple[str, ...]) -> None:
    """What a rule means, how it decides, when it is not a problem, what to do.

    CODE is a rule, VMM-02, its name, lost-struct-pages, or a family, VMM. The documentation has the same pages.

    \b
    Example:
      ptaudit explain VMM-02
    """
    rules, _ = load_rules()
    for number, rule in enumerate(select(rules, codes)):
        if number:
            click.echo("\n")
        click.secho(f"{rule.code} {rule.name}", bold=True)
        click.echo(f"{rule.summary}\n{rule.severity}, {rule.impact}")
        for part in rule_parts(rule):
            click.echo(f"\n{part.heading}\n" + "\n".join(_lines(part)))


def _lines(part: Part) -> list[str]:
    """The part as text for a terminal; an item is not broken, so that it can be copied."""
    if part.items:
        return [f"  {item}" for item in part.items]
    return textwrap.wrap(part.text, WIDTH, initial_indent="  ", subsequent_indent="  ")
