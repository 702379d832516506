"""What rules are about: two findings at one place belong together only if their rules share a subject.

A rule that is not named has its family as its subject.  Rules of one known bug are in one subject, because the table of
bugs (`rules.model.bugs`) says that one bug leaves what they find.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from rules.model.bugs import KNOWN_BUGS

if TYPE_CHECKING:
    from rules.rule import Rule

__all__ = ["SUBJECTS", "subjects_of"]

SUBJECTS: dict[str, tuple[str, ...]] = {
    "struct pages": (
        "VMM-01", "VMM-02", "VMM-03", "VMM-05", "VMM-06", "VMM-08", "VMM-13", "TRC-02", "TRC-07", "TRC-08",
        "OOP-01", "OOP-02", "OOP-11", "OOP-15", "OOP-21", "WIT-01",
    ),
    "half-made memory": ("TRC-06", "VMM-14", "VMM-04", "VMM-10", "OOP-20", "WIT-01", "SEC-13", "MOM-13", "SEC-02"),
    "linear map": ("LIN-02", "LIN-03", "LIN-04", "OOP-04", "OOP-14", "ATT-10", "OOP-05"),
    "removed and still mapped": ("LIN-01", "TRC-09", "OOP-07", "WIT-01"),
    "remapped struct pages": ("HVO-01", "HVO-02", "HVO-03", "HVO-04", "HVO-05", "HVO-06", "HVO-07", "OOP-03", "OOP-13"),
    "self-hosted struct pages": (
        "MOM-01", "MOM-02", "MOM-03", "MOM-04", "MOM-05", "MOM-06", "MOM-08", "TRC-13", "OOP-12", "VMM-09",
    ),
    "boot memory": ("SEC-08", "SEC-10", "OOP-08"),
    "offline refused": ("MOM-14", "OOP-14", "TRC-14", "OOP-24"),
    "order of operations": ("TRC-01", "TRC-02", "TRC-12", "SEC-01"),
    "page-table pages": ("TBL-02", "TBL-04", "OOP-09", "OOP-10"),
    "no memory for tables": ("LIN-09", "OOP-17"),
    "beyond reach": ("LIN-06", "OOP-18"),
    "poisoned memory": ("ENV-02", "MOM-12", "OOP-25"),
    "permissions": ("ATT-01", "ATT-02", "ATT-03"),
    "section usage": ("SEC-07", "OOP-06"),
}  # fmt: skip


@cache
def _by_code() -> dict[str, frozenset[str]]:
    named: dict[str, set[str]] = {}
    groups = [*SUBJECTS.items(), *((bug.key, bug.rules) for bug in KNOWN_BUGS)]
    for subject, codes in groups:
        for code in codes:
            named.setdefault(code, set()).add(subject)
    return {code: frozenset(subjects) for code, subjects in named.items()}


def subjects_of(rule: Rule) -> frozenset[str]:
    """What a rule is about."""
    return _by_code().get(rule.code) or frozenset({rule.family})
