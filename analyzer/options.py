"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from analyzer.sources.crashdump import Symbols
from analyzer.sources.read import Request
from parsers.errors import UsageError
from parsers.layout import LAYOUT_KEYS
from rules.finding import Severity

__all__ = [
    "FILE",
    "NAME",
    "SEVERITY",
    "FilePath",
    "budget_option",
    "codes",
    "evidence_options",
    "fail_on_option",
    "format_option",
    "parse_kinds",
    "parse_layout",
    "severity",
    "symbol_options",
]

SEVERITY = click.Choice([str(level) for level in Severity])


class FilePath(click.Path):
    """A path with a name: an empty one would be the current directory, where a variable of a script is not set."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 those of click.Path
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """The path; click.BadParameter for an empty one."""
        if not os.fspath(value):
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


class FileName(FilePath):
    """The same as text, which keeps the slash at the end of a directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        """The name; click.BadParameter for an empty one."""
        super().convert(value, param, ctx)
        return str(value)


FILE = FilePath(readable=False)
"""A path; whoever opens it says what is wrong, in one line."""

NAME = FileName(readable=False)
"""The same as text."""


def format_option(*formats: str, default: str | None = "text") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--format``, which the command receives as ``form``: one of these names."""
    return click.option(
        "--format", "form", type=click.Choice(formats), metavar="FORMAT", default=default, help=", ".join(formats)
    )


fail_on_option = click.option(
    "--fail-on",
    type=SEVERITY,
    metavar="SEVERITY",
    default="high",
    show_default=True,
    help="Exit with 1 from this severity on.",
)

budget_option = click.option(
    "--budget", type=click.IntRange(1, 64), default=1, metavar="N", help="Read up to N times as much evidence."
)


def symbol_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What may be known of a crash dump's kernel; the command receives one ``symbols``."""

    @wraps(command)
    def with_symbols(
        vmlinux: Path | None,
        system_map: Path | None,
        vmcoreinfo: Path | None,
        **options: Any,  # noqa: ANN401 the command's own options
    ) -> Any:  # noqa: ANN401
        return command(symbols=Symbols(vmlinux, system_map, vmcoreinfo), **options)

    for option in (
        click.option("--vmlinux", type=FILE, help="The crash dump's kernel, with debug info."),
        click.option("--system-map", type=FILE, help="System.map, for crash dumps of kernels before 6.0."),
        click.option("--vmcoreinfo", type=FILE, help="VMCOREINFO text, for a crash dump that has none."),
    ):
        with_symbols = option(with_symbols)
    return with_symbols


def evidence_options(command: Callable[..., Any], *, metavar: str = "SOURCE...") -> Callable[..., Any]:
    """SOURCE... and all that says how to read them; the command receives one ``request``.

    ``metavar`` names what else the command takes from the paths of the request.
    """

    @wraps(command)
    def with_request(
        sources: tuple[Path, ...],
        kinds: tuple[str, ...],
        layout: tuple[str, ...],
        budget: int,
        symbols: Symbols,
        **options: Any,  # noqa: ANN401 the command's own options
    ) -> Any:  # noqa: ANN401
        if not sources and not kinds and not options.get("on_this_host"):
            raise UsageError("nothing to read: name a directory or a file")
        request = Request(sources, parse_kinds(kinds), parse_layout(layout), symbols, budget=budget)
        return command(request=request, **options)

    with_options = symbol_options(with_request)
    for option in (
        budget_option,
        click.option("--layout", "layout", multiple=True, metavar="KEY=VALUE", help="A layout value that is known."),
        click.option(
            "--kind", "kinds", multiple=True, metavar="KIND=PATH", help="A file whose kind is not to be guessed."
        ),
        click.argument("sources", nargs=-1, type=FILE, metavar=metavar),
    ):
        with_options = option(with_options)
    return with_options


def severity(name: str) -> Severity:
    """The severity of that name."""
    return Severity[name.upper()]


def codes(values: tuple[str, ...]) -> list[str]:
    """Rule codes from repeated or comma-separated options."""
    return [code.strip() for value in values for code in value.split(",") if code.strip()]


def parse_kinds(values: tuple[str, ...]) -> dict[str, Path]:
    """``KIND=PATH`` options; UsageError where there is no ``=``."""
    pairs = [value.partition("=") for value in values]
    for kind, equals, path in pairs:
        if not equals or not path:
            raise UsageError(f"--kind {kind}: KIND=PATH is expected")
    return {kind: Path(path) for kind, _, path in pairs}


def parse_layout(values: tuple[str, ...]) -> dict[str, int]:
    """``KEY=VALUE`` options as integers; UsageError for an unknown key or no number."""
    layout: dict[str, int] = {}
    for text in values:
        key, _, value = text.partition("=")
        name = key.strip().lower()
        if name not in LAYOUT_KEYS:
            raise UsageError(f"--layout {key}: no such key; known: {', '.join(LAYOUT_KEYS)}")
        try:
            layout[name] = int(value, 0) & (2**64 - 1)
        except ValueError:
            raise UsageError(f"--layout {text}: {value!r} is not a number") from None
    return layout
