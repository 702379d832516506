"""``ptaudit distill``: the small core of a crash dump."""

from __future__ import annotations

from pathlib import Path

import click

from analyzer.options import FILE, symbol_options
from analyzer.sources.crashdump import Symbols, distill_vmcore
from analyzer.sources.running import is_proc_kcore, kcore_refusal
from parsers.errors import InputError, UsageError

__all__ = ["command"]


@click.command(name="distill")
@symbol_options
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    required=True,
    help="The small core.",
)
@click.option("--with-dmesg", is_flag=True, help="Keep the kernel's log, too.")
@click.argument("vmcore", nargs=-1, required=True, type=FILE, metavar="VMCORE...")
def command(vmcore: tuple[Path, ...], output: Path, with_dmesg: bool, symbols: Symbols) -> None:
    """Write the part of a crash dump that an audit reads: page tables, section table, symbols and types.

    No page of user memory or of the page cache is in it. Several VMCOREs are the files of one split dump.

    \b
    Example:
      ptaudit distill /var/crash/vmcore -o small.core
      ptaudit audit small.core
      ptaudit distill /proc/kcore -o host.core     (of this host, as root)
    """
    if output.exists() and any(output.samefile(path) for path in vmcore if path.exists()):
        raise UsageError("the small core cannot replace the dump that it is made of", path=str(output))
    if any(is_proc_kcore(path) for path in vmcore) and (refusal := kcore_refusal()) is not None:
        raise InputError(refusal)
    kept = distill_vmcore(vmcore, output, symbols, with_dmesg=with_dmesg)
    whole = kept.memory
    click.echo(
        f"{output}: {kept.pages} pages of 4 KiB, {_size(kept.size)}; "
        f"of {_size(whole)} of memory{f', 1/{whole // kept.size} is kept' if whole >= 2 * kept.size else ''}"
    )
    log = ", kernel log" if with_dmesg else ""
    click.echo(f"kept, by whole pages: page tables, section table, memory blocks, resources, symbols and types{log}")
    click.echo("not kept: every other page, so no memory of user space and no page cache")


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
