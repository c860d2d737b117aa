"""The layout of the tests and of the package: allowed imports, one tier for every test, and lengths of files."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.unit

TESTS = Path(__file__).parent


def imports_of_tests(source: str) -> list[str]:
    """Return imports of test modules or of conftest, anywhere in a file."""
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


# --- The layout of the package. ------------------------------------------------------------------------------------

ROOT = TESTS.parent
ORDER = [  # a module imports modules that stand before its own, or beside it in the same folder
    *(
        "errors",
        "cache",
        "options",
        "hookspecs",
        "tracing",
        "manager",
        "files",
        "host",
        "patches",
        "training_ext",
        "vision",
        "analysis",
    ),
    *("report", "plugins", "run", "bridge", "testing", "drawing_commands", "commands", "api", "cli"),
]
PATCHING = "host/patch.py"  # it applies the edits, which use definitions of the rest of `host`
SOURCES = [*ROOT.glob("stylegan_plugins/**/*.py"), *ROOT.glob("training_ext/*.py"), *ROOT.glob("patches/*.py")]
MODULES = sorted(file for file in SOURCES if "host/files" not in file.as_posix())


def layer_of(file: Path) -> str:
    """Return the name in ORDER of a module."""
    top, *rest = file.relative_to(ROOT).with_suffix("").parts
    return rest[0] if top == "stylegan_plugins" else top


def imported_layers(source: str) -> set[str]:
    """Return the layers that a module imports at run time. `from stylegan_plugins import Head` is the contract, which
    every module may import."""
    tree = ast.parse(source)
    typing = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names]
        modules = names if isinstance(node, ast.Import) else [f"{node.module}.{name}" for name in names]
        for top, *rest in (module.split(".") for module in modules):
            found |= {top} if top == "training_ext" else set(rest[:1]) if top == "stylegan_plugins" else set()
    return found & set(ORDER)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_point_one_way(file):
    mine = layer_of(file)
    if mine == "__init__":
        return  # the contract: it names what authors import
    allowed = {*ORDER[: ORDER.index(mine) + 1], *({"patches"} if file.as_posix().endswith(PATCHING) else set())}
    assert imported_layers(file.read_text(encoding="utf-8")) <= allowed


def test_an_import_against_the_order_is_found():
    source = (
        "from stylegan_plugins import Head, manager\ndef f():\n    from stylegan_plugins.run.session import Session\n"
    )
    assert imported_layers(source) == {"manager", "run"}
    assert imported_layers("import training_ext.loss\nimport torch\n") == {"training_ext"}


def test_nobody_imports_a_plugin_except_by_name():
    for file in MODULES:
        if layer_of(file) != "plugins":
            assert "plugins" not in imported_layers(file.read_text(encoding="utf-8")), file


def test_no_module_is_longer_than_400_lines_without_saying_why():
    for file in MODULES:
        source = file.read_text(encoding="utf-8")
        if len(source.splitlines()) > 400:
            assert "400 lines" in (ast.get_docstring(ast.parse(source)) or ""), file


# Names that may occur twice: a method's mathematics and its wiring; modules that several folders have.
BOTH = {"networks", "metrics", "train", "training_loop", "scripts", "common"}


def test_no_two_classes_or_modules_of_one_name_mean_different_things():
    classes: dict[str, Path] = {}
    modules: dict[str, Path] = {}
    for file in MODULES:
        if file.stem != "__init__" and file.stem not in BOTH and layer_of(file) != "plugins":
            assert modules.setdefault(file.stem, file) == file, f"{file} and {modules[file.stem]}"
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and layer_of(file) != "plugins":
                assert classes.setdefault(node.name, file) == file, f"{node.name} in {file} and {classes[node.name]}"


def test_parts_are_imported_without_torch_and_list_imports_no_plugin():
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['stylegan-plugins', 'list']\nfrom stylegan_plugins import Critic, Head, Term, View\n"
    )
    code += "from stylegan_plugins.cli import cli\ncli(standalone_mode=False)\n"
    code += "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'libcst', 'numpy', 'requests'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "augself" in done.stdout
