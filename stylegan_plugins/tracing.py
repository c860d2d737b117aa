"""STYLEGAN_PLUGINS_TRACE: print every call of a hook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pluggy


def trace(pm: pluggy.PluginManager) -> Callable[[], None]:
    """Print every hook call and its result, tensors by shape and not by value. Return a function that stops this."""

    def before(hook_name: str, hook_impls: Any, kwargs: Any) -> None:
        who = ", ".join(impl.plugin_name for impl in hook_impls) or "nobody"
        write_trace(call_line(hook_name, kwargs, who))

    def after(outcome: Any, hook_name: str, hook_impls: Any, kwargs: Any) -> None:
        if hook_impls:
            write_trace(f"[hook] {hook_name} returned {brief(outcome.get_result())}")

    return pm.add_hookcall_monitoring(before, after)


def write_trace(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def call_line(hook: str, arguments: Mapping[str, Any], who: str) -> str:
    return f"[hook] {hook}({', '.join(f'{name}={brief(value)}' for name, value in arguments.items())}) -> {who}"


def brief(value: Any) -> str:
    """Return a value in a few words: tensors by shape, and not by value."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__}{list(value.shape)}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(brief(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(str(key) for key in list(value)[:6]) + (", ..." if len(value) > 6 else "") + "}"
    if isinstance(value, type):
        return value.__name__
    text = repr(value) if value is None or isinstance(value, bool | int | float | str | frozenset) else ""
    return text if 0 < len(text) <= 60 else type(value).__name__
