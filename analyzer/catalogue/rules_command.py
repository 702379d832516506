"""``ptaudit rules``: the catalogue."""

from __future__ import annotations

import json

import click

from analyzer.catalogue.rule_page import rule_parts
from analyzer.options import format_option
from rules.engine import load_rules
from rules.rule import Rule

__all__ = ["command"]


@click.command(name="rules")
@format_option("text", "json")
def command(form: str) -> None:
    """List every rule: code, severity, name, one line.

    \b
    Example:
      ptaudit rules
      ptaudit rules --format json | jq '.rules[].code'
    """
    rules, broken = load_rules()
    if form == "json":
        document = {"schema": "ptaudit.rules/1", "rules": [_as_dict(rule) for rule in rules]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for rule in rules:
            click.echo(f"{rule.code:<8} {rule.severity!s:<9} {rule.name:<36} {rule.summary}")
    for message in broken:
        click.echo(f"ptaudit: {message}", err=True)


def _as_dict(rule: Rule) -> dict[str, object]:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": str(rule.severity),
        "impact": str(rule.impact),
        "summary": rule.summary,
        "needs": [kind.__name__ for kind in rule.needs],
        "uses": [kind.__name__ for kind in rule.uses],
        "fallbacks": [[kind.__name__ for kind in check.needs] for check in rule.fallbacks],
        "references": list(rule.references),
        "page": {part.heading: part.text for part in rule_parts(rule) if part.text},
    }
