"""The command line: options in, one call, exit status out.

Commands are imported only when they run, so that ``ptaudit --help`` does not pay for them.
"""

from __future__ import annotations

import importlib
import sys

import click

from parsers.errors import PtauditError

__all__ = ["main"]

COMMANDS: dict[str, str] = {
    "audit": "Audit what was captured from one host.",
    "sections": "Memory sections, their subsections, and what maps their struct pages.",
    "timeline": "The hotplug operations of a trace, replayed.",
    "probes": "The tracing set-up that makes a trace replayable.",
    "where": "Everything known of an address.",
    "diff": "What changed between two captures, and which changes are hazards.",
    "distill": "The small core of a crash dump: only what an audit reads.",
    "collect": "Collect on this host what an audit needs.",
    "fleet": "Many bundles: audit, query, compare.",
    "rules": "The catalogue of rules.",
    "explain": "What a rule means, how it decides, what to do.",
}


class LazyGroup(click.Group):
    """A group whose commands live in ``analyzer.commands.<name>`` as ``command``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 the signature is click's
        """Names, in the order in which a reader wants them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"analyzer.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Names and summaries, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ptaudit", prog_name="ptaudit")
def ptaudit() -> None:
    """Audit arm64 Linux kernel page tables and memory hotplug.

    \b
    Example:
      ptaudit audit captured-host/
    """


def main() -> None:
    """Run the command line; errors of input and usage end with status 2 and one clear line."""
    try:
        ptaudit(prog_name="ptaudit")
    except PtauditError as error:
        click.echo(f"ptaudit: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
