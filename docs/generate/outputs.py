"""The commands that the documentation shows, with their real output.

    python docs/generate/outputs.py           checks that every output is what the command prints
    python docs/generate/outputs.py --update  writes what the commands print now

A block marked ``console`` has lines that start with ``$``: commands, run by a shell in the top folder with
``ptaudit`` on the path.  What follows is all that they print; what takes time prints that elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    return sorted(path for path in (ROOT / "docs").rglob("*.md") if "```console" in path.read_text())


def printed(command: str) -> str:
    """What a command prints on both streams."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ptaudit"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m analyzer.cli "$@"\n')
        program.chmod(0o755)
        environment = os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
            "LC_ALL": "C.UTF-8",
            "HOME": folder,
        }
        done = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, env=environment, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    return done.stdout.replace(folder, "~")


def renewed(text: str) -> str:
    """A page with the output of its commands."""
    return _BLOCK.sub(lambda block: f"```console\n{_run(block[1])}```", text)


def _run(block: str) -> str:
    commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    return "".join(f"$ {command}\n{printed(command)}" for command in commands)


def main() -> None:
    wrong = []
    for page in pages():
        old = page.read_text()
        new = renewed(old)
        if new != old:
            wrong.append(str(page.relative_to(ROOT)))
            if "--update" in sys.argv[1:]:
                page.write_text(new)
    sys.stdout.write("".join(f"{page}\n" for page in wrong))
    sys.exit(bool(wrong) and "--update" not in sys.argv[1:])


if __name__ == "__main__":
    main()
