"""Assemble a host from two wheels that redistribute its code, where GitHub cannot be reached.

`slideflow-noncommercial` has both families as sub-packages of its own, with additions for its own data sets; `draggan`
has the parts of stylegan2-ada-pytorch that it uses, unchanged. A host is a plain directory of top-level packages. So
files are picked from the two (`WheelParts` of the family), and those of slideflow are rewritten as syntax trees:
`HostImports` makes the imports absolute, `WithoutSlideflow` takes out what only serves slideflow. Nothing of either
package is imported or run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import libcst as cst
import libcst.matchers as m

from stylegan_plugins.errors import HostError
from stylegan_plugins.host.families import HOSTS

OWN_FILES = Path(__file__).parent / "files"
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


DRAGGAN = "draggan/stylegan2"


def assemble(family: str, wheels: Path, target: Path) -> None:
    """Write the host of `family` into the empty directory `target`; `wheels` holds both wheels, unpacked."""
    parts = HOSTS[family].wheels
    scripts = wheels / parts.slideflow
    package = scripts / parts.package
    for folder in parts.folders:
        for source in sorted((package / folder).rglob("*.py")):
            path = source.relative_to(package)
            if path.as_posix() not in parts.left_out:
                _copy_rewritten(source, path, target, parts.package)
    for name in parts.modules:
        _copy_rewritten(package / name, PurePosixPath(name), target, parts.package)
    for name in parts.scripts:
        _copy_rewritten(scripts / name, PurePosixPath(name), target, parts.package)
    for name in parts.draggan:
        _copy(wheels / DRAGGAN / name, target / name)
    _copy(OWN_FILES / family, target)


def rewrite_source(code: bytes, path: PurePath, package: str) -> bytes:
    """Return the host's version of a source file of slideflow.

    `path` is the file's path in the host and decides what its relative imports mean; `package` is the name under
    which scripts import the host's packages."""
    rewriters: list[Any] = [HostImports(path, package), WithoutSlideflow(), DatasetAttributes()]
    rewriters = [rewriter for rewriter in rewriters if re.search(rewriter.concerns, code)]
    if not rewriters:
        return code  # most of the time goes into parsing and visiting, so files are not visited for nothing
    module = cst.parse_module(code)
    for rewriter in rewriters:
        module = module.visit(rewriter)
    return module.bytes


class HostImports(cst.CSTTransformer):
    """Makes absolute what leaves a top-level package of the host, and leaves alone what stays inside.

    In training/loss.py `from ..torch_utils import misc` becomes `from torch_utils import misc`, and
    `from .. import dnnlib, legacy` becomes `import dnnlib, legacy`; in metrics/ `from . import metric_utils` stays."""

    concerns = rb"from\s*\.|from\s+stylegan"

    def __init__(self, path: PurePath, package: str) -> None:
        super().__init__()
        self.path = PurePath(path)
        self.package = package

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: Any) -> Any:
        module = (cst.helpers.get_full_name_for_node(updated_node.module) if updated_node.module else None) or ""
        level = len(updated_node.relative)
        if level:
            above = len(self.path.parent.parts) - (level - 1)  # how many folders of the host the dots leave standing
            if above < 0:
                raise HostError(
                    f"{self.path}: the import of {module or 'a package'} with {level} dots leads out of "
                    "the host; the wheel is not the one this version of stylegan-plugins knows."
                )
            if above > 0:
                return updated_node
            return _absolute_import(updated_node, module, self.path)
        if module == self.package or module.startswith(self.package + "."):
            return _absolute_import(updated_node, module[len(self.package) + 1 :], self.path)
        return updated_node

    def leave_Try(self, original_node: cst.Try, updated_node: Any) -> Any:
        """Merge `try: from ..x import y` / `except ImportError: from x import y`: the same import twice now."""
        body = updated_node.body.body
        handlers = updated_node.handlers
        if not (_is_imports(body) and len(handlers) == 1 and _code(handlers[0].body.body) == _code(body)):
            return updated_node
        return cst.FlattenSentinel([body[0].with_changes(leading_lines=updated_node.leading_lines), *body[1:]])


