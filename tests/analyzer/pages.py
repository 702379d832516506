"""Reading a page back: its elements, their text, and the data of the map."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from analyzer.audit import audit
from analyzer.reports.html import render
from analyzer.sources.read import Request
from tests.cases import case

FIXTURES = Path(__file__).parents[2] / "fixtures"
DAMAGED = case("VMM-02/fires")
TRACE = FIXTURES / "ftrace/pmem.trace"
VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)
    parts: list[str | Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def all(self, name: str = "", **attributes: str) -> list[Element]:
        found = []
        for child in self.children:
            wanted = all(value in child.attributes.get(key, "").split() for key, value in attributes.items())
            if wanted and name in {"", child.name}:
                found.append(child)
            found += child.all(name, **attributes)
        return found

    def id(self, name: str) -> Element:
        (found,) = self.all(id=name)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Element("", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> with an attribute twice"
        made = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(made)
        self.at.parts.append(made)
        if tag not in VOID:
            self.at = made

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.at = self.at.parent or self.root

    def handle_endtag(self, tag: str) -> None:
        assert self.at.name == tag, f"</{tag}> ends <{self.at.name}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.parts.append(data)


def read(html: str) -> Element:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.at is reader.root, f"<{reader.at.name}> is never ended"
    return reader.root


def data_of(page: Element) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(page.id("data").text)
    return data


def html_of(*paths: Path) -> str:
    return render(audit(Request(paths)))
