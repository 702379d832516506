"""The table of known bugs: which releases can have one, also where stable branches took it over with a fix."""

from __future__ import annotations

import re

import pytest

from parsers.uname import KernelRelease, parse_uname
from rules.engine import builtin_rules
from rules.model.bugs import KNOWN_BUGS, bug, judge


@pytest.mark.parametrize(
    ("release", "page_size", "words", "excluded"),
    [
        ("6.12.19", 4096, "For it: the kernel has 4K pages; 6.12.19 does not have the fix", False),
        ("6.12.20", 4096, "Against it: 6.12.20 has the fix, unless it was reverted", False),
        ("6.14", 4096, "has the fix", False),
        ("5.15.180", 4096, "5.15.180 does not have the fix", False),
        ("5.2.1", 4096, "older than the bug (5.3)", True),
        ("6.12.19", 65536, "Against it: the kernel has 64K pages", True),
        ("6.6.0-generic-arm64", 4096, "the release does not say", False),
    ],
)
def test_known_bug_is_judged(release: str, page_size: int, words: str, excluded: bool) -> None:
    judgement = judge("partial-section-pmd", parse_uname(release.encode(), "uname"), page_size)
    assert words in str(judgement)
    assert judgement.excluded is excluded
    assert "fixed in 6.14" in str(judgement)


def test_bug_without_a_fix_says_so() -> None:
    assert str(judge("shared-basepage", None, 65536)).endswith("No fix is known.")


def release(text: str) -> KernelRelease:
    return parse_uname(text.encode(), "uname")


# The pairs of cve/published/2024/CVE-2024-41055.dyad and 2023/CVE-2023-52489.dyad (vulns.git).
@pytest.mark.parametrize(
    ("branch", "first", "fixed"),
    [("5.10", 210, 222), ("5.15", 149, 163), ("6.1", 76, 100), ("6.6", 15, 41)],
)
def test_the_fix_of_the_usage_race_brought_the_null_usage_to_stable_branches(
    branch: str, first: int, fixed: int
) -> None:
    race, null = bug("usage-race"), bug("usage-null")
    seen = {
        patch: (race.possible_in(release(f"{branch}.{patch}")), null.possible_in(release(f"{branch}.{patch}")))
        for patch in (first - 1, first, fixed - 1, fixed)
    }
    assert seen == {
        first - 1: (True, False),
        first: (False, True),
        fixed - 1: (False, True),
        fixed: (False, False),
    }


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("6.7.2", False),
        ("6.7.12", True),
        ("6.8.1", True),
        ("6.9.9", True),
        ("6.9.10", False),
        ("6.10.0", False),
        ("6.5.13", False),
        ("Linux h 6.1.0-18-arm64 #1 SMP Debian 6.1.76-1 (2024-02-01) aarch64", True),
        ("Linux h 6.1.0-23-arm64 #1 SMP Debian 6.1.99-1 (2024-07-15) aarch64", True),
        ("Linux h 6.1.0-25-arm64 #1 SMP Debian 6.1.106-3 (2024-08-26) aarch64", False),
        ("5.15.0-130-generic", True),  # a vendor's: it may have taken over either
    ],
)
def test_a_null_usage_is_possible(text: str, possible: bool) -> None:
    assert bug("usage-null").possible_in(release(text)) is possible


def test_a_bug_that_came_with_a_backport_is_judged_by_its_branch() -> None:
    before, between = (judge("usage-null", release(text), 4096) for text in ("6.1.75", "6.1.80"))
    assert before.excluded
    assert "6.1.75 is older than the bug (6.8, 6.7.3, 6.6.15, 6.1.76, 5.15.149, 5.10.210)" in before.contradicts
    assert not between.excluded
    assert "6.1.80 does not have the fix" in between.supports


def test_no_branch_is_fixed_before_it_has_the_bug() -> None:
    for entry in KNOWN_BUGS:
        for branch, patch in entry.stable.items():
            since = (*entry.introduced, 0) if branch >= entry.introduced else (*branch, entry.backported.get(branch, 0))
            assert since < (*branch, patch), entry.key
            assert branch >= entry.introduced or branch in entry.backported, entry.key


def test_every_rule_that_is_said_to_find_a_bug_exists() -> None:
    codes = {one.code for one in builtin_rules()}
    assert {rule for entry in KNOWN_BUGS for rule in entry.rules} <= codes


def test_a_bug_is_known_by_its_key_and_by_the_commit_that_fixes_it() -> None:
    names = [entry.name for entry in KNOWN_BUGS] + [entry.key for entry in KNOWN_BUGS if entry.commit]
    assert len(names) == len(set(names))
    for entry in KNOWN_BUGS:
        assert bug(entry.key) is bug(entry.name) is entry
        assert re.fullmatch(r"[0-9a-f]{12}|", entry.commit), entry.key
        assert bool(entry.commit or entry.subject) == (entry.fixed is not None), entry.key
    assert bug("d4234d131b0a").key == "partial-section-pmd"
    for unknown in ("", "d4234d131b0", "0123456789ab"):
        with pytest.raises(KeyError):
            bug(unknown)
