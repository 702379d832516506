"""What every command says of evidence that the user named and that could not be read, while the rest was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from analyzer.output import printable
from analyzer.status import Status

if TYPE_CHECKING:
    from analyzer.sources.read import Sources

__all__ = ["name_refused"]


def name_refused(sources: Sources) -> Status:
    """One line on standard error for each; the status of a command that has nothing worse to say."""
    for error in sources.refused:
        click.echo(printable(f"ptaudit: not read: {error}"), err=True)
    return Status.USAGE if sources.refused else Status.NOTHING
