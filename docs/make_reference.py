"""Write docs/hooks.md, docs/contract.md, and tables of docs/which_method.md and docs/transfer.md, or compare them with
`--check`.

Hooks: the docstrings of stylegan_plugins/hookspecs.py, the examples of examples/every_hook.py, and the plug-ins that
use each hook. The contract: the docstrings of training_ext/parts.py and of the session. Their introductions stand here.
The tables, between marks on their pages, are those of stylegan_plugins/run/rules.py. A test compares."""

import ast
import functools
import inspect
import re
import sys
from pathlib import Path

from stylegan_plugins import hookspecs
from stylegan_plugins.manager import builtin
from stylegan_plugins.run.rules import ADDITIONS, FIGURES, METHODS, Known, Quote, Rule
from stylegan_plugins.run.session import Session
from training_ext import parts

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "every_hook.py"
EXAMPLES = sorted([*HERE.parent.glob("examples/*.py"), *HERE.parent.glob("examples/*/*.py")])
MARK = "stylegan_plugins_spec"


# Hooks. -------------------------------------------------------------------------------------------

HOOKS = """# Hooks

A plug-in is a module (or any object) with plain attributes and with functions that are marked as hook
implementations. It implements the hooks that it needs, with the arguments that it uses, by name, without defaults. The
heading of each section is the hook's full signature. [Writing plug-ins](writing_plugins.md) starts from nothing;
[testing plug-ins](testing_plugins.md) comes next; [the contract](contract.md) has every part and every field. The
examples are parts of [examples/every_hook.py](../examples/every_hook.py), which the tests train.

| attribute | meaning |
| --- | --- |
| `OPTIONS` | a frozen dataclass; its fields become the options `--<plugin>-<field>` of `train.py`, see `option` |
| `PRESETS` | published settings, `{name: Preset}`; they become the choices of `--<plugin>-preset` |
| `PAPER` | a line that `stylegan-plugins info` shows |
| `requires`, `conflicts` | names of plug-ins that must, or must not, be active with it |
| `brings` | names of plug-ins that are activated along with it, before it; `{name: {field: value}}` sets defaults |
| `trains_D` | `False` if the host's D is not trained: parts that read D, and `probe` of a snapshot, are refused |
| `changes_data` | `True` if its `configure` changes data set or batch: it is called before those of other plug-ins |
| `ada` | how it treats the hosts' default ADA: `"keep"`, `"off"` unless the user asked for ADA, or `"refuse"` |

Two kinds of hooks exist. Hooks of a plug-in are functions of its module. One of them, `setup`, returns the method in
this run, an object that holds the parts and the state of the method; the hooks of a method are methods of that object.
All are called in the order of `--plugin`. The order matters in three places: a `configure` sees the changes of earlier
ones, and `real_images` and augmentations are chained. Terms are summed by name.

| when | hooks |
| --- | --- |
| the host's arguments are complete, nothing is written | `register_labels`, `configure` |
| each process that trains starts | `register_labels` |
| G is built | `register_generator_module`, `register_temperature` |
| networks, loss and optimisers exist | `setup`, `attached` |
| a round of a phase | `trains`, `real_images`, `paired_latents`, `sample_weights`, `observe` |
| each optimiser step, each iteration | `step_end`, `batch_end` |
| each network snapshot | `snapshot` |
| each tick, before and after its statistics are written | `statistics`, `tick` |
| `stylegan-plugins` lists its commands, or looks for one | `register_commands` |
| images of a run are generated | `register_sampler` |
| a frozen network or a metric is asked for | `register_backbones`, `register_features`, `register_metrics` |
"""


def hooks_page() -> str:
    """Return docs/hooks.md."""
    examples = _examples()
    sections = [HOOKS]
    for title, namespace in (("a plug-in", hookspecs), ("a method", hookspecs.MethodHooks)):
        sections.append(f"# Hooks of {title}\n")
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


# The contract. ------------------------------------------------------------------------------------

CONTRACT = """# The contract

This page lists the parts of a method, the arguments of their functions, and the session. Everything here is imported
from `stylegan_plugins`. [Hooks](hooks.md) says when functions are called, [writing plug-ins](writing_plugins.md)
starts from nothing.

Shapes: N images of this process in one round, C channels, H = W pixels, c_dim the width of a label, M items of a
view, K logits of a critic (1 of the host's). Pixel values are in [-1, 1] where nothing
has augmented them. Everything that a term gets is float32, but for `z`, which is as the host's loop draws it.

## What happens when

In a phase of D, generated images come first: they are drawn, augmented and judged, their terms are computed, and
their gradients made, which frees their graph. Then come the real images. A term on `both` keeps the first graph
until the second is there. `Dreg` draws generated images only for terms that read them. In a phase of G, real images
are drawn only for terms on `both` and for losses of pairs, without gradients.

Without lazy regularisation the phases are `Gboth` and `Dboth`. With a critic of a method, `Dboth` is computed as
`Dmain` and `Dreg`; `step_end` still gets `Dboth`.

**Names** of terms of one network, heads, averages and augmentations are unique among the active plug-ins: begin them
with the name of yours.

**A value that is not finite** in a term ends the run at the end of the iteration; on a GPU, which is asked every 16
iterations, up to 15 iterations later.

**Gradient accumulation.** A phase has `session.rounds` rounds, of N = batch / (GPUs x rounds) images each;
`session.round` counts them. Terms, `real_images` and `observe` are called in each round, `step_end` once after the
last. So a running average that is updated in a term takes `session.rounds` updates in an optimiser step, and images
kept for later are best kept by round.

**Several GPUs.** Each process has its own images and calls every function itself. Gradients of G, D and heads are
averaged over processes before each optimiser step. What a method keeps differs between processes unless it
averages: `session.average(values)` gives the mean over all. Heads and averages are the same everywhere; buffers of
heads, and what `state_dict()` returns, are saved and restored for each process.

**Random numbers** drawn in functions of a method are those of the run: they are saved, and a resumed run draws the
same. In `setup` they are the plug-in's own.
"""


