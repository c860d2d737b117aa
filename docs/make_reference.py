"""Write the generated pages and tables of docs/, or compare them with `--check`.

    python docs/make_reference.py [--check]

Hooks: the docstrings of stylegan_plugins/hookspecs.py, the examples of examples/every_hook.py, and the plug-ins that
use each hook. Parts and session: their docstrings. Commands and options: the help of click. The tables between marks on
two pages of methods: stylegan_plugins/run/rules.py. A test compares."""

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import stylegan_plugins
from stylegan_plugins import cli, hookspecs
from stylegan_plugins.manager import builtin, catalogue
from stylegan_plugins.options import CountsWith, Preset, option
from stylegan_plugins.run import arguments
from stylegan_plugins.run.rules import ADDITIONS, FIGURES, METHODS, Known, Quote, Rule
from stylegan_plugins.run.session import Session
from training_ext import parts

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "every_hook.py"
EXAMPLES = sorted([*HERE.parent.glob("examples/*.py"), *HERE.parent.glob("examples/*/*.py")])
MARK = "stylegan_plugins_spec"


# Hooks. -------------------------------------------------------------------------------------------

HOOKS_OF_PLUGINS = """# Hooks of a plug-in

These hooks are functions of the plug-in's module. [Hooks](hooks.md) says when each is called. The examples are parts of
`examples/every_hook.py`, which the tests train.
"""
HOOKS_OF_METHODS = """# Hooks of a method

These hooks are methods of the object that [`setup`](hooks_of_plugins.md) returns. [Hooks](hooks.md) says when each is
called. The examples are parts of `examples/every_hook.py`, which the tests train.
"""


def hooks_page(introduction: str, namespace: object) -> str:
    """Return a page of the hooks of a namespace."""
    examples = _examples()
    sections = [introduction]
    for name, hook in vars(namespace).items():
        if hasattr(hook, MARK):
            signature = f"{name}({', '.join(p for p in inspect.signature(hook).parameters if p != 'self')})"
            example = f"```python\n{examples[name]}\n```"
            users = ", ".join(_users(name)) or "no plug-in yet"
            sections.append(f"## {signature}\n\n{inspect.getdoc(hook)}\n\n{example}\n\nUsed by: {users}.\n")
    return "\n".join(sections)


def _examples() -> dict[str, str]:
    """Return the implementation of each hook in the example."""
    source = EXAMPLE.read_text(encoding="utf-8")
    lines, found = source.splitlines(), {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and "hookimpl" in map(ast.unparse, node.decorator_list):
            found[node.name] = "\n".join(lines[node.decorator_list[0].lineno - 1 : node.end_lineno])
    return found


def _users(hook: str) -> list[str]:
    """Return the names of the plug-ins and examples that implement a hook, of a module or of its method."""
    files = {name: file.read_text(encoding="utf-8") for name, file in builtin().items()}
    files |= {f"the example {file.stem}": file.read_text(encoding="utf-8") for file in EXAMPLES}
    marked = re.compile(rf"@hookimpl\n +def {hook}\(|^@hookimpl\ndef {hook}\(", re.MULTILINE)
    return [name for name, source in files.items() if marked.search(source)]


# Parts and session. -------------------------------------------------------------------------------

PARTS = """# Parts

Functions of a method get `Images`, `Pass`, `Step` and `Batch`. A method returns the other classes. All of them are
imported from `stylegan_plugins`. [The contract](contract.md) explains the order of calls and the letters of shapes.
[Options and presets](#option) and [other names](#other-names) end the page.
"""
OTHERS = """## Other names

These names are imported in the same way, for example `from stylegan_plugins import EqualizedLinear, read`.
`help(stylegan_plugins.Metric)` in Python prints the fields of a class.

"""
OTHER_NAMES = (
    *("hookimpl", "Session", "EqualizedLinear", "read", "GanLoss", "AdaptiveProbability", "Source", "Labels"),
    *("Sampler", "Recipe", "RunFeatures", "Metric", "OptionError", "DataError", "PluginError", "UserError"),
)
WITHOUT_DOCSTRING = {
    "hookimpl": "The mark of a hook, as a decorator: `@hookimpl`.",
    "Session": "The class of [the session](session.md), for annotations.",
    "Source": "The type of the values 'real' and 'generated', for annotations.",
}
SESSION = """# The session

`setup` gets the session of the run. [The contract](contract.md) explains the letters of shapes.
"""


def parts_page() -> str:
    """Return docs/reference/parts.md."""
    given = [_section(cls) for cls in (parts.Images, parts.Pass, parts.Step, parts.Batch)]
    made = [_section(cls) for cls in (parts.View, *parts.PARTS.values())]
    of_options = [_section(part) for part in (option, CountsWith, Preset)]
    others = [[f"`{name}{_arguments(name)}`", _meaning_of(name)] for name in OTHER_NAMES]
    return "\n".join([PARTS, *given, *made, *of_options, OTHERS + _rows(["name", "meaning"], others)])


def _arguments(name: str) -> str:
    value = getattr(stylegan_plugins, name)
    plain = name in WITHOUT_DOCSTRING or (isinstance(value, type) and issubclass(value, Exception))
    return "" if plain else _signature(value)


def _meaning_of(name: str) -> str:
    """Return the first paragraph of the docstring of a name of the package."""
    paragraph = (inspect.getdoc(getattr(stylegan_plugins, name)) or "").partition("\n\n")[0]
    return WITHOUT_DOCSTRING.get(name) or " ".join(paragraph.split()).replace("|", r"\|")


def session_page() -> str:
    """Return docs/reference/session.md."""
    fields = inspect.getdoc(Session).partition("For methods, after `attach`:\n")[2]
    methods = [
        f"## session.{name}{_signature(function)}\n\n{inspect.getdoc(function)}\n" for name, function in _offered()
    ]
    return "\n".join([SESSION, _table(fields, "attribute"), *methods])


def _offered() -> list[tuple[str, object]]:
    """Return the methods and properties of the session that stand under `For methods`."""
    source = inspect.getsource(Session)
    section = source[source.index("# --- For methods. ---") : source.index("# --- Called by the loss. ---")]
    return [(name, inspect.getattr_static(Session, name)) for name in re.findall(r"    def (\w+)\(", section)]


def _signature(function: object) -> str:
    if isinstance(function, property):
        return ""
    given = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]  # type: ignore[arg-type]
    texts = [_parameter(p) for p in given]
    named = [k for k, p in enumerate(given) if p.kind is p.KEYWORD_ONLY]
    if named:
        texts.insert(named[0], "*")
    return f"({', '.join(texts)})"


