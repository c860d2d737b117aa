"""The patch engine: edits of a host file as changes to its syntax tree (libcst), so that they survive forks, CRLF line
ends, a byte-order mark and reformatting. The edits themselves are in `stylegan_plugins.patches`."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

import libcst as cst
import libcst.matchers as m

from stylegan_plugins.errors import PatchError

BOM = b"\xef\xbb\xbf"


# --- Anchors: which node of a file an edit is about. ---------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A call by the dotted name of what is called (`torch.device`), or by a method's name alone (`.pin_memory`).

    `containing` narrows it to calls whose arguments contain a piece of source text, blanks aside; `assigned_to` to
    calls in the value of an assignment to that target."""

    name: str
    containing: str = ""
    assigned_to: str = ""

    def matches(self, node: cst.CSTNode) -> bool:
        if not isinstance(node, cst.Call):
            return False
        called = _source(node.func)
        hit = called.endswith(self.name) if self.name.startswith(".") else called == self.name
        return hit and _squeeze(self.containing) in _squeeze(", ".join(_source(arg) for arg in node.args))

    def __str__(self) -> str:
        return f"the call {self.name}({'...' + self.containing + '...' if self.containing else '...'})"


@dataclass(frozen=True)
class Assignment:
    """An assignment by its target, as written: `stats_collector`."""

    target: str

    def matches(self, node: cst.CSTNode) -> bool:
        return isinstance(node, cst.Assign) and any(_same(target.target, self.target) for target in node.targets)

    def __str__(self) -> str:
        return f"an assignment to {self.target}"


@dataclass(frozen=True)
class Increment:
    """A `+=` by its target."""

    target: str

    def matches(self, node: cst.CSTNode) -> bool:
        return (
            isinstance(node, cst.AugAssign)
            and isinstance(node.operator, cst.AddAssign)
            and _same(node.target, self.target)
        )

    def __str__(self) -> str:
        return f"{self.target} += ..."


@dataclass(frozen=True)
class Deletion:
    """A `del` statement by what it deletes."""

    target: str

    def matches(self, node: cst.CSTNode) -> bool:
        return isinstance(node, cst.Del) and _same(node.target, self.target)

    def __str__(self) -> str:
        return f"del {self.target}"


@dataclass(frozen=True)
class Imports:
    """The place in front of a file's first import."""

    def matches(self, node: cst.CSTNode) -> bool:
        future = m.ImportFrom(module=m.Name("__future__"))
        return isinstance(node, cst.Import | cst.ImportFrom) and not m.matches(node, future)

    def __str__(self) -> str:
        return "an import"


@dataclass(frozen=True)
class Command:
    """A function that is a click command: decorated with `@click.command()`, or `@group.command()`."""

    function: str | None = None

    def matches(self, node: cst.CSTNode) -> bool:
        return (
            isinstance(node, cst.FunctionDef)
            and (self.function is None or node.name.value == self.function)
            and any(_source(d.decorator).split("(")[0].endswith(".command") for d in node.decorators)
        )

    def __str__(self) -> str:
        return f"a click command{' ' + self.function if self.function else ''}"


Anchor = Call | Assignment | Increment | Deletion | Imports | Command


