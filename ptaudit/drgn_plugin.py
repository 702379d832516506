"""The plug-in of drgn (entry point group ``drgn.plugins``): a command ``ptaudit`` for its command line.

drgn loads this module when its first program is set.  Without drgn's command registry (before 0.0.33) there is no
command, and ``ptaudit.open(prog)`` works all the same.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import drgn

__all__ = ["register"]

_KEY = "ptaudit"


def register() -> bool:
    """Add the command to drgn's registry; False where this drgn has none."""
    try:
        from drgn.commands import custom_command, parse_shell_command  # noqa: PLC0415 drgn need not be installed
    except ImportError:
        return False
    custom_command(
        name="ptaudit",
        description="audit page tables and memory hotplug of the arm64 kernel that is open",
        usage="**ptaudit audit** [**-v**] | **ptaudit sections** | **ptaudit where** *WHAT*...",
        long_description="Runs the rules, shows the memory sections, or says what is known of addresses and symbols.",
        parse=parse_shell_command,
        enabled=_is_kernel,
    )(_command)
    return True


def _is_kernel(prog: drgn.Program) -> bool:
    import drgn  # noqa: PLC0415

    return bool(prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL)


def _command(prog: drgn.Program, _name: str, arguments: Sequence[str], **_: Any) -> None:  # noqa: ANN401 as drgn calls it
    """Run a subcommand; what a dump holds is read once."""
    from drgn import ProgramFlags  # noqa: PLC0415
    from drgn.commands import CommandArgumentError, CommandError  # noqa: PLC0415

    from analyzer.in_drgn import answer  # noqa: PLC0415 only when it is used
    from parsers.errors import PtauditError, UsageError  # noqa: PLC0415
    from ptaudit.evidence import open_evidence  # noqa: PLC0415

    try:
        evidence = prog.cache.get(_KEY)
        if evidence is None:
            evidence = open_evidence(prog)
            if not prog.flags & ProgramFlags.IS_LIVE:
                prog.cache[_KEY] = evidence
        sys.stdout.write(answer(arguments, evidence.read, evidence.facts))
    except UsageError as error:
        raise CommandArgumentError(str(error)) from error
    except PtauditError as error:
        raise CommandError(str(error)) from error


register()