def _parameter(parameter: inspect.Parameter) -> str:
    """Return a parameter with its default, if that is a plain value."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return str(parameter).partition(":")[0]
    default = parameter.default
    plain = default is None or isinstance(default, str | int | float | tuple)
    return parameter.name if default is parameter.empty or not plain else f"{parameter.name}={default!r}"


def _section(cls: Any) -> str:
    """Return the section of a class or a function: its first paragraphs, and a table of its fields."""
    text, _, fields = inspect.getdoc(cls).rpartition("\n\n")
    properties = [(n, p) for n, p in vars(cls).items() if isinstance(p, property) and p.fget.__doc__]
    more = "".join(f"- `{name}` - {inspect.getdoc(value)}\n" for name, value in properties)
    signature = f"`{cls.__name__}{_signature(cls)}`"
    kind = "field" if isinstance(cls, type) else "argument"
    return f"## {cls.__name__}\n\n{text}\n\n{signature}\n\n{_table(fields, kind)}" + (
        f"\nProperties:\n\n{more}" if more else ""
    )


def _table(text: str, kind: str) -> str:
    """Return a Markdown table of lines `name  what it is`, which may continue in indented lines."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        name, gap, rest = line.partition("  ")
        if gap and name.strip() and not line.startswith(" "):
            rows.append([name.rstrip(","), rest.strip()])
        elif rows:
            rows[-1][1] += f" {line.strip()}"
    quoted = lambda names: ", ".join(f"`{name}`" for name in re.split(r"[ ,]+", names))
    cells = [f"| {quoted(names)} | " + rest.replace("|", r"\|") + " |" for names, rest in rows]
    return "\n".join([f"| {kind} | meaning |", "| --- | --- |", *cells]) + "\n"


# Commands and options. ----------------------------------------------------------------------------

COMMANDS = """# Commands

`stylegan-plugins COMMAND --help` prints the same. `stylegan-plugins --version` prints the version of the package.
[Commands on runs](commands_on_runs.md) has the commands that take a run or a pickle.

"""
COMMANDS_ON_RUNS = """# Commands on runs

RUN_OR_PKL is a run directory, whose newest snapshot is used, or a network pickle. [Commands](commands.md) lists all
commands.
"""
TRAIN = """# Options of train.py

A patched host's `train.py` has these options beside its own. An option that the host has already keeps the host's
meaning. `python train.py --help` lists all of them. The options of each plug-in are on the page of its
[method](../methods/index.md), and `stylegan-plugins info NAME` prints them.

"""
KINDS = {"integer": "INT", "integer range": "INT", "float": "FLOAT", "float range": "FLOAT", "text": "TEXT"}


def commands_page(on_runs: bool) -> str:
    """Return docs/reference/commands.md, or commands_on_runs.md."""
    every = dict(_commands(cli.cli, "stylegan-plugins"))
    page = lambda command: "commands_on_runs.md" * _takes_run(command)
    rows = [
        [f"[`{name.partition(' ')[2]}`]({page(command)}#{name.replace(' ', '-')})", _first_line(command)]
        for name, command in every.items()
    ]
    shown = [_command(name, command) for name, command in every.items() if _takes_run(command) == on_runs]
    return "\n".join([COMMANDS_ON_RUNS if on_runs else COMMANDS + _rows(["command", "purpose"], rows), *shown])


