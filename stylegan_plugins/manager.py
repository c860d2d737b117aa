"""Discovery of plug-ins and calls of their hooks. Nothing happens on import: naming a plug-in is what activates it."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterable
from typing import Any

import pluggy

from stylegan_plugins import hookspecs
from stylegan_plugins.errors import PluginError

ENTRY_POINTS = "stylegan_plugins"
Source = str | importlib.metadata.EntryPoint
BUILTIN = ("diffaugment", "augself", "contrad", "disp", "vision-aided", "diagnostics", "freezed", "transfergan")
TRACE = "STYLEGAN_PLUGINS_TRACE"

# What a faulty module raises when it is imported, and a faulty hook when it is called.
FAULTS = (
    *(ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError),
    *(LookupError, ArithmeticError, AssertionError, RuntimeError, OSError),
)


def installed() -> dict[str, Source]:
    """All installed plug-ins by name, not imported yet: a module name, or an entry point. Built-in ones first."""
    found: dict[str, Source] = {name: f"stylegan_plugins.plugins.{name.replace('-', '_')}" for name in BUILTIN}
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        found.setdefault(entry.name, entry)
    return found


def load(name: str) -> object:
    """The plug-in of that name. Raises PluginError if there is none, or if it cannot be imported."""
    found = installed()
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise PluginError(f"--plugin: there is no plug-in {name!r}.{hint} Installed: {', '.join(found)}.")
    source = found[name]
    try:
        return importlib.import_module(source) if isinstance(source, str) else source.load()
    except FAULTS as error:
        raise PluginError(
            f"--plugin: {name!r} is installed but cannot be imported: {type(error).__name__}: {_one_line(error)}."
        ) from error


def expand(names: Iterable[str]) -> list[str]:
    """The names with those that the plug-ins bring along, which come before them; each once."""
    result: list[str] = []
    for name in names:
        for other in (*getattr(load(name), "brings", ()), name):
            if other not in result:
                result.append(other)
    return result


def build_alone(name: str) -> pluggy.PluginManager:
    """A manager with one plug-in, whatever it requires: to ask what it offers, not to train."""
    pm = _empty()
    _register(pm, name, load(name))
    return pm


def build(names: Iterable[str]) -> pluggy.PluginManager:
    """A manager with these plug-ins: hooks are called in this order.

    Raises PluginError for an unknown plug-in, a misspelt hook, a missing requirement or a conflict."""
    names = list(names)
    pm = _empty()
    for name in reversed(names):  # pluggy calls first what was registered last
        _register(pm, name, load(name))
    for name in names:
        plugin = pm.get_plugin(name)
        for other in getattr(plugin, "requires", ()):
            if other not in names:
                raise PluginError(f"--plugin: {name} needs {other}: give --plugin={other},{name}.")
        for other in getattr(plugin, "conflicts", ()):
            if other in names:
                raise PluginError(f"--plugin: {name} and {other} cannot be active together: leave one of them out.")
    if os.environ.get(TRACE, "0") not in ("", "0"):
        trace(pm)
    return pm


def _empty() -> pluggy.PluginManager:
    pm = pluggy.PluginManager("stylegan_plugins")
    pm.add_hookspecs(hookspecs)
    return pm


def _register(pm: pluggy.PluginManager, name: str, plugin: object) -> None:
    try:
        pm.register(plugin, name)
        pm.check_pending()  # a misspelt hook fails here, not silently 400 kimg later
    except pluggy.PluginValidationError as error:
        raise PluginError(f"--plugin: {name!r} has a faulty hook: {_one_line(error)}.") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def call(pm: pluggy.PluginManager, name: str, hook: str, **arguments: object) -> list:
    """Call one hook of one plug-in. Returns its result in a list; empty if it has no such hook or returned None."""
    others = [plugin for other, plugin in pm.list_name_plugin() if other != name]
    return pm.subset_hook_caller(hook, others)(**arguments)


def hooks_of(plugin: object) -> list[str]:
    """Names of the hooks that a plug-in implements, sorted. Raises PluginError if one is faulty."""
    pm = _empty()
    _register(pm, getattr(plugin, "__name__", type(plugin).__name__), plugin)
    return sorted(caller.name for caller in pm.get_hookcallers(plugin) or ())


def offered(hook: str, kind: type) -> dict[str, Any]:
    """What all installed plug-ins give by name, active or not; of two of one name, that of the first. A faulty plug-in
    is left out: `stylegan-plugins list` says what is wrong."""
    found: dict[str, Any] = {}
    for name in installed():
        with contextlib.suppress(*FAULTS):  # PluginError is one of them
            found = {**offer_of(name, hook, kind), **found}
    return found


def offer_of(name: str, hook: str, kind: type) -> dict[str, Any]:
    """What one installed plug-in gives by name. Raises PluginError if it is not {name: `kind`}; a faulty plug-in may
    raise any of FAULTS."""
    found: dict[str, Any] = {}
    for parts in call(build_alone(name), name, hook):
        if not isinstance(parts, dict) or not all(isinstance(part, kind) for part in parts.values()):
            raise PluginError(
                f"--plugin: {name!r} has a faulty hook: {hook}() returned {parts!r}, not {kind.__name__}s by name."
            )
        found |= parts
    return found


def trace(pm: pluggy.PluginManager, write=None):
    """Print every hook call and its result: tensors by shape, not by value. Returns a function that stops it."""
    write = write or (lambda line: print(line, file=sys.stderr, flush=True))

    def before(hook_name, hook_impls, kwargs):
        who = ", ".join(impl.plugin_name for impl in hook_impls) or "nobody"
        write(f"[hook] {hook_name}({', '.join(f'{k}={_brief(v)}' for k, v in kwargs.items())}) -> {who}")

    def after(outcome, hook_name, hook_impls, kwargs):
        if hook_impls:
            write(f"[hook] {hook_name} returned {_brief(outcome.get_result())}")

    return pm.add_hookcall_monitoring(before, after)


def _brief(value: object) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__}{list(value.shape)}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_brief(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(str(key) for key in list(value)[:6]) + (", ..." if len(value) > 6 else "") + "}"
    if isinstance(value, type):
        return value.__name__
    text = repr(value) if value is None or isinstance(value, bool | int | float | str | frozenset) else ""
    return text if 0 < len(text) <= 60 else type(value).__name__
