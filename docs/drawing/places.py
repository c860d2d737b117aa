"""Where each built-in plug-in takes part in training, as its source says: parts that it makes, hooks that it has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

from stylegan_plugins.manager import builtin

PARTS = ("Augmentation", "View", "Critic", "Head", "Average")
START = "start"  # the place of a plug-in without another one: it changes arguments of the run
# Hooks that are not drawn as places: they prepare a method, keep its records, or offer something outside of training.
NOT_SHOWN = {
    *("configure", "setup", "attached", "observe", "step_end", "batch_end", "snapshot"),
    *("register_backbones", "register_commands", "register_features", "register_metrics"),
}


def families() -> dict[str, list[str]]:
    """Return the plug-ins of each family: groups of methods in the navigation of mkdocs.yml."""
    parts = {name: pages for part in NAVIGATION if isinstance(part, dict) for name, pages in part.items()}
    groups = {name: pages for part in parts["Methods"] if isinstance(part, dict) for name, pages in part.items()}
    return {
        name: [Path(page).stem.replace("_", "-") for page in pages]
        for name, pages in groups.items()
        if isinstance(pages, list)
    }


NAVIGATION = yaml.safe_load(Path(__file__).parents[2].joinpath("mkdocs.yml").read_text(encoding="utf-8"))["nav"]
FAMILIES = families()


def family(plugin: str) -> str:
    """Return the family of a plug-in. Raises ValueError if it has none."""
    for name, plugins in FAMILIES.items():
        if plugin in plugins:
            return name
    raise ValueError(f"{plugin} has no family; name its page in a group of mkdocs.yml")


def places() -> dict[str, list[str]]:
    """Return the plug-ins at each place, by family. A place is a part, a hook, `Term D`, `Term G`, `Term D reg`,
    `brings AUGMENTATION` or `start`."""
    found: dict[str, list[str]] = {}
    order = [plugin for plugins in FAMILIES.values() for plugin in plugins]
    for plugin, file in sorted(builtin().items(), key=lambda item: (*map(order.index, [item[0]]),)):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        own = sorted(set(_places(tree)) - NOT_SHOWN)
        for place in own or [START]:
            found.setdefault(place, []).append(plugin)
    return found


def _places(tree: ast.Module) -> Iterator[str]:
    """Yield the places of a plug-in's module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "hookimpl" in map(ast.unparse, node.decorator_list):
            yield node.name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in PARTS:
                yield node.func.id
            elif node.func.id == "Term":
                when = [ast.literal_eval(given.value) for given in node.keywords if given.arg == "when"]
                yield " ".join(["Term", ast.literal_eval(node.args[1]), *when])
        elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["brings"]:
            names = node.value.keys if isinstance(node.value, ast.Dict) else node.value.elts  # type: ignore[attr-defined]
            yield from (f"brings {ast.literal_eval(name)}" for name in names)
