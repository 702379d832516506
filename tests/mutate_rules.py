"""Breaks every rule in small ways and shows whether the tests notice: ``python -m tests.mutate_rules [NAME...]``.

A mutant (tests/mutants.py says which there are) is noticed if a test of tests/rules fails while it stands in the place
of its rule. The tests are run once as they are, and every set of facts that they audit is kept. A mutant that says
the same as its rule about all of these, to the word, cannot be noticed; for any other the tests that audit what it
judges otherwise are run again, until one fails. The laws (test_laws.py) are left out: they draw their cases at random.

Helpers of a family are mutated with the rules that import them. A mutant that cannot be evaluated, because its
operator does not exist for the type, is none. tests/mutants.toml lists, with the reason, the mutants that cannot or
need not be noticed; any other that is not noticed, or fewer than 95 % noticed, is exit status 1. Not part of the
test run.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from unittest.mock import patch

import pytest
from _pytest.runner import runtestprotocol

from parsers.ranges import EMPTY
from rules import engine
from rules.engine import Outcome, Verdict, builtin_rules
from rules.facts import Facts
from rules.rule import Rule
from tests.mutants import Mutant, mutants

ROOT = Path(__file__).parents[1]
LEFT = Path(__file__).with_name("mutants.toml")
ENOUGH = 95
"""Percent of the mutants that have to be noticed."""
DUMPS = frozenset({"after", "dimm", "hvo", "mixed", "pmem", "readded"})
"""Fixtures that are crash dumps."""


# What is mutated ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A module to mutate: a rule's own, or one that rules import."""

    where: str
    """The rule's code, or family/module of a helper."""
    module: ModuleType
    modules: tuple[ModuleType, ...]
    """Of the rules that the mutant may change."""


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def targets(names: Iterable[str] = ()) -> list[Target]:
    """The modules named by a rule's code, by family/module, or by the prefix of a family's codes; all for no name."""
    homes = {rule.code: import_module(rule.module) for rule in builtin_rules()}
    prefixes = {_package(module): code.partition("-")[0] for code, module in homes.items()}
    found = [Target(code, module, (module,)) for code, module in homes.items()]
    for name in sorted(set(sys.modules) - {module.__name__ for module in homes.values()}):
        helper = sys.modules[name]
        if _package(helper) in prefixes:
            users = tuple(module for module in homes.values() if _imports(module, helper))
            found.append(Target("/".join(name.split(".")[1:]), helper, users))
    wanted = set(names)
    return [one for one in found if not wanted or wanted & {one.where, prefixes[_package(one.module)]}]


