"""``ptaudit where``: everything known of addresses and symbols."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import click

from analyzer.audit import audit
from analyzer.options import evidence_options, format_option
from analyzer.output import as_json
from analyzer.refused import name_refused
from analyzer.sources.read import Request
from analyzer.where.address import is_address, parse_address
from analyzer.where.place import where
from analyzer.where.place_text import lines
from parsers.errors import UsageError

__all__ = ["command"]


@click.command(name="where")
@partial(evidence_options, metavar="SOURCE... WHAT...")
@format_option("text", "json")
def command(request: Request, form: str) -> None:
    """Print everything that is known of addresses and symbols.

    WHAT is pfn:0x…, page:0x… (a struct page), phys:0x… or virt:0x…; a bare number counts as virtual in the kernel half
    and as physical below it. Of a crash dump it can be a symbol, memunmap_pages+0x1a8.

    \b
    Example:
      ptaudit where captured-host/ 0xfffffdffc2100008
    """
    request, wanted = _without_addresses(request)
    report = audit(request)
    documents = [where(report, one) for one in wanted]
    if form == "json":
        click.echo(as_json(documents[0] if len(documents) == 1 else documents))
    else:
        click.echo("\n\n".join("\n".join(lines(one)) for one in documents))
    sys.exit(name_refused(report.sources))


def _without_addresses(request: Request) -> tuple[Request, list[str]]:
    """The request without the addresses at its end, and these: the last word, and those before it that are no files.

    UsageError, before anything is read, for a last word that cannot be an address, or where nothing else is left.
    """
    paths = list(request.paths)
    wanted: list[str] = []
    while paths and (not wanted or (len(paths) > 1 and is_address(str(paths[-1])) and not paths[-1].exists())):
        wanted.insert(0, str(paths.pop()))
    if not wanted or not (paths or request.kinds):
        raise UsageError("nothing to read, or no address: name a directory or a file, then what to look up")
    if not is_address(wanted[-1]):
        parse_address(wanted[-1])
    return replace(request, paths=tuple(paths)), wanted
