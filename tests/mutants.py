"""Small ways to break a rule: every condition and every bound of a module, changed one at a time.

What is broken: a comparison (its bound let in or left out, or turned round), a term of a condition (left out, or its
negation taken away), an operand of a set operation, arithmetic, a whole number (one more, one less), a refusal (left
out). What is not: code of which nothing but printed text comes (titles, messages, quoted evidence, keys, how many of
a list are named). That is decided from where values go: an expression inside of printed text is printed, a name that
only such expressions read is printed, and so is what computes it.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import UnionType

__all__ = ["Mutant", "mutants"]

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
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
PRINTED_WORDS = {"title", "message", "evidence", "references", "key", "text"}
PRINTED_TYPES = {"str", "Evidence", "tuple[Evidence, ...]"}
Change = Callable[[ast.AST], ast.AST]
"""Makes of a copy of a node what stands in its place."""


@dataclass(frozen=True, eq=False)
class Mutant:
    """A module with one change: the line that it is in, and what becomes of what."""

    line: str
    change: str
    number: int
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    tree, lines = ast.parse(source), source.splitlines()
    printed = _printed(tree)
    for number, node in enumerate(ast.walk(tree)):
        if node in printed:
            continue
        for change in _changes(node):
            mutated = copy.deepcopy(tree)
            old = next(one for at, one in enumerate(ast.walk(mutated)) if at == number)
            before = _words(old)
            new = change(old)
            mutated = _Exchange(old, new).visit(mutated)
            ast.fix_missing_locations(mutated)
            at: int = getattr(node, "lineno", 0)
            yield Mutant(lines[at - 1].strip(), f"{before} -> {_words(new)}", at, mutated)


def _words(node: ast.AST) -> str:
    """The node as it is printed: of a statement, its condition."""
    return f"if {ast.unparse(node.test)}" if isinstance(node, ast.If | ast.While) else ast.unparse(node)


class _Exchange(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """The new node for the old one; all others as they are."""
        return self.new if node is self.old else self.generic_visit(node)


# Changes ------------------------------------------------------------------------------------------------------------


def _changes(node: ast.AST) -> Iterator[Change]:
    for kinds, changes in _CHANGES:
        if isinstance(node, kinds):
            yield from changes(node)


def _comparison(node: ast.Compare) -> Iterator[Change]:
    for at, old in enumerate(node.ops):
        for operator in COMPARISONS[type(old)]:
            yield _with(lambda one, at=at, new=operator: one.ops.__setitem__(at, new()))


def _arithmetic(node: ast.BinOp | ast.AugAssign) -> Iterator[Change]:
    if type(node.op) in ARITHMETIC:
        yield _with(lambda one: setattr(one, "op", ARITHMETIC[type(one.op)]()))


def _operand(node: ast.BinOp) -> Iterator[Change]:
    if isinstance(node.op, ast.BitAnd | ast.BitOr | ast.Sub):
        yield lambda one: one.left
    if isinstance(node.op, ast.BitAnd | ast.BitOr):
        yield lambda one: one.right


def _term(node: ast.BoolOp) -> Iterator[Change]:
    for at in range(len(node.values)):
        yield lambda one, at=at: _without(one, at)


def _negation(node: ast.UnaryOp) -> Iterator[Change]:
    if isinstance(node.op, ast.Not | ast.Invert):
        yield lambda one: one.operand


def _number(node: ast.Constant) -> Iterator[Change]:
    if type(node.value) is int:
        for step in (1, -1):
            yield lambda one, step=step: ast.Constant(one.value + step)


def _refusal(_: ast.Raise) -> Iterator[Change]:
    yield lambda _: ast.Pass()


def _truth(node: ast.If | ast.IfExp | ast.While) -> Iterator[Change]:
    if _bare(node.test):
        yield _with(lambda one: setattr(one, "test", ast.UnaryOp(ast.Not(), one.test)))


def _filter(node: ast.comprehension) -> Iterator[Change]:
    for at, test in enumerate(node.ifs):
        if _bare(test):
            yield _with(lambda one, at=at: one.ifs.__setitem__(at, ast.UnaryOp(ast.Not(), one.ifs[at])))


_CHANGES: tuple[tuple[type[ast.AST] | UnionType, Callable[..., Iterator[Change]]], ...] = (
    (ast.Compare, _comparison),
    (ast.BinOp | ast.AugAssign, _arithmetic),
    (ast.BinOp, _operand),
    (ast.BoolOp, _term),
    (ast.UnaryOp, _negation),
    (ast.Constant, _number),
    (ast.Raise, _refusal),
    (ast.If | ast.IfExp | ast.While, _truth),
    (ast.comprehension, _filter),
)


def _with(do: Callable[..., None]) -> Change:
    def change(node: ast.AST) -> ast.AST:
        copied = copy.deepcopy(node)
        do(copied)
        return copied

    return change


def _without(node: ast.AST, at: int) -> ast.AST:
    """A condition without one of its terms."""
    assert isinstance(node, ast.BoolOp)
    values = node.values[:at] + node.values[at + 1 :]
    return values[0] if len(values) == 1 else ast.BoolOp(node.op, values)


def _bare(test: ast.expr) -> bool:
    """Whether a condition holds nothing that is changed by itself."""
    negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    return not (negated or isinstance(test, ast.Compare | ast.BoolOp))


# What is only printed -----------------------------------------------------------------------------------------------


def _printed(tree: ast.Module) -> set[ast.AST]:
    """Every node that cannot change whether, where, how severe and how sure a finding is."""
    printed: set[ast.AST] = set()
    for node in ast.walk(tree):
        for part in _text(node):
            printed.update(ast.walk(part))
    known = -1
    while known != len(printed):
        known = len(printed)
        for scope in ast.walk(tree):
            if isinstance(scope, ast.Module | ast.FunctionDef):
                _spread(scope, printed)
    return printed


def _spread(scope: ast.Module | ast.FunctionDef, printed: set[ast.AST]) -> None:
    """Take in the statements of a scope that compute what is only printed."""
    read = {name for node in ast.walk(scope) for name in _name(node)}
    live = {name for node in ast.walk(scope) if node not in printed for name in _name(node)}
    called = live | {node.attr for node in ast.walk(scope) if isinstance(node, ast.Attribute) and node not in printed}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            feeds = {name for target in node.targets for name in _targets(target)}
            idle = bool(feeds) and feeds <= read - live
        elif isinstance(node, ast.FunctionDef):
            text = node.returns is not None and ast.unparse(node.returns) in PRINTED_TYPES
            idle = node.name not in called and (text or node.name in read)
        elif isinstance(node, ast.If | ast.For):
            idle = all(one in printed for one in node.body + node.orelse)
        else:
            continue
        if idle:
            printed.update(ast.walk(node))


def _name(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id


def _targets(target: ast.AST) -> Iterator[str]:
    """Names that an assignment binds; of other targets, a word that is always read."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            yield node.id
        elif not isinstance(node, ast.Tuple | ast.Store):
            yield ""


def _text(node: ast.AST) -> Iterator[ast.AST]:
    """What is text by its place: no part of a decision, or a part of what a finding or a refusal says."""
    words = isinstance(node, ast.keyword) and node.arg in PRINTED_WORDS
    quoted = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Evidence"
    if words or quoted or isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.arguments):
        yield node
    elif isinstance(node, ast.Raise) and node.exc is not None:
        yield node.exc
    elif isinstance(node, ast.AnnAssign):
        yield node.annotation
    elif isinstance(node, ast.Slice) and node.lower is None and _is_limit(node.upper):
        yield node
    elif isinstance(node, ast.FunctionDef):
        yield from node.decorator_list
        if node.returns is not None:
            yield node.returns


def _is_limit(node: ast.AST | None) -> bool:
    """How many of a list are named: ``[:4]``, ``[:MAX_HITS]``."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    return isinstance(node, ast.Name) and node.id.isupper()
