"""The program ``ptaudit``: the command line of `analyzer`, and a clear word where the environment is broken.

Three of this distribution's packages have names that others use too (``parsers``, ``rules``, ``analyzer``).  A
distribution that installs one of the same name overwrites or hides it, which shows as an ImportError.
"""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from typing import NoReturn

__all__ = ["main"]

_OURS = ("parsers", "rules", "analyzer")
_FAILED_INSIDE = 4
_ADVICE = (
    "install ptaudit in its own environment: uv tool install ptaudit, pipx install ptaudit, or a new virtual "
    "environment"
)


def main() -> None:
    """Run the command line; exit status 2, and why, where another distribution has taken one of our packages."""
    if hidden := _hidden():
        _stop(hidden)
    try:
        from analyzer.interrupt import die_of_interrupt  # noqa: PLC0415 it may not be ours

        die_of_interrupt()
        from analyzer.cli import main as run  # noqa: PLC0415 as above

        run()
    except (ImportError, AttributeError):
        if overwritten := _overwritten():
            _stop(overwritten)
        raise
    except SystemExit as stop:
        if stop.code == _FAILED_INSIDE and (overwritten := _overwritten()):
            _stop(overwritten)
        raise


def _stop(strangers: list[str]) -> NoReturn:
    sys.stderr.write(f"ptaudit: {'; '.join(strangers)}: {_ADVICE}\n")
    sys.exit(2)


def _hidden() -> list[str]:
    """Which of our packages are found elsewhere or not at all, in words."""
    home = Path(__file__).resolve().parents[1]
    found = []
    for name in _OURS:
        spec = util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not places:
            found.append(f"the package {name!r} is missing")
        elif Path(places[0]).resolve() != home / name:
            found.append(f"another package {name!r} hides ptaudit's, in {places[0]}")
    return found


def _overwritten() -> list[str]:
    """Which of our packages another distribution has overwritten, in words."""
    owners = {name: [one for one in _owners(name) if one != "ptaudit"] for name in _OURS}
    return [f"the package {name!r} of {one} has overwritten ptaudit's" for name in _OURS for one in owners[name]]


def _owners(name: str) -> list[str]:
    """Distributions that installed a package of that name."""
    from importlib import metadata  # noqa: PLC0415 slow to import, and only a broken environment needs it

    init = f"{name}/__init__.py"
    installed = (one for one in metadata.distributions() if any(str(file) == init for file in one.files or ()))
    return sorted({one.metadata["Name"] for one in installed})
