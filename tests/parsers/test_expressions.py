"""Expressions are patterns that are compiled when they are first used."""

from __future__ import annotations

import gc
import importlib
import pickle
import pkgutil
import re
import subprocess
import sys

import pytest

import analyzer
import parsers
import rules
from parsers.expressions import Expression, expression  # type: ignore[attr-defined]

COMPILED_AT_IMPORT = """
import gc, analyzer.audit_command
from parsers.expressions import Expression
from rules.engine import load_rules
load_rules()
made = [one for one in gc.get_objects() if isinstance(one, Expression)]
print(len(made) > 300, [one for one in made if "match" in vars(one)])
"""


def test_importing_the_audit_compiles_no_expression() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILED_AT_IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def test_every_expression_of_the_program_can_be_compiled() -> None:
    for package in (parsers, rules, analyzer):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "without_packages" not in module.name:
                importlib.import_module(module.name)
    made = [one for one in gc.get_objects() if isinstance(one, Expression)]
    assert len(made) > 300
    assert all(one.groups >= 0 for one in made)


def test_an_expression_is_used_as_a_pattern_is() -> None:
    one, other = expression(r"(?P<first>a+)(b)?", re.IGNORECASE), re.compile(r"(?P<first>a+)(b)?", re.IGNORECASE)
    for name in ("pattern", "flags", "groups", "groupindex"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("search", "match", "fullmatch", "findall", "split"):
        for text in ("xAAb aa", "aab", "", "b"):
            assert repr(getattr(one, name)(text)) == repr(getattr(other, name)(text))
    assert one.sub("-", "caab") == other.sub("-", "caab")
    assert one.search("aab", 1)["first"] == "a"
    with pytest.raises(AttributeError, match="nothing"):
        _ = one.nothing


def test_an_expression_is_pickled_by_its_text() -> None:
    one = expression(rb"a+", re.MULTILINE)
    assert one.match(b"aa")
    copy = pickle.loads(pickle.dumps(one))
    assert (copy.pattern, copy.flags) == (one.pattern, one.flags)


def test_what_is_wrong_with_an_expression_is_said_when_it_is_used() -> None:
    with pytest.raises(re.error, match="unterminated"):
        expression("(").match("")