def _takes_run(command: click.Command) -> bool:
    return any(parameter.name in ("run_or_pkl", "runs_") for parameter in command.params)


def train_page() -> str:
    """Return docs/reference/train.md."""
    of_plugins = catalogue().parameters()
    options = [option for option in arguments.options_for(click.Command("train")) if option.name not in of_plugins]
    return TRAIN + _options(options)


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        elif command is not None:
            yield f"{path} {name}", command


def _first_line(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def _command(name: str, command: click.Command) -> str:
    given = " ".join(p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument))
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n"))
    options = [p for p in command.params if isinstance(p, click.Option)]
    usage = f"    {name} {given}".rstrip() + (" [OPTIONS]" if options else "")
    return f"## {name}\n\n{usage}\n\n{text}\n" + (f"\n{_options(options)}" if options else "")


def _options(options: list[click.Option]) -> str:
    return _rows(["option", "meaning"], [[_flags(option), _meaning(option)] for option in options])


def _flags(option: click.Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    kind = option.metavar or KINDS.get(option.type.name, option.type.name.upper())
    return flags if option.is_flag or isinstance(option.type, click.Choice) else f"{flags} {kind}".replace("|", ", ")


def _meaning(option: click.Option) -> str:
    """Return the help of an option, with its choices and its default."""
    text, _, default = (option.help or "").partition("[default: ")
    if isinstance(option.type, click.Choice):
        choices = ", ".join(f"`{choice}`" for choice in option.type.choices)
        text = f"{text.strip()}; one of {choices}" if text else f"One of {choices}"
    if option.show_default and not default and not option.is_flag:
        given = option.default if isinstance(option.default, list | tuple) else [option.default]
        default = f"{', '.join(map(str, given))}]"
    end = " [required]" if option.required else f" [default: {default}" if default else ""
    return f"{text.strip()}{end}".replace("|", r"\|")


# Rules and published figures. ---------------------------------------------------------------------

MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def with_tables(name: str) -> str:
    """Return a page with its tables as rules.py has them."""
    page = (HERE / name).read_text(encoding="utf-8")
    return MARKED.sub(lambda match: f"{match[1]}\n{_of_table(match[2])}\n{match[3]}", page)


def _of_table(name: str) -> str:
    if name == "plugins":
        return _rows(["plug-in", "method", "source"], [_listed(plugin) for plugin in builtin()])
    if name == "methods":
        head = ["your data", "start with", "then compare with", "reason", "known figures"]
        return _rows(head, [[*_choice(rule)[:2], rule.then, *_choice(rule)[2:]] for rule in METHODS])
    if name == "additions":
        return _rows(["if there are", "add", "reason", "known figures"], [_choice(rule) for rule in ADDITIONS])
    table = FIGURES[name]
    label = lambda row: re.sub(r"^([^ ,]+(?:,[^ ,]+)*)", r"`\1`", row) if row[0].islower() else row
    rows = [[label(row), *(f"{value:.2f}" for value in values)] for row, values in table.rows.items()]
    return f"**{name}**: {table.title} ({table.source}).\n\n" + _rows(["FID", *table.columns], rows)


def _listed(name: str) -> list[str]:
    plugin = catalogue().load(name)
    headline = catalogue().summary(name)[0].partition(". ")[0].rstrip(".")
    return [f"[{name}]({name.replace('-', '_')}.md)", f"{headline}.", plugin.PAPER]


def _choice(rule: Rule) -> list[str]:
    options = " ".join(f"--{option}={value}" for option, value in rule.options.items())
    return [rule.data, f"`{options}`" if options else "", rule.why, ". ".join(map(_known, rule.evidence))]


def _known(evidence: Quote | Known) -> str:
    """Return evidence for a page that has the figures in tables."""
    if isinstance(evidence, Known):
        return str(evidence)
    columns = f", {', '.join(evidence.columns)}" if evidence.columns else ""
    return f"table **{evidence.table}**: {'; '.join(evidence.rows)}{columns}"


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PAGES = {
    "reference/hooks_of_plugins.md": functools.partial(hooks_page, HOOKS_OF_PLUGINS, hookspecs),
    "reference/hooks_of_methods.md": functools.partial(hooks_page, HOOKS_OF_METHODS, hookspecs.MethodHooks),
    "reference/parts.md": parts_page,
    "reference/session.md": session_page,
    "reference/commands.md": functools.partial(commands_page, False),
    "reference/commands_on_runs.md": functools.partial(commands_page, True),
    "reference/train.md": train_page,
}
PAGES |= {
    name: functools.partial(with_tables, name)
    for name in ("methods/index.md", "methods/which_method.md", "methods/transfer.md")
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        if sys.argv[1:] == ["--check"]:
            if not (HERE / name).exists() or (HERE / name).read_text(encoding="utf-8") != page():
                sys.exit(f"docs/{name} is not what the code says; run: python docs/make_reference.py")
        else:
            (HERE / name).write_text(page(), encoding="utf-8")