# --- Edits. --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """One change of one host file. Exactly one of `before`, `after`, `replace`, `argument`, `decorate` is given.

    before, after   insert `code` as a statement there
    replace         put the expression `code` in place of a call; {function}, {receiver}, {arguments} and {argument}
                    stand for what is called, what its method is called on, all its arguments, its first argument
    argument        give the call the keyword argument `code` ("name=value"), in place of one of that name
    decorate        put the decorator `code` on top of a command
    every           the edit is about every place that matches, not about the first one alone
    optional        a file without the anchor is right as it is; `reason` says why
    """

    file: str
    code: str
    reason: str
    function: str | None = None
    before: Anchor | None = None
    after: Anchor | None = None
    replace: Call | None = None
    argument: Call | None = None
    decorate: Command | None = None
    every: bool = False
    optional: bool = False

    @property
    def anchor(self) -> Anchor:
        return next(a for a in (self.before, self.after, self.replace, self.argument, self.decorate) if a is not None)

    def __str__(self) -> str:
        where = f" of {self.function}()" if self.function else ""
        return f"{self.anchor}{where}"


@dataclass
class _Application(cst.CSTTransformer):
    """Applies one edit to a tree and counts the places it changed."""

    edit: Edit
    done: int = 0
    _functions: list[str] = field(default_factory=list)
    _targets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def _wanted(self, node: cst.CSTNode) -> bool:
        anchor = self.edit.anchor
        if isinstance(anchor, Call) and anchor.assigned_to and anchor.assigned_to not in self._targets:
            return False
        inside = self.edit.function is None or self.edit.function in self._functions
        return inside and (self.edit.every or self.done == 0) and anchor.matches(node)

    def visit_Assign(self, node: cst.Assign) -> None:
        self._targets.append(_source(node.targets[0].target))

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        self._targets.pop()
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._functions.append(node.name.value)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self._functions.pop()
        if self.edit.decorate is None or not self._wanted(original_node):
            return updated_node
        self.done += 1
        newline = cst.TrailingWhitespace(newline=cst.Newline())
        decorator = cst.Decorator(cst.parse_expression(self.edit.code), trailing_whitespace=newline)
        first, *rest = updated_node.decorators
        decorator = decorator.with_changes(leading_lines=first.leading_lines)
        first = first.with_changes(leading_lines=[])
        return updated_node.with_changes(decorators=[decorator, first, *rest])

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        if (self.edit.replace or self.edit.argument) is None or not self._wanted(original_node):
            return updated_node
        self.done += 1
        if self.edit.argument is not None:
            return _with_argument(updated_node, self.edit.code)
        function = updated_node.func
        parts = {
            "function": _source(function),
            "receiver": _source(function.value) if isinstance(function, cst.Attribute) else "",
            "arguments": "".join(_source(arg) for arg in updated_node.args),
            "argument": _source(updated_node.args[0].value) if updated_node.args else "",
        }
        return cst.parse_expression(self.edit.code.format(**parts))

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.BaseStatement]:
        if (self.edit.before or self.edit.after) is None:
            return updated_node
        if not any(self._wanted(node) for node in _simple_nodes(original_node)):
            return updated_node
        self.done += 1
        statement = cst.parse_statement(self.edit.code)
        if self.edit.before is None:
            return cst.FlattenSentinel([updated_node, statement])
        statement = statement.with_changes(leading_lines=updated_node.leading_lines)
        return cst.FlattenSentinel([statement, updated_node.with_changes(leading_lines=[])])


def apply_edits(data: bytes, edits: list[Edit], file: str) -> bytes:
    """The bytes of a host file with all its edits applied; line ends and a byte-order mark are kept.

    Raises PatchError, naming the file and the anchor, if the file cannot be parsed or lacks an anchor."""
    mark, body = (BOM, data[len(BOM) :]) if data.startswith(BOM) else (b"", data)
    try:
        tree = cst.parse_module(body)
    except (cst.ParserSyntaxError, UnicodeDecodeError) as error:
        raise PatchError(
            f"{file} is not Python that can be read ({str(error).splitlines()[0]}); nothing was written."
        ) from error
    if tree.bytes != body:
        raise PatchError(f"{file} does not survive being read and written again; nothing was written.")
    missing = []
    for edit in edits:
        application = _Application(edit)
        tree = tree.visit(application)
        if application.done == 0 and not edit.optional:
            missing.append(str(edit))
    if missing:
        raise PatchError(
            f"{file} lacks {'; '.join(missing)}: this host differs too much from the known ones, nothing was written. "
            "See docs/hosts.md for the edits and what each is for."
        )
    return mark + tree.bytes


def _simple_nodes(statement: cst.SimpleStatementLine) -> list[cst.CSTNode]:
    """The small statements of a line, and for a bare call or an assigned one, the call."""
    nodes: list[cst.CSTNode] = []
    for small in statement.body:
        nodes.append(small)
        if isinstance(small, cst.Expr | cst.Assign) and isinstance(small.value, cst.Call):
            nodes.append(small.value)
    return nodes


def _with_argument(call: cst.Call, code: str) -> cst.Call:
    name, value = code.split("=", 1)
    new = cst.Arg(
        keyword=cst.Name(name),
        value=cst.parse_expression(value),
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )
    args = list(call.args)
    for index, arg in enumerate(args):
        if arg.keyword is not None and arg.keyword.value == name:
            args[index] = new.with_changes(comma=arg.comma)
            return call.with_changes(args=args)
    if args and args[-1].star == "**":
        return call.with_changes(args=[*args[:-1], new.with_changes(comma=_COMMA), args[-1]])
    if args:
        args[-1] = args[-1].with_changes(comma=_COMMA)
    return call.with_changes(args=[*args, new])


_COMMA = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
_EMPTY = cst.Module([])


def _source(node: cst.CSTNode) -> str:
    return _EMPTY.code_for_node(node)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _same(node: cst.CSTNode, source: str) -> bool:
    """Whether a node means the same as a piece of source, whatever the layout of either."""
    try:
        return ast.dump(ast.parse(_squeeze_lines(_source(node)))) == ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _squeeze_lines(text: str) -> str:
    return " ".join(text.split())