class WithoutSlideflow(cst.CSTTransformer):
    """Takes out what slideflow added for its own data sets and what NVIDIA's modules, or a host, cannot answer.

    Its calc_metrics reads `args.slideflow_kwargs`, which is not set for a run of ours, and replaces the user's --data
    by that of the run; its loop passes `lazy` to a function that knows the argument only in slideflow's copy; its
    metrics import a progress bar that they do not use, which not everyone has."""

    concerns = rb"slideflow|lazy|tqdm"
    arguments = ("slideflow_kwargs", "lazy")
    parameters = ("slideflow_kwargs", "slideflow", "subfolder_labels")
    options = ("--slideflow", "--subfolder-labels")
    flags = ("slideflow", "is_slideflow_model")  # names that are false in a host
    recorded = "train_opt_kw"  # calc_metrics: the options of the run beside the pickle

    def __init__(self) -> None:
        super().__init__()
        self.elifs: set[cst.CSTNode] = set()
        self.bar_is_used = True

    def visit_Module(self, node: cst.Module) -> None:
        self.bar_is_used = len(m.findall(node, m.Name("tqdm"))) != len(("module", "name"))

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: Any) -> Any:
        unused = not self.bar_is_used and m.matches(updated_node, m.ImportFrom(m.Name("tqdm")))
        return cst.RemoveFromParent() if unused else updated_node

    def leave_Arg(self, original_node: cst.Arg, updated_node: Any) -> Any:
        keyword = updated_node.keyword
        return cst.RemoveFromParent() if keyword and keyword.value in self.arguments else updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: Any) -> Any:
        return updated_node.with_changes(args=_close(original_node.args, updated_node.args))

    def leave_Parameters(self, original_node: cst.Parameters, updated_node: Any) -> Any:
        return updated_node.with_changes(params=_close(original_node.params, updated_node.params))

    def leave_Param(self, original_node: cst.Param, updated_node: Any) -> Any:
        return cst.RemoveFromParent() if updated_node.name.value in self.parameters else updated_node

    def leave_Decorator(self, original_node: cst.Decorator, updated_node: Any) -> Any:
        option = m.Call(args=[m.Arg(value=m.SimpleString()), m.ZeroOrMore()])
        gone = (
            m.matches(updated_node.decorator, option)
            and updated_node.decorator.args[0].value.evaluated_value in self.options
        )
        return cst.RemoveFromParent() if gone else updated_node

    def leave_SimpleStatementLine(self, original_node: cst.SimpleStatementLine, updated_node: Any) -> Any:
        assignment = updated_node.body[0] if len(updated_node.body) == 1 else None
        if not (isinstance(assignment, cst.Assign) and len(assignment.targets) == 1):
            return updated_node
        target: Any = assignment.targets[0].target
        if m.matches(target, m.Name() | m.Attribute(attr=m.Name())):
            name = target if isinstance(target, cst.Name) else target.attr
            gone = name.value in (*self.flags, "slideflow_kwargs")
        else:
            gone = m.matches(target, m.Subscript()) and _mentions(target.slice, lambda text: "slideflow" in text)
        return cst.RemoveFromParent() if gone else updated_node

    def leave_With(self, original_node: cst.With, updated_node: Any) -> Any:
        loads = m.SimpleStatementLine([m.Assign(targets=[m.AssignTarget(m.Name(self.recorded))])])
        return cst.RemoveFromParent() if m.matches(original_node.body.body[0], loads) else updated_node

    def visit_If(self, node: cst.If) -> None:
        if isinstance(node.orelse, cst.If):
            self.elifs.add(node.orelse)

    def leave_If(self, original_node: cst.If, updated_node: Any) -> Any:
        if not self._is_false(updated_node.test):
            return updated_node
        orelse = updated_node.orelse
        if orelse is None:
            return cst.RemoveFromParent()
        if isinstance(orelse, cst.If) or original_node in self.elifs:
            return orelse.with_changes(leading_lines=updated_node.leading_lines)
        body = orelse.body.body
        return cst.FlattenSentinel([body[0].with_changes(leading_lines=updated_node.leading_lines), *body[1:]])

    def _is_false(self, test: Any) -> bool:
        """Return whether a condition cannot hold in a host: a flag, `'slideflow' in ...`, or `... and` one of these."""
        if m.matches(test, m.BooleanOperation(operator=m.And())):
            return self._is_false(test.left) or self._is_false(test.right)
        if m.matches(test, m.Comparison(m.SimpleString(), [m.ComparisonTarget(m.In())])):
            return test.left.evaluated_value == "slideflow"
        return isinstance(test, cst.Name) and test.value in self.flags


class DatasetAttributes(cst.CSTTransformer):
    """slideflow's dataset_tool reads `dataset_attrs` of the first image before anything is in it: an error at once."""

    concerns = rb"def convert_dataset"

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: Any) -> Any:
        if updated_node.name.value != "convert_dataset":
            return updated_node
        name = "dataset_attrs"
        starts_empty = m.SimpleStatementLine([m.Assign([m.AssignTarget(m.Name(name))], m.Name("None"))])
        statements = list(updated_node.body.body)
        if any(m.matches(statement, starts_empty) for statement in statements):
            return updated_node
        place = next(index for index, statement in enumerate(statements) if m.matches(statement, m.If()))
        statements.insert(place, cst.parse_statement(f"{name} = None"))
        return updated_node.with_changes(body=updated_node.body.with_changes(body=statements))


def _absolute_import(node: cst.ImportFrom, module: str, path: PurePath) -> cst.Import | cst.ImportFrom:
    if module:
        return node.with_changes(relative=(), module=cst.parse_expression(module))
    if isinstance(node.names, cst.ImportStar):
        raise HostError(
            f'{path}: "from {"." * len(node.relative)} import *" has no absolute form; '
            "the wheel is not the one this version of stylegan-plugins knows."
        )
    names = [name.with_changes(comma=cst.MaybeSentinel.DEFAULT) for name in node.names]
    return cst.Import(names=names, semicolon=node.semicolon)


def _is_imports(statements: Iterable[cst.CSTNode]) -> bool:
    small = m.OneOf(m.Import(), m.ImportFrom())
    return all(m.matches(statement, m.SimpleStatementLine([small])) for statement in statements)


def _close(before: Sequence[Any], after: Sequence[Any]) -> Sequence[Any]:
    """Remove the comma behind the last argument if the one that followed it was taken out."""
    if not after or len(after) == len(before):
        return after
    return [*after[:-1], after[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)]


def _code(statements: Iterable[Any]) -> list[str]:
    return [cst.Module([]).code_for_node(statement.with_changes(leading_lines=())) for statement in statements]


def _mentions(elements: Iterable[cst.CSTNode], test: Callable[[Any], bool]) -> bool:
    strings: list[Any] = [string for element in elements for string in m.findall(element, m.SimpleString())]
    return any(test(string.evaluated_value) for string in strings)


def _copy_rewritten(source: Path, path: PurePath, target: Path, package: str) -> None:
    written = target / path
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_bytes(rewrite_source(source.read_bytes(), path, package))


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder over what is there."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=IGNORED)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
