"""The patch engine: edits of a host file as changes to its syntax tree (libcst), so that they work for forks, CRLF line
ends, a byte-order mark and other formatting. The edits are in `stylegan_plugins.patches`."""

from __future__ import annotations

import ast
import functools

import libcst as cst
import libcst.matchers as m

from stylegan_plugins.errors import PatchError
from stylegan_plugins.host.edits import Anchor, Assignment, Call, Command, Deletion, Edit, Imports, Increment

BOM = b"\xef\xbb\xbf"
PACKAGE = "stylegan_plugins"  # the edits import it, which identifies an edited file


class _Application(cst.CSTTransformer):
    """A transformer that applies the edits of a file in one walk over its tree, and notes which edits found their
    place."""

    def __init__(self, edits: list[Edit]) -> None:
        super().__init__()
        self.edits = edits
        self.done: set[int] = set()
        self._functions: list[str] = []
        self._targets: list[str] = []

    def _take(self, action: str, *nodes: cst.CSTNode) -> list[Edit]:
        """Return the edits of one action (`before`, `replace`, ...) whose anchor is one of these nodes, and mark them
        as done."""
        taken = []
        for index, edit in enumerate(self.edits):
            anchor = getattr(edit, action)
            if anchor is None or (index in self.done and not edit.every):
                continue
            if edit.function is not None and edit.function not in self._functions:
                continue
            if isinstance(anchor, Call) and anchor.assigned_to and anchor.assigned_to not in self._targets:
                continue
            if any(_matches(anchor, node) for node in nodes):
                self.done.add(index)
                taken.append(edit)
        return taken

    def visit_Assign(self, node: cst.Assign) -> None:
        self._targets.append(_source(node.targets[0].target))

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        self._targets.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._functions.append(node.name.value)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self._functions.pop()
        for edit in self._take("decorate", original_node):
            updated_node = _with_decorator(updated_node, edit.code)
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        for edit in self._take("argument", original_node):
            updated_node = _with_argument(updated_node, edit.code)
        for edit in self._take("replace", original_node):
            return _replaced(updated_node, edit.code)
        return updated_node

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.BaseStatement]:
        nodes = _simple_nodes(original_node)
        before = [cst.parse_statement(edit.code) for edit in self._take("before", *nodes)]
        after = [cst.parse_statement(edit.code) for edit in self._take("after", *nodes)]
        if before:  # comments above the statement go above the new code
            before[0] = before[0].with_changes(leading_lines=updated_node.leading_lines)
            updated_node = updated_node.with_changes(leading_lines=[])
        return cst.FlattenSentinel([*before, updated_node, *after]) if before or after else updated_node


def apply_edits(data: bytes, edits: list[Edit], file: str) -> bytes:
    """Return the bytes of a host file with all its edits applied; line ends and a byte-order mark are kept.

    Raises PatchError, naming the file and the anchors, if the file cannot be parsed, lacks an anchor, or has the edits
    already."""
    mark, body = (BOM, data[len(BOM) :]) if data.startswith(BOM) else (b"", data)
    try:
        tree = cst.parse_module(body)
    except (cst.ParserSyntaxError, SyntaxError, UnicodeDecodeError) as error:
        raise PatchError(f"{file} is not Python that can be read ({str(error).splitlines()[0]})") from error
    if tree.bytes != body:
        raise PatchError(f"{file} does not survive being read and written again")
    if any(m.findall(tree, m.ImportFrom(module=m.Name(PACKAGE)))):
        raise PatchError(f"{file} has been patched, but what restores it was removed; get the file from where it came")
    application = _Application(edits)
    tree = tree.visit(application)
    missing = [str(edit) for index, edit in enumerate(edits) if index not in application.done and not edit.optional]
    if missing:
        raise PatchError(f"{file} lacks {'; '.join(missing)}")
    return mark + tree.bytes


def _matches(anchor: Anchor, node: cst.CSTNode) -> bool:
    """Return whether a node is the place that an anchor describes."""
    match anchor, node:
        case Call(), cst.Call():
            called = _canonical(node.func)
            hit = called.endswith(anchor.name) if anchor.name.startswith(".") else called == anchor.name
            return hit and (not anchor.containing or _squeeze(anchor.containing) in _squeeze(_canonical(node)))
        case Assignment(), cst.Assign():
            return any(_same(target.target, anchor.name) for target in node.targets)
        case Increment(), cst.AugAssign():
            return isinstance(node.operator, cst.AddAssign) and _same(node.target, anchor.name)
        case Deletion(), cst.Del():
            return _same(node.target, anchor.name)
        case Imports(), cst.Import() | cst.ImportFrom():
            return not m.matches(node, m.ImportFrom(module=m.Name("__future__")))
        case Command(), cst.FunctionDef():
            return anchor.name in ("", node.name.value) and any(
                _canonical(d.decorator).split("(")[0].endswith(".command") for d in node.decorators
            )
    return False


def _simple_nodes(statement: cst.SimpleStatementLine) -> list[cst.CSTNode]:
    """Return the small statements of a line, and their calls: bare, assigned or returned ones."""
    nodes: list[cst.CSTNode] = []
    for small in statement.body:
        nodes.append(small)
        if isinstance(small, cst.Expr | cst.Assign | cst.Return) and isinstance(small.value, cst.Call):
            nodes.append(small.value)
    return nodes


def _with_decorator(function: cst.FunctionDef, code: str) -> cst.FunctionDef:
    first, *rest = function.decorators
    decorator = cst.Decorator(cst.parse_expression(code), leading_lines=first.leading_lines)
    return function.with_changes(decorators=[decorator, first.with_changes(leading_lines=[]), *rest])


def _replaced(call: cst.Call, code: str) -> cst.BaseExpression:
    parts = {
        "function": _source(call.func),
        "receiver": _source(call.func.value) if isinstance(call.func, cst.Attribute) else "",
        "arguments": "".join(_source(arg) for arg in call.args),
        "argument": _source(call.args[0].value) if call.args else "",
    }
    # Brackets around the call stay: `return(f())` has no other blank.
    return cst.parse_expression(code.format(**parts)).with_changes(lpar=call.lpar, rpar=call.rpar)


def _with_argument(call: cst.Call, code: str) -> cst.Call:
    """Give a call the keyword argument `code`. It replaces one of that name, or comes last, before `**kwargs`."""
    new = cst.ensure_type(cst.parse_expression(f"call({code})"), cst.Call).args[0]
    args = list(call.args)
    for index, arg in enumerate(args):
        if arg.keyword is not None and arg.keyword.value == code.partition("=")[0]:
            args[index] = new.with_changes(comma=arg.comma)
            return call.with_changes(args=args)
    if args and args[-1].star == "**":
        return call.with_changes(args=[*args[:-1], new, args[-1]])
    return call.with_changes(args=[*args, new])


_source = cst.Module([]).code_for_node


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _same(node: cst.CSTNode, source: str) -> bool:
    """Return whether a node and a piece of source are equal except for formatting."""
    return _canonical(node) == ast.unparse(ast.parse(source, mode="eval"))


def _canonical(node: cst.CSTNode) -> str:
    """Return the source of an expression without comments and line breaks, and with one kind of quotes."""
    return _unparsed(_source(node))


@functools.lru_cache(maxsize=4096)
def _unparsed(source: str) -> str:
    try:
        return ast.unparse(ast.parse(f"({source}\n)", mode="eval"))  # in brackets, lines may break anywhere
    except SyntaxError:
        return ""  # a starred target, or syntax of another Python version
