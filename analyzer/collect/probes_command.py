"""``ptaudit probes``: the tracing set-up that makes a trace replayable."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import click

from analyzer.options import FilePath
from parsers.errors import UsageError
from parsers.ftrace.probes import probe_script

__all__ = ["command"]


@click.command(name="probes")
@click.option("--kernel", metavar="RELEASE", help="For a kernel release, 6.12 or 6.1.0-18-arm64.")
@click.option("--here", is_flag=True, help="For the kernel that runs here.")
@click.option("--vmlinux", type=FilePath(exists=True), help="Only symbols that this kernel has.")
@click.option("--no-btf", is_flag=True, help="Registers only, no BTF arguments.")
@click.option("--noisy", is_flag=True, help="Also functions that fire without hotplug.")
@click.option("--buffer-kb", type=click.IntRange(64, 1 << 20), default=16384, help="Ring buffer of each CPU.")
def command(kernel: str | None, here: bool, vmlinux: Path | None, no_btf: bool, noisy: bool, buffer_kb: int) -> None:
    """Print a shell script that sets up tracing, stops it and saves the trace.

    Without an option the script asks the kernel that it runs on.

    \b
    Example:
      ptaudit probes --kernel 6.12 > probes.sh     (there: sh probes.sh start)
    """
    if here and kernel:
        raise UsageError("--here and --kernel exclude each other")
    release = _release(platform.release() if here else kernel) if here or kernel else None
    symbols = None
    if vmlinux is not None:
        from analyzer.sources.crashdump import symbols_of  # noqa: PLC0415 needs pyelftools

        symbols = symbols_of(vmlinux)
    script = probe_script(release, symbols, not no_btf, noisy=noisy, buffer_kb=buffer_kb)
    click.echo(script, nl=False)


def _release(text: str | None) -> tuple[int, ...]:
    """(major, minor) or (major, minor, patch) of a release string."""
    match = re.match(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,5}))?", text or "")
    if match is None:
        raise UsageError(f"{text!r} is not a kernel release")
    return tuple(int(part) for part in match.groups() if part is not None)
