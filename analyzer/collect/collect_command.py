"""``ptaudit collect``: a bundle of this host."""

from __future__ import annotations

import sys

import click

from analyzer.collect.on_this_host import collect, collect_with_memory, python_script, script
from analyzer.options import NAME

__all__ = ["command"]


@click.command(name="collect")
@click.option("-o", "--output", type=NAME, metavar="OUT", help="OUT.tar.gz, or a directory if it ends in /.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be read, and read nothing.")
@click.option("-r", "--redact", is_flag=True, help="No host name, MAC address or serial number, no core.")
@click.option("-t", "--timeout", type=click.IntRange(1, 86400), metavar="SECONDS", help="Give up on one read (60).")
@click.option(
    "-m", "--max-size", type=click.IntRange(1, 1 << 20), metavar="MIB", help="Take no more of one file (256)."
)
@click.option("--no-kcore", is_flag=True, help="Leave /proc/kcore alone: text sources only.")
@click.option(
    "--print-script",
    is_flag=False,
    flag_value="sh",
    type=click.Choice(["sh", "python"]),
    metavar="[=python]",
    help="Print a script for other hosts.",
)
def command(
    output: str | None,
    dry_run: bool,
    redact: bool,
    timeout: int | None,
    max_size: int | None,
    no_kcore: bool,
    print_script: str | None,
) -> None:
    """Collect what an audit needs on this host, as root; it only reads.

    \b
    Example:
      ptaudit collect -o host1.tar.gz
      ptaudit collect --print-script > c.sh         (there: sh c.sh)
      ptaudit collect --print-script=python > c.py  (there: python3 c.py)

    Taken: page tables, physical memory map, memory blocks, zones, configuration, command line and log, trace, pmem
    namespaces, and of /proc/kcore (not in sh) page tables and memory metadata.  No user data.
    """
    if print_script is not None:
        click.echo(python_script() if print_script == "python" else script(), nl=False)
        return
    values = {"-t": timeout, "-m": max_size}
    flags = [flag for flag, is_set in (("-n", dry_run), ("-r", redact)) if is_set]
    flags += [word for key, value in values.items() if value is not None for word in (key, str(value))]
    if dry_run or no_kcore:
        sys.exit(collect([*flags, *(("-o", output) if output is not None else ())]))
    sys.exit(collect_with_memory(flags, output, redact=redact))
