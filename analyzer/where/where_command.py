"""``ptaudit where``: everything known of one address."""

from __future__ import annotations

import sys

import click

from analyzer.audit import audit
from analyzer.options import evidence_options, format_option
from analyzer.output import as_json
from analyzer.refused import name_refused
from analyzer.sources.read import Request
from analyzer.where.address import parse_address
from analyzer.where.place import where
from analyzer.where.place_text import lines

__all__ = ["command"]


@click.command(name="where")
@evidence_options
@click.argument("address")
@format_option("text", "json")
def command(request: Request, address: str, form: str) -> None:
    """Print everything that is known of an address.

    ADDRESS is pfn:0x…, page:0x… (a struct page), phys:0x… or virt:0x…; a bare number counts as virtual in the kernel
    half and as physical below it.

    \b
    Example:
      ptaudit where captured-host/ 0xfffffdffc2100008
    """
    report = audit(request)
    document = where(report, parse_address(address))
    if form == "json":
        click.echo(as_json(document))
    else:
        click.echo("\n".join(lines(document)))
    sys.exit(name_refused(report.sources))
