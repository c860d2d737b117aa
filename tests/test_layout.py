"""The layout of the tests: what a test module may import, and that every test has one tier."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.unit

TESTS = Path(__file__).parent


def imports_of_tests(source: str) -> list[str]:
    """Imports of test modules or of conftest, anywhere in a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names if not node.module)]
        else:
            continue
        found += [name for name in names if name.split(".")[-1].startswith(("test_", "conftest"))]
    return found


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_imports_a_test_module(path):
    assert imports_of_tests(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "statement",
    [
        *["import test_a", "import tests.test_a as a", "from test_a import b", "from tests.test_a import b"],
        *["from . import test_a", "def f():\n    from .test_a import b", "from conftest import b"],
    ],
)
def test_every_way_to_import_a_test_module_is_found(statement):
    assert imports_of_tests(f"import json\nfrom support.runs import options\n{statement}\n")


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ([], "test_a.py::test_b: has no tier"),
        (["unit", "run"], "test_a.py::test_b: has unit and run; mark it with one"),
    ],
)
def test_a_test_with_no_tier_or_with_two_stops_the_collection(tiers, message, request):
    conftest = request.config.pluginmanager.get_plugin(str(TESTS / "conftest.py"))
    item = lambda tiers: SimpleNamespace(nodeid="test_a.py::test_b", get_closest_marker=lambda name: name in tiers)
    conftest.pytest_collection_modifyitems([item(["unit"]), item(["host"])])
    with pytest.raises(pytest.UsageError, match=message):
        conftest.pytest_collection_modifyitems([item(["unit"]), item(tiers)])
