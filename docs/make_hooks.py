"""Writes docs/hooks.md, or prints it with `-`: the docstrings of stylegan_plugins/hookspecs.py, the examples of
examples/every_hook.py and the names of the plug-ins that use each hook. A test compares."""

import ast
import inspect
import sys
from pathlib import Path

from stylegan_plugins import hookspecs, manager

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "every_hook.py"
OTHERS = {
    "every-hook": EXAMPLE,
    "blur": HERE.parent / "examples" / "stylegan-plugins-blur" / "stylegan_plugins_blur.py",
}


def page() -> str:
    examples = _examples()
    sections = [f"# Hooks\n\n{inspect.getdoc(hookspecs)}\n"]
    for name, hook in vars(hookspecs).items():
        if hasattr(hook, "stylegan_plugins_spec"):
            signature = f"{name}{inspect.signature(hook)}"
            example = f"```python\n{examples[name]}\n```"
            sections.append(f"## {signature}\n\n{inspect.getdoc(hook)}\n\n{example}\n\nUsed by: {_users(name)}.\n")
    return "\n".join(sections)


def _examples() -> dict[str, str]:
    """By hook, its implementation, with the class that stands right before it."""
    source = EXAMPLE.read_text(encoding="utf-8")
    lines, found, before = source.splitlines(), {}, None
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if isinstance(node, ast.FunctionDef):
                found[node.name] = "\n".join(lines[(before or first) - 1 : node.end_lineno])
            before = first if isinstance(node, ast.ClassDef) else None
    return found


def _users(hook: str) -> str:
    users = [name for name in manager.BUILTIN if hook in manager.hooks_of(manager.load(name))]
    users += [
        f"the example {name}" for name, file in OTHERS.items() if f"\ndef {hook}(" in file.read_text(encoding="utf-8")
    ]
    return ", ".join(users)


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        print(page(), end="")
    else:
        (HERE / "hooks.md").write_text(page(), encoding="utf-8")