def _package(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[0]


def _imports(module: ModuleType, helper: ModuleType) -> bool:
    package, _, last = helper.__name__.rpartition(".")
    return any(
        node.module == helper.__name__ or (node.module == package and last in {alias.name for alias in node.names})
        for node in ast.parse(_source(module)).body
        if isinstance(node, ast.ImportFrom)
    )


def made(target: Target, mutant: Mutant) -> dict[str, Rule]:
    """The rules of a mutant, by code."""
    changed = _run(target.module, compile(mutant.tree, str(target.module.__file__), "exec"))
    if target.modules == (target.module,):
        return _rules(changed)
    found: dict[str, Rule] = {}
    for module in target.modules:
        with _in_place(target.module.__name__, changed):
            found |= _rules(_run(module, compile(_source(module), str(module.__file__), "exec")))
    return found


def _run(original: ModuleType, code: object) -> ModuleType:
    module = ModuleType(original.__name__)
    module.__dict__.update(__package__=original.__package__, __file__=original.__file__)
    with _in_place(original.__name__, module):  # dataclasses look their module up
        exec(code, module.__dict__)
    return module


@contextmanager
def _in_place(name: str, module: ModuleType) -> Iterator[None]:
    package, _, last = name.rpartition(".")
    with patch.dict(sys.modules, {name: module}), patch.object(sys.modules[package], last, module):
        yield


def _rules(module: ModuleType) -> dict[str, Rule]:
    return {one.code: one for one in vars(module).values() if isinstance(one, Rule)}


# What notices ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Audited:
    """Facts that tests audit, what the rules said, and the tests."""

    facts: Facts
    tests: list[pytest.Item] = field(default_factory=list)
    said: dict[str, object] = field(default_factory=dict)


class Bench:
    """Runs the tests once as they are, and single ones again with a mutant in the place of its rule."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.results: list[Result] = []
        self.audited: dict[int, Audited] = {}
        self.test: pytest.Item | None = None
        self.mutants: dict[str, Rule] = {}
        self.failed = False
        self.broken: set[pytest.Item] = set()
        self.judge = engine._verdict

    def verdict(self, rule: Rule, facts: Facts) -> Verdict:
        """In the place of the engine's own."""
        verdict = self.judge(self.mutants.get(rule.code, rule), facts)
        if self.test is not None:
            seen = self.audited.setdefault(id(facts), Audited(facts))
            seen.said[rule.code] = words(verdict)
            if self.test not in seen.tests:
                seen.tests.append(self.test)
        return verdict

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        self.failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In the place of pytest's loop."""
        items = session.items
        with patch.object(engine, "_verdict", self.verdict):
            for item, following in zip(items, [*items[1:], None], strict=True):
                self.test = item
                runtestprotocol(item, nextitem=following)
                if self.failed:
                    print(f"left out, as it fails with no rule changed: {item.nodeid}", file=sys.__stdout__, flush=True)
                    self.broken.add(item)
                    self.failed = False
            self.test = None
            for target in targets(self.names):
                for mutant in mutants(_source(target.module)):
                    noticed = self.notices(target, mutant)
                    if noticed is not None:
                        result = Result(target.where, mutant.line, mutant.change, mutant.number, noticed)
                        self.results.append(result)
                        result.show()
        return True

    def notices(self, target: Target, mutant: Mutant) -> bool | None:
        """Whether a test fails; None where there is nothing to evaluate."""
        try:
            self.mutants = made(target, mutant)
        except Exception:
            return True
        tried = set(self.broken)
        for audited in sorted(self.audited.values(), key=lambda one: self.distance(one, set(self.mutants))):
            for code, rule in self.mutants.items():
                if code not in audited.said:
                    continue
                verdict = self.alone(rule, audited.facts)
                if verdict.outcome is Outcome.ERROR and "unsupported operand type" in verdict.reason:
                    return None
                if words(verdict) != audited.said[code]:
                    for test in audited.tests:
                        if test not in tried and self.fails(test):
                            return True
                        tried.add(test)
        return False

    @staticmethod
    def distance(audited: Audited, codes: set[str]) -> int:
        """Sort key: the tests of the rule first, and crash dumps last, as they take long."""
        files = {f"test_{code.replace('-', '').lower()}" for code in codes}
        own = any(test.path.stem in files or f"[{code}/" in test.name for test in audited.tests for code in codes)
        return 2 * (not own) + any(DUMPS.intersection(test.fixturenames) for test in audited.tests)

    def alone(self, rule: Rule, facts: Facts) -> Verdict:
        """What a mutant says; a warning is an error, as in the tests."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return self.judge(rule, facts)

    def fails(self, test: pytest.Item) -> bool:
        """Whether a test fails with the mutant in place."""
        helpers = [module for name, module in sys.modules.items() if name.startswith("tests.rules")]
        for value in [value for module in (*helpers, test.module) for value in vars(module).values()]:
            if hasattr(value, "cache_clear"):
                value.cache_clear()
        self.failed = False
        runtestprotocol(test, nextitem=None)
        return self.failed


def words(verdict: Verdict) -> object:
    """All that a test could compare."""
    hits = [
        (one.severity, one.hit.claim, one.hit.pfns.tuples(), replace(one.hit, pfns=EMPTY).__dict__)
        for one in verdict.findings
    ]
    return str(verdict.outcome), verdict.reason, verdict.collect, hits


# What is said ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A mutant and whether it was noticed."""

    where: str
    line: str
    change: str
    number: int
    noticed: bool

    @property
    def identity(self) -> tuple[str, str, str]:
        """What tests/mutants.toml knows it by."""
        return self.where, self.line, self.change

    def show(self) -> None:
        """Print it if it was not."""
        if not self.noticed:
            print(f"{self.where}:{self.number}: {self.change}\n    in: {self.line}", file=sys.__stdout__, flush=True)


def results(names: list[str]) -> list[Result]:
    """The mutants of some modules, judged."""
    bench = Bench(names)
    tests = [str(path) for path in sorted((ROOT / "tests" / "rules").rglob("test_*.py")) if path.name != "test_laws.py"]
    # What the collector finds at a time of its own choosing is not the mutant's doing.
    without = ("terminal", "cacheprovider", "unraisableexception", "threadexception")
    with TemporaryDirectory() as home:
        options = ["-o", "addopts=", "-m", "not slow", "--capture=sys", f"--basetemp={home}/tests"]
        status = pytest.main([*options, *(f"-pno:{plugin}" for plugin in without), *tests], plugins=[bench])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"the tests cannot be run: {status!r}")
    return bench.results


def shares(names: list[str], jobs: int) -> list[list[str]]:
    """The modules, dealt out in equal parts."""
    weight = {one.where: sum(1 for _ in mutants(_source(one.module))) for one in targets(names)}
    dealt: list[list[str]] = [[] for _ in range(jobs)]
    for where in sorted(weight, key=lambda one: -weight[one]):
        min(dealt, key=lambda share: sum(weight[one] for one in share)).append(where)
    return [share for share in dealt if share]


def main(arguments: list[str]) -> int:
    """Mutate, print what was not noticed, and compare it with what may be left."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate_rules", description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="VMM-01, or VMM, or a helper: vmemmap/blocks")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes (default: 1)")
    chosen = parser.parse_args(arguments)
    with ProcessPoolExecutor(chosen.jobs, get_context("spawn")) as pool:
        judged = [one for share in pool.map(results, shares(chosen.names, chosen.jobs)) for one in share]
    listed = {(one["where"], one["line"], one["change"]) for one in tomllib.loads(LEFT.read_text())["left"]}
    survivors = {one.identity for one in judged if not one.noticed}
    stale = {one for one in listed if one[0] in {result.where for result in judged}} - survivors
    for where, line, change in sorted(stale):
        print(f"stale: {where}: {change}\n    in: {line}")
    noticed = sum(one.noticed for one in judged)
    unlisted = sum(not one.noticed and one.identity not in listed for one in judged)
    share = 100 * noticed / max(len(judged), 1)
    print(
        f"{len(judged)} mutants: {noticed} noticed ({share:.1f} %), {len(judged) - noticed - unlisted} listed, "
        f"{unlisted} neither; {len(stale)} of the list stale"
    )
    return int(unlisted > 0 or (not chosen.names and share < ENOUGH))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
