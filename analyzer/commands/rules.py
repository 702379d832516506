"""``ptaudit rules``: the catalogue."""

from __future__ import annotations

import click

from rules.engine import load_rules

__all__ = ["command"]


@click.command(name="rules")
def command() -> None:
    """List every rule: code, severity, name, one line.

    \b
    Example:
      ptaudit rules
    """
    rules, broken = load_rules()
    for rule in rules:
        click.echo(f"{rule.code:<8} {rule.severity!s:<9} {rule.name:<36} {rule.summary}")
    for message in broken:
        click.echo(f"ptaudit: {message}", err=True)
