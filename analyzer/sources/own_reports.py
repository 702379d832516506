"""Reports of ptaudit that lie among the evidence: they quote log lines and rows, and are not evidence themselves."""

from __future__ import annotations

import re

from parsers.expressions import expression

__all__ = ["OWN_REPORT", "is_own_report"]

OWN_REPORT = "a report of ptaudit, not evidence"
_HEAD_BYTES = 4096
_STATE = rb"(?:damaged|at risk|clean|blind)"
_BEGINS = expression(
    rb"\A\s*(?:"
    rb'\{\s*"schema":\s*"ptaudit\.'  # JSON
    rb'|\{\s*"\$schema":\s*"[^"\n]*sarif-[^{}]{0,200}\{[\s\S]*?"driver":\s*\{\s*"name":\s*"ptaudit"'
    rb'|<!doctype html>[\s\S]*?<meta name="generator" content="ptaudit'
    rb'|<\?xml [\s\S]*?<testsuite name="ptaudit"'
    rb"|verdict,verdict_text,kernel,"  # CSV
    rb"|# HELP ptaudit_"  # Prometheus
    rb"|KTAP version 1\n# " + _STATE + rb": "
    rb"|" + _STATE + rb": [^\n]+\nkernel "  # text
    rb"|\*\*" + _STATE + rb"\*\*: [^\n]+\n\nkernel )",  # Markdown
    re.IGNORECASE,
)


def is_own_report(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a report of `analyzer.reports`, in any of its formats.

    >>> is_own_report(b"clean: nothing found by 88 of 88 rules\\nkernel 6.12.117, 4K pages\\n")
    True
    """
    return _BEGINS.match(head[:_HEAD_BYTES].replace(b"\r\n", b"\n")) is not None
