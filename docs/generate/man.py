"""The manual page, made of the commands' own help.

python docs/generate/man.py > deploy/man/ptaudit.1
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent))

from pages import walk

from analyzer.cli import COMMANDS, ptaudit

_FRAME = """.\\" Made of the commands' own help: python docs/generate/man.py
.TH PTAUDIT 1 "" "ptaudit" "User Commands"
.SH NAME
ptaudit \\- audit page tables and memory hotplug of arm64 Linux kernels
.SH SYNOPSIS
{synopsis}
.SH DESCRIPTION
Reads what an arm64 kernel leaves behind (a dump of its page tables, /proc/iomem, memory blocks, a log, a trace, a
crash dump), works out what every section of memory should look like, compares that with the page tables, and says
what is wrong, why, and what to do.
.SH COMMANDS
{commands}.SH EXIT STATUS
.TP
.B 0
Nothing at or above \\fB\\-\\-fail\\-on\\fR (default: high).
.TP
.B 1
Findings.
.TP
.B 2
Wrong usage, or input that cannot be read.
.TP
.B 3
Nothing found, but rules of that severity were undecided and \\fB\\-\\-strict\\fR was given.
.TP
.B 130
\\fBptaudit fleet\\fR was interrupted; the same command goes on.
.SH SEE ALSO
.BR crash (8),
.BR makedumpfile (8),
.BR lsmem (1),
.BR daxctl (1),
.BR node_exporter (1)
"""


def escaped(text: str) -> str:
    """Text that roff prints unchanged."""
    plain = re.sub(r"^([.'])", r"\\&\1", text.replace("\\", "\\e").replace("-", "\\-"), flags=re.MULTILINE)
    return re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", plain)


def paragraphs(text: str) -> str:
    """A command's help: paragraphs filled, those that click marks verbatim left alone."""
    made = []
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.startswith("\b"):
            made.append(f".PP\n.nf\n{escaped(part[1:].strip(chr(10)))}\n.fi\n")
        else:
            made.append(f".PP\n{escaped(' '.join(part.split()))}\n")
    return "".join(made)


def options(command: click.Command, context: click.Context) -> str:
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    return "".join(
        f".TP\n.B {escaped(names)}\n{escaped(what)}\n" for names, what in (one for one in records if one is not None)
    )


def man_page() -> str:
    every = walk(ptaudit, ("ptaudit",))
    commands, synopsis = [], []
    for names, command, context in every:
        if len(names) == 1:
            continue
        usage = " ".join(command.collect_usage_pieces(context))
        if len(names) == 2:
            synopsis.append(f".B {escaped(' '.join(names))}\n{escaped(usage)}")
        help_text = command.help or COMMANDS[names[-1]].summary
        commands.append(
            f".SS {escaped(' '.join(names))} {escaped(usage)}\n{paragraphs(help_text)}{options(command, context)}"
        )
    return _FRAME.format(synopsis="\n.br\n".join(synopsis), commands="".join(commands))


if __name__ == "__main__":
    sys.stdout.write(man_page())