def contract_page() -> str:
    """Return docs/contract.md."""
    sections = [CONTRACT]
    sections.append("# What functions are given\n")
    sections += [_section(cls) for cls in (parts.Images, parts.Pass, parts.Step, parts.Batch)]
    sections.append("# Parts\n")
    sections += [_section(cls) for cls in (parts.View, *parts.PARTS.values())]
    sections.append("# The session\n\n## Session\n")
    fields = inspect.getdoc(Session).partition("For methods, after `attach`:\n")[2]
    sections.append(_table(fields, "attribute"))
    sections += [
        f"### session.{name}{_signature(function)}\n\n{inspect.getdoc(function)}\n" for name, function in _offered()
    ]
    return "\n".join(sections)


def _offered() -> list[tuple[str, object]]:
    """Return the methods and properties of the session that stand under `For methods`."""
    source = inspect.getsource(Session)
    section = source[source.index("# --- For methods. ---") : source.index("# --- Called by the loss. ---")]
    return [(name, inspect.getattr_static(Session, name)) for name in re.findall(r"    def (\w+)\(", section)]


def _signature(function: object) -> str:
    if isinstance(function, property):
        return ""
    given = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]  # type: ignore[arg-type]
    return f"({', '.join(_parameter(p) for p in given)})"


def _parameter(parameter: inspect.Parameter) -> str:
    """Return a parameter with its default, if that is a plain value."""
    default = parameter.default
    plain = default is None or isinstance(default, str | int | float | tuple)
    return parameter.name if default is parameter.empty or not plain else f"{parameter.name}={default!r}"


def _section(cls: type) -> str:
    """Return the section of a class: its first paragraphs, and a table of its fields."""
    text, _, fields = inspect.getdoc(cls).rpartition("\n\n")
    properties = [(n, p) for n, p in vars(cls).items() if isinstance(p, property) and p.fget.__doc__]
    more = "".join(f"- `{name}` - {inspect.getdoc(value)}\n" for name, value in properties)
    signature = f"`{cls.__name__}{_signature(cls)}`"
    return f"## {cls.__name__}\n\n{text}\n\n{signature}\n\n{_table(fields, 'field')}" + (
        f"\nProperties:\n\n{more}" if more else ""
    )


def _table(text: str, kind: str) -> str:
    """Return a Markdown table of lines `name  what it is`, which may go on in indented lines."""
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


# Rules and published figures. ---------------------------------------------------------------------

MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def with_tables(name: str) -> str:
    """Return a page with its tables as rules.py has them."""
    page = (HERE / name).read_text(encoding="utf-8")
    return MARKED.sub(lambda match: f"{match[1]}\n{_of_rules(match[2])}\n{match[3]}", page)


def _of_rules(name: str) -> str:
    if name == "methods":
        head = ["your data", "start with", "then compare with", "why", "what is known"]
        return _rows(head, [[*_choice(rule)[:2], rule.then, *_choice(rule)[2:]] for rule in METHODS])
    if name == "additions":
        return _rows(["if there are", "add", "why", "what is known"], [_choice(rule) for rule in ADDITIONS])
    table = FIGURES[name]
    label = lambda row: re.sub(r"^([^ ,]+(?:,[^ ,]+)*)", r"`\1`", row) if row[0].islower() else row
    rows = [[label(row), *(f"{value:.2f}" for value in values)] for row, values in table.rows.items()]
    return f"**{name}**: {table.title} ({table.source}).\n\n" + _rows(["FID", *table.columns], rows)


def _choice(rule: Rule) -> list[str]:
    options = " ".join(f"--{option}={value}" for option, value in rule.options.items())
    return [rule.data, f"`{options}`" if options else "", rule.why, "; ".join(map(_known, rule.evidence))]


def _known(evidence: Quote | Known) -> str:
    """Return evidence for a page that has the figures in tables."""
    if isinstance(evidence, Known):
        return str(evidence)
    columns = f", {', '.join(evidence.columns)}" if evidence.columns else ""
    return f"table **{evidence.table}**: {'; '.join(evidence.rows)}{columns}"


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PAGES = {"hooks.md": hooks_page, "contract.md": contract_page}
PAGES |= {name: functools.partial(with_tables, name) for name in ("which_method.md", "transfer.md")}

if __name__ == "__main__":
    for name, page in PAGES.items():
        if sys.argv[1:] == ["--check"]:
            if (HERE / name).read_text(encoding="utf-8") != page():
                sys.exit(f"docs/{name} is not what the code says; run: python docs/make_reference.py")
        else:
            (HERE / name).write_text(page(), encoding="utf-8")
