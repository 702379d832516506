"""The command line: options in, one call, exit status out.

Commands are imported only when they run, so that ``ptaudit --help`` does not pay for them.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from typing import NamedTuple

import click

from analyzer.progress import shown_progress
from analyzer.status import status_of

__all__ = ["main"]


class _Entry(NamedTuple):
    """A command: the module that has it as ``command``, and its line in the help."""

    module: str
    summary: str


COMMANDS: dict[str, _Entry] = {
    "audit": _Entry("audit_command", "Audit what was captured from one host."),
    "whatif": _Entry("whatif.whatif_command", "What removing, offlining or adding memory would do."),
    "sections": _Entry("sections.sections_command", "Memory sections, and what maps their struct pages."),
    "timeline": _Entry("timeline.timeline_command", "The hotplug operations of a trace, replayed."),
    "probes": _Entry("collect.probes_command", "The tracing set-up that makes a trace replayable."),
    "where": _Entry("where.where_command", "Everything known of addresses and symbols."),
    "diff": _Entry("diff.diff_command", "What changed between two captures, and which changes are hazards."),
    "distill": _Entry("collect.distill_command", "The small core of a crash dump: only what an audit reads."),
    "collect": _Entry("collect.collect_command", "Collect on this host what an audit needs."),
    "fleet": _Entry("fleet.fleet_command", "Many bundles: audit, query, compare."),
    "rules": _Entry("catalogue.rules_command", "The catalogue of rules."),
    "explain": _Entry("catalogue.explain_command", "What a rule means, how it decides, what to do."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 the signature is click's
        """Names, in the order in which a reader wants them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"analyzer.{entry.module}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Names and summaries, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="When the program fails, print where (a traceback).")
@click.version_option(package_name="ptaudit", prog_name="ptaudit")
def ptaudit(debug: bool) -> None:
    """Audit arm64 Linux kernel page tables and memory hotplug.

    Example: ptaudit audit captured-host/
    """


def main() -> None:
    """Run the command line and end with its exit status (`analyzer.status`)."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no product of matrices here is worth starting threads
    gc.set_threshold(100_000)  # what an import makes stays
    atexit.register(gc.freeze)  # the collections at the end of the interpreter would look at every object for nothing
    sys.exit(status_of(_run))


def _run(arguments: list[str]) -> object:
    """Run the command line; whatever goes wrong is raised."""
    if "_PTAUDIT_COMPLETE" in os.environ:  # a shell asks for completions
        return ptaudit.main(arguments, prog_name="ptaudit", standalone_mode=False)
    # click's main() makes 1 of a reader that goes away, and 1 means findings.
    with ptaudit.make_context("ptaudit", arguments) as context, shown_progress():
        return ptaudit.invoke(context)


if __name__ == "__main__":
    main()
