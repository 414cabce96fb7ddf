"""The rules of the house, as tests."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from service import __version__
from service.settings import Group, Settings

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "service").rglob("*.py"))
IDS = [str(module.relative_to(ROOT)) for module in MODULES]
MAX_LINES, MAX_FUNCTION, MAX_NESTING = 400, 60, 4
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith)
DRAWERS = {"utils", "common", "helpers", "core", "manager", "misc"}
BANNED_AFFIXES = re.compile(r"(Manager|Helper|Handler|Service|Impl)$|^Base[A-Z]")
Function = ast.FunctionDef | ast.AsyncFunctionDef

# The three edges where anything may arrive: HTTP, the engine loop, the command line.
EDGES = {
    "service/api/errors.py",
    "service/api/middleware.py",
    "service/api/streaming.py",
    "service/engine/__main__.py",
    "service/engine/engine.py",
    "service/cli/__init__.py",
    "service/cli/main.py",
}


def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def functions(module: Path) -> list[Function]:
    return [n for n in ast.walk(tree_of(module)) if isinstance(n, Function)]


def nesting(node: ast.AST, depth: int = 0) -> int:
    """The deepest block inside `node`; an `elif` counts as its `if`."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deeper = depth + (isinstance(child, BLOCKS) and not is_elif)
        deepest = max(deepest, nesting(child, deeper))
    return deepest


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def blind_excepts(module: Path) -> Iterator[int]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ExceptHandler):
            names = (
                {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                if node.type
                else {""}
            )
            if names & {"", "Exception", "BaseException"}:
                yield node.lineno


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_module_fits_on_a_desk(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_functions_fit_on_a_screen(module: Path) -> None:
    assert [f.name for f in functions(module) if length(f) > MAX_FUNCTION] == []


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_functions_stay_shallow(module: Path) -> None:
    assert [f.name for f in functions(module) if nesting(f) > MAX_NESTING] == []


def test_there_is_no_drawer_for_leftovers() -> None:
    assert [name for name, m in zip(IDS, MODULES, strict=True) if m.stem in DRAWERS] == []


def test_classes_are_named_after_nouns() -> None:
    named = [
        f"{name}:{node.name}"
        for name, module in zip(IDS, MODULES, strict=True)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ClassDef) and BANNED_AFFIXES.search(node.name)
    ]
    assert named == []


def test_every_room_states_its_charter() -> None:
    rooms = [m for m in MODULES if m.name == "__init__.py" and m.parent.parent.name == "service"]
    assert [str(m) for m in rooms if not ast.get_docstring(tree_of(m))] == []


def test_only_settings_reads_the_environment() -> None:
    readers = {
        name
        for name, m in zip(IDS, MODULES, strict=True)
        if re.search(r"os\.environ|getenv", m.read_text())
    }
    # The supervisor is standard library only: it hands its environment on, and builds none of it.
    assert {n for n in readers if not n.startswith("service/supervisor")} <= {"service/settings.py"}


def test_only_the_engine_imports_llama_cpp() -> None:
    importers = {
        name
        for name, m in zip(IDS, MODULES, strict=True)
        if re.search(r"^\s*(import|from) llama_cpp", m.read_text(), re.MULTILINE)
    }
    assert {n for n in importers if not n.startswith("service/engine/")} == set()


def test_the_supervisor_needs_only_the_standard_library() -> None:
    allowed = sys.stdlib_module_names | {"service"}
    imported = {
        alias.split(".")[0]
        for name, m in zip(IDS, MODULES, strict=True)
        if name.startswith("service/supervisor") or name == "service/ipc/status.py"
        for node in ast.walk(tree_of(m))
        for alias in _imported_names(node)
    }
    assert imported <= allowed


def _imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def test_anything_is_caught_only_at_the_edges() -> None:
    found = {
        name: lines
        for name, m in zip(IDS, MODULES, strict=True)
        if name not in EDGES and (lines := list(blind_excepts(m)))
    }
    assert found == {}


def test_every_setting_is_described() -> None:
    groups: list[type[BaseModel]] = [Settings, *Group.__subclasses__()]
    bare = [
        f"{group.__name__}.{name}"
        for group in groups
        for name, field in group.model_fields.items()
        if field.description is None
        and not (isinstance(field.annotation, type) and issubclass(field.annotation, Group))
    ]
    assert bare == []


def test_every_metric_is_counted_somewhere() -> None:
    defining = ROOT / "service" / "metrics.py"
    defined = re.findall(r"^([A-Z_]+) = (?:Counter|Gauge|Histogram)\(", defining.read_text(), re.M)
    elsewhere = "\n".join(m.read_text() for m in MODULES if m != defining)
    assert len(defined) > 40
    assert [name for name in defined if not re.search(rf"\b{name}\b", elsewhere)] == []


def test_tests_wait_for_what_happens_and_not_for_time_to_pass() -> None:
    """What tests run, instead of parts of ours, may take its time; and one place waits for all."""
    written = [m for m in sorted((ROOT / "tests").rglob("*.py")) if m.parent.name != "programs"]
    pausing = {
        str(m.relative_to(ROOT)) for m in written if re.search(r"\bsleep\((?!0\))", m.read_text())
    }
    assert pausing - {"tests/test_house.py"} == {"tests/waiting.py", "tests/auth/admission_cost.py"}


def test_the_changelog_starts_with_this_version() -> None:
    headings = re.findall(
        r"^## \[?v?(\d+\.\d+\.\d+|Unreleased)", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert headings[:1] in ([__version__], ["Unreleased"])


def test_nothing_is_left_to_do_later() -> None:
    marked = [
        name
        for name, m in zip(IDS, MODULES, strict=True)
        if re.search(r"\b(TODO|FIXME|XXX)\b|NotImplementedError", m.read_text())
    ]
    assert marked == []
