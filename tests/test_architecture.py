"""The shape of the project: imports go one way, only the analyzer prints, no file grows out of hand."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "parsers": {"rules", "analyzer", "ptaudit"},
    "rules": {"analyzer", "ptaudit"},
    "analyzer": {"ptaudit"},
    "ptaudit": {"rich", "click"},
}
MODULES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 500


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert not imported(path) & FORBIDDEN[package]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_analyzer_prints_and_rules_open_no_file(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    forbidden = {"parsers": {"print"}, "rules": {"print", "open"}, "analyzer": set(), "ptaudit": {"print"}}
    assert not calls & forbidden[package]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dataclasses_are_those_of_parsers_records(path: Path) -> None:
    """Those of the standard library compile source for each class, which every start of the program would wait for."""
    taken = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
        for alias in node.names
    }
    assert "dataclass" not in taken or path == ROOT / "parsers" / "records.py"


def compiled_at_import(node: ast.AST) -> list[int]:
    """Lines that call re.compile() when the module is imported."""
    lines = [node.lineno] if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile" else []
    inside = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.FunctionDef | ast.Lambda)]
    return lines + [line for child in inside for line in compiled_at_import(child)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_regular_expression_is_compiled_at_import(path: Path) -> None:
    """`parsers.expressions.expression` compiles when it is used; what runs without the packages is its own program."""
    assert "without_packages" in path.parts or not compiled_at_import(ast.parse(path.read_text()))


def test_help_does_not_import_the_heavy_libraries() -> None:
    code = "import sys, analyzer.cli; print([m for m in ('numpy', 'drgn', 'rich', 'construct') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
