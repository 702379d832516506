"""Breaks every rule in small ways and shows whether its fixtures notice: ``python -m tests.mutate_rules [CODE...]``.

Each mutant of a rule's module (a comparison or its bound moved by one, a set operation exchanged, a negation or a
refusal left out) is run on what the tests run the rule on: its own cases of fixtures/rules, the captures, and the
damaged crash dumps of tests/rules. A mutant about which no test would say anything else survives and is printed. Some
survivors are equivalent (a bound that nothing can reach): the list is to be read, not to be empty. Not part of the
test run.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from analyzer.sources.read import Request, read_sources
from rules.engine import Outcome, Verdict, builtin_rules, run
from rules.facts import Facts
from rules.finding import Severity
from rules.model.captured import facts_of
from rules.rule import Rule

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rules"
CAPTURES = FIXTURES.parent / "captures"
Case = tuple[Facts, Callable[[Verdict], object], object]
"""Evidence, what is compared, what the rule says."""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
WORDS = {"message", "evidence", "references", "key", "text"}
"""Arguments that are only printed."""


@dataclass(frozen=True)
class Mutant:
    """A change of one place: what it was and what it is."""

    line: int
    before: str
    after: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, one change each."""
    tree = ast.parse(source)
    places = list(_places(tree))
    for number, node in enumerate(places):
        for change in _changes(node):
            mutated = copy.deepcopy(tree)
            target = list(_places(mutated))[number]
            before = ast.unparse(target)
            change(target)
            ast.fix_missing_locations(mutated)
            yield Mutant(getattr(node, "lineno", 0), before, ast.unparse(target), mutated)


def _places(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes inside of functions whose value matters: not decorators, annotations, printed text."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr | ast.arguments | ast.Import | ast.ImportFrom):
            continue
        if isinstance(child, ast.keyword) and child.arg in WORDS:
            continue
        if isinstance(node, ast.FunctionDef) and (child in node.decorator_list or child is node.returns):
            continue
        if isinstance(node, ast.Slice) or (isinstance(node, ast.AnnAssign) and child is node.annotation):
            continue
        yield child
        yield from _places(child)


def _changes(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    if isinstance(node, ast.Compare):
        for operator in COMPARISONS.get(type(node.ops[0]), ()):
            yield lambda at, new=operator: at.ops.__setitem__(0, new())  # type: ignore[attr-defined, misc]
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield lambda at: setattr(at, "op", OPERATORS[type(at.op)]())  # type: ignore[attr-defined]
    elif isinstance(node, ast.BoolOp):
        yield lambda at: setattr(at, "op", ast.Or() if isinstance(at.op, ast.And) else ast.And())  # type: ignore[attr-defined]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield lambda at: setattr(at, "op", ast.UAdd())
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        for step in (1, -1):
            yield lambda at, step=step: setattr(at, "value", at.value + step)  # type: ignore[attr-defined, misc]
    elif isinstance(node, ast.Raise):
        yield _leave_out


def _leave_out(node: ast.AST) -> None:
    """A refusal becomes a statement without effect."""
    node.__class__ = ast.Expr
    node.value = ast.Constant(value=None)  # type: ignore[attr-defined]


def said(verdict: Verdict) -> object:
    """What the fixtures compare."""
    findings = [
        (int(one.severity), str(one.hit.claim), one.hit.title, one.hit.pfns.tuples(), one.hit.vas)
        for one in verdict.findings
    ]
    return str(verdict.outcome), findings


def evidence(code: str) -> list[Facts]:
    """The facts of every case of a rule."""
    found = []
    for case in sorted(path for path in (FIXTURES / code).glob("*") if path.is_dir()):
        earlier = case / "earlier_page_tables"
        sources = read_sources(Request((earlier, case) if earlier.exists() else (case,)))
        found.append(facts_of(sources.captured))
    return found


def alarms(verdict: Verdict) -> object:
    """What the tests of captures compare."""
    findings = [one for one in verdict.findings if one.severity >= Severity.HIGH]
    return verdict.outcome is Outcome.ERROR, [(int(one.severity), one.hit.pfns.tuples()) for one in findings]


def count(verdict: Verdict) -> object:
    """What the tests of damaged dumps compare, at the least."""
    return verdict.outcome is Outcome.ERROR, len(verdict.findings)


def captures() -> list[Facts]:
    """The facts of every capture."""
    homes = sorted({path.parent for path in CAPTURES.rglob("kernel_page_tables")})
    return [facts_of(read_sources(Request((home,))).captured) for home in homes]


def damaged_dumps() -> list[Facts]:
    """The facts of every crash dump that the tests damage: they are run once, and what they audit is kept."""
    from tests.rules import patched  # noqa: PLC0415  needs drgn

    kept: list[Facts] = []

    def keeping(rules: Iterable[Rule], facts: Facts) -> list[Verdict]:
        kept.append(facts)
        return run(rules, facts)

    patched.run = keeping
    tests = Path(__file__).parent / "rules"
    pytest.main(["-q", "-p", "no:cacheprovider", *(str(path) for path in tests.glob("test_*_mutations.py"))])
    return kept


def survives(mutant: Mutant, original: ModuleType, code: str, cases: list[Case]) -> bool:
    """Whether the mutant says the same as the rule about all cases."""
    module = ModuleType(original.__name__)
    module.__dict__.update(__package__=original.__package__, __file__=original.__file__)
    try:
        exec(compile(mutant.tree, str(original.__file__), "exec"), module.__dict__)
    except Exception:
        return False
    made = next(one for one in vars(module).values() if isinstance(one, Rule) and one.code == code)
    return all(view(run([made], facts)[0]) == wanted for facts, view, wanted in cases)


def main(codes: list[str]) -> None:
    """Print the survivors of the rules named, or of all."""
    total = survived = 0
    shared = [*((facts, alarms) for facts in captures()), *((facts, count) for facts in damaged_dumps())]
    for rule in builtin_rules():
        if codes and rule.code not in codes:
            continue
        module = import_module(rule.check.__module__)
        own = [(facts, said) for facts in evidence(rule.code)]
        cases = [(facts, view, view(run([rule], facts)[0])) for facts, view in own + shared]
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        for mutant in mutants(source):
            total += 1
            if survives(mutant, module, rule.code, cases):
                survived += 1
                print(f"{rule.code} line {mutant.line}: {mutant.before}  ->  {mutant.after}")  # noqa: T201
    print(f"{total} mutants, {survived} not noticed")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
