"""The page as text: one template, one style sheet, one script, and no other source of anything.

Captured text is hostile until it is escaped.  It reaches the page in two ways: through the template, which
escapes everything and shows control characters, and as JSON, in which no character can end the element.
The policy in the page's head lets the browser run this script and use this style sheet, by their hashes, and
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from analyzer.output import printable
from analyzer.reports.html.page import LETTERS, page_of, size
from analyzer.reports.html.timeline import events
from analyzer.reports.html.windows import LEGEND

if TYPE_CHECKING:
    from analyzer.audit import Report

__all__ = ["render"]


def render(report: Report, *, verbose: bool = False, colour: bool = False) -> str:  # noqa: ARG001 all of it, folded
    """The report as one HTML file: the same input gives the same bytes."""
    page = page_of(report, events(report.facts))
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            outlook=report.outlook,
            style=_asset("page.css"),
            script=_asset("page.js"),
            policy=_policy(),
            version=version("ptaudit"),
        )
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analyzer.reports.html", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False}
    environment.globals.update(letters=LETTERS, legend=LEGEND, size=size)
    return environment


def _visible(value: Any) -> Any:  # noqa: ANN401 whatever a template prints
    """Text without control characters; what is markup or no text as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def _asset(name: str) -> Markup:
    return Markup(files("analyzer.reports.html").joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 our own file


@cache
def _policy() -> str:
    """The content security policy."""
    style, script = (_hash(_asset(name)) for name in ("page.css", "page.js"))
    return (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
