"""Imported by the server that worker processes are forked from: what every audit needs."""

from analyzer.audit import audit
from rules.engine import builtin_rules

__all__ = ["audit"]

builtin_rules()
