"""One address as text, in one screen."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from analyzer.output import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["lines"]

LABEL = 12
MAX_FINDINGS = 4


def lines(place: dict[str, Any]) -> list[str]:
    """The document of `analyzer.where.place.where` as lines."""
    return [f"{name:<{LABEL}} {printable(text)}".rstrip() for name, text in _fields(place)]


def _fields(place: dict[str, Any]) -> Iterator[tuple[str, str]]:
    guessed = "; force with phys:, virt: or pfn:" if place["guessed"] else ""
    tag = f", tag {place['tag']} stripped" if place["tag"] else ""
    yield place["address"], f"taken as {place['read_as']}{tag}{guessed}"
    symbol = place["symbol"]
    if symbol is not None:
        yield "symbol", f"{symbol['name']}+{symbol['offset']} = {place['value']}"
    yield from _numbers(place)
    yield from _memory(place)
    for one in place["mapped_by"]:
        yield from _mapped(one)
    findings = place["findings"]
    for number, one in enumerate(findings[:MAX_FINDINGS]):
        yield "" if number else "findings", f"{one['severity'].upper()} {one['rule']} {one['title']} [{one['id']}]"
    if len(findings) > MAX_FINDINGS:
        yield "", f"and {len(findings) - MAX_FINDINGS} more"
    if not findings:
        yield "findings", "none touches it"
    for number, one in enumerate(place["incidents"][:MAX_FINDINGS]):
        yield "" if number else "incident", f"{one['severity'].upper()} {one['title']} [{one['id']}]"
    for one in place["missing"]:
        yield "note", one


def _numbers(place: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if place["region"] is not None:
        yield "region", place["region"]
    inside = f" + {place['page_offset']}" if place["page_offset"] != "0x0" else ""
    yield "PFN", (place["pfn"] or "unknown") + (inside if place["pfn"] else "")
    yield "physical", place["physical"] or "unknown"
    yield "linear", place["linear"] or "no linear address is known"
    field = place["field"]
    name = "" if field is None else f"; {field['offset']} into it" + (f": {field['name']}" if field["name"] else "")
    yield "struct page", (place["struct_page"] or "unknown") + name


def _memory(place: dict[str, Any]) -> Iterator[tuple[str, str]]:
    section, block = place["section"], place["memory_block"]
    if section is not None:
        about = ", ".join(filter(None, (section["kind"], section["origin"])))
        yield (
            "section",
            f"{section['number']}, subsection {section['subsection']} of {section['subsections']}: "
            f"{section['validity']} ({section['precision']})" + (f"; {about}" if about else ""),
        )
        if section["removed_with"]:
            yield "removed with", ", ".join(section["removed_with"])
    if block is not None and not block["exists"]:
        yield "block", f"memory{block['number']} does not exist"
    elif block is not None:
        node = "" if block["node"] is None else f", node {block['node']}"
        zones = f", zones {block['valid_zones']}" if block["valid_zones"] else ""
        yield "block", f"memory{block['number']} {block['state'] or 'state unknown'}{node}{zones}{_at(block)}"
    if place["zones"]:
        yield "zone", ", ".join(f"{one['zone']} of node {one['node']}" for one in place["zones"]) + " (by span)"
    for depth, one in enumerate(place["iomem"]):
        indent = "  " * depth
        yield "" if depth else "iomem", f"{indent}{one['start']}-{one['last']} {one['name']}{_at(one)}"


def _mapped(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    output = f" to {one['output']}" if one.get("output") else ""
    level = f" at level {one['level']}" if one["state"] == "mapped" and one["level"] is not None else ""
    yield one["what"], f"{one['va']} {one['state']}{level}{output}{_at(one)}"
    if one["walk"]:
        for step in one["walk"]:
            yield "", step
    elif one.get("text"):
        yield "", " ".join(one["text"].split())


def _at(place: dict[str, Any]) -> str:
    return f"  ({PurePath(place['source']).name}:{place['line']})" if place.get("line") else ""
