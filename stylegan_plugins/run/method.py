"""A method in one run: the object that a plug-in's `setup` returned. It is checked once; the loop calls its hooks."""

from __future__ import annotations

import inspect
import math
import numbers
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from stylegan_plugins import hookspecs
from stylegan_plugins.errors import PluginError
from stylegan_plugins.tracing import call_line, write_trace
from training_ext.parts import PARTS, Augmentation, Average, ContractError, Critic, Head, Term, View

_MARK = "stylegan_plugins_impl"  # attribute that `hookimpl` sets on a function
HOOKS = {
    name: list(inspect.signature(spec).parameters)[1:]
    for name, spec in vars(hookspecs.MethodHooks).items()
    if hasattr(spec, "stylegan_plugins_spec")
}
"""Arguments of the hooks of a method, by name."""
PART = tuple(PARTS.values())
CHOICES: dict[str, tuple[Any, ...]] = {
    "network": ("D", "G"),
    "on": ("each", "real", "generated", "both", "nothing"),
    "when": ("main", "reg"),
    "groups": ("own", "shared", "none"),
    "r1": ("raw", "shown", None),
}
RETURNED: dict[str, Callable[[Mapping[str, Any]], list[list[int]]]] = {
    "real_images": lambda given: [list(given["images"].shape), list(given["labels"].shape)],
    "paired_latents": lambda given: [list(given["z"].shape), list(given["labels"].shape)],
    "sample_weights": lambda given: [[len(given["step"].one.labels)]],
}
"""Shapes that hooks return, from their arguments; `None` is allowed for sample_weights."""
SEQUENCES = {"layers": str, "generator_layers": str, "gradients": str, "views": View}

Hook = Callable[..., Any]


class Method:
    """The parts and the hooks of a method.

    name    name of its plug-in
    made    object that `setup` returned: parts under the names of PARTS, methods marked as hooks, and its own state
    traced  print calls of its hooks

    Raises PluginError if the object breaks the contract."""

    def __init__(self, name: str, made: Any, traced: bool = False) -> None:
        self.name = name
        self.made = made
        self.traced = traced
        if isinstance(made, (list, tuple, dict, str, *PART)):
            raise self.fault(f"setup() returned {described(made)}; expected an object that holds the parts.")
        self.augmentations: list[Augmentation] = self._parts("augmentations")
        self.heads: list[Head] = self._parts("heads")
        self.averages: list[Average] = self._parts("averages")
        self.terms: list[Term] = self._parts("terms")
        self.critic: Critic | None = self._one_critic()
        self.readers: list[Term | Critic] = [*self.terms, *([self.critic] if self.critic else [])]
        self._check_names()
        self.hooks = dict(self._hooks())
        self.has_state = self._check_state()

    def fault(self, what: str) -> PluginError:
        return PluginError(f"--plugin={self.name}: {what}")

    def _parts(self, kind: str) -> list[Any]:
        value, cls = getattr(self.made, kind, []), PARTS[kind]
        if not isinstance(value, list | tuple) or not all(isinstance(part, cls) for part in value):
            raise self.fault(f"{kind} is {described(value)}; expected a list of {cls.__name__}.")
        for part in value:
            self._check_fields(part)
        return list(value)

    def _check_fields(self, part: Any) -> None:
        """Raise PluginError for a field with an unknown choice or of another type."""
        for name, known in CHOICES.items():
            allowed = ("each", "real", "generated") if name == "on" and isinstance(part, View) else known
            value = getattr(part, name, allowed[0])
            if value not in allowed:
                raise self.fault(
                    f"{name} of {part.name} is {value!r}; expected one of {', '.join(map(repr, allowed))}."
                )
        for name, cls in SEQUENCES.items():
            value = getattr(part, name, [])
            if not isinstance(value, list | tuple) or not all(isinstance(item, cls) for item in value):
                raise self.fault(f"{name} of {part.name} is {described(value)}; expected a list of {cls.__name__}.")
        wrong = [name for name in getattr(part, "gradients", ()) if name not in ("raw", "shown")]
        if wrong:
            raise self.fault(f"gradients of {part.name} has {wrong[0]!r}; it may have 'raw' and 'shown'.")
        weight = getattr(part, "weight", 1.0)
        if not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise self.fault(f"weight of {part.name} is {weight!r}; expected a finite number.")
        if isinstance(part, Head) and not isinstance(part.module, torch.nn.Module):
            raise self.fault(f"module of {part.name} is {described(part.module)}; expected a torch.nn.Module.")
        if isinstance(part, Head) and not isinstance(part.settings, Mapping):
            raise self.fault(f"settings of {part.name} is {described(part.settings)}; expected a dictionary.")
        if isinstance(part, Head) and ("." in part.name or not part.name or hasattr(torch.nn.ModuleDict, part.name)):
            raise self.fault(f"a head is named {part.name!r}; give it another name, without dots.")
        for view in getattr(part, "views", ()):
            self._check_fields(view)
            if view.on != "each" and view.on != part.on and part.on != "both":
                raise self.fault(f"{part.name} is on {part.on!r}, its view {view.name} on {view.on!r} alone.")

    def _one_critic(self) -> Critic | None:
        value = getattr(self.made, "critic", None)
        if value is not None and not isinstance(value, Critic):
            raise self.fault(f"critic is {described(value)}; expected one Critic or None.")
        if value is not None:
            self._check_fields(value)
        return value

    def _check_names(self) -> None:
        """Raise PluginError for parts under other names than PARTS, and for hooks with a wrong name or without a
        mark."""
        for attribute, value in _attributes(self.made).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            if attribute not in PARTS and held and all(isinstance(part, PART) for part in held):
                raise self.fault(f"{attribute} holds {described(value)}; parts stand under {', '.join(PARTS)}.")
            marked = inspect.isfunction(value) and hasattr(value, _MARK)
            if attribute in HOOKS and inspect.isfunction(value) and not marked:
                raise self.fault(f"{attribute}() has the name of a hook and no mark. Put @hookimpl above it.")
            if marked and attribute not in HOOKS:
                raise self.fault(f"{attribute}() is not a hook of a method. Known: {', '.join(HOOKS)}.")

    def _hooks(self) -> Iterator[tuple[str, Hook]]:
        """Yield the bound methods that are hooks, as functions of all arguments of the hook by name."""
        for attribute in _attributes(self.made):
            if attribute in HOOKS:
                function = getattr(self.made, attribute)
                if not callable(function):
                    raise self.fault(f"{attribute} has the name of a hook and is {described(function)}. Rename it.")
                names = list(inspect.signature(function).parameters)
                unknown = [name for name in names if name not in HOOKS[attribute]]
                if unknown:
                    raise self.fault(
                        f"{attribute}() has the argument {unknown[0]!r}; it may take {', '.join(HOOKS[attribute])}."
                    )
                yield attribute, self._guarded(attribute, function, names)

    def _guarded(self, hook: str, function: Hook, names: list[str]) -> Hook:
        """Return a hook as a function of all its arguments by name. It raises PluginError for a value of another shape,
        and if the contract is broken."""

        def guarded(**arguments: Any) -> Any:
            if self.traced:
                write_trace(call_line(hook, arguments, self.name))
            try:
                result = function(**{name: arguments[name] for name in names})
            except ContractError as error:
                raise self.fault(f"{hook}() breaks the contract: {error}.") from error
            if hook in RETURNED and not (result is None and hook == "sample_weights"):
                expected = RETURNED[hook](arguments)
                values = result if isinstance(result, tuple) else (result,)
                came = [list(v.shape) if isinstance(v, torch.Tensor) else described(v) for v in values]
                if came != expected:
                    shown = [" and ".join(map(str, shapes)) for shapes in (came, expected)]
                    raise self.fault(f"{hook}() returned {shown[0]}; expected {shown[1]}.")
            return result

        return guarded

    def parts(self) -> list[Any]:
        """Return all parts but the critic."""
        return [*self.augmentations, *self.heads, *self.averages, *self.terms]

    # State.

    def _check_state(self) -> bool:
        """Return whether the method has a state. A state that cannot be saved is an error here already."""
        pair = [hasattr(self.made, name) for name in ("state_dict", "load_state_dict")]
        if any(pair) and not all(pair):
            raise self.fault("it has one of state_dict() and load_state_dict(); give both or neither.")
        if all(pair):
            self.state_dict()
        return all(pair)

    def state_dict(self) -> Any:
        state = self.made.state_dict()
        wrong = _unsaveable(state, "state_dict()")
        if wrong is not None:
            raise self.fault(f"{wrong}, which cannot be saved; use tensors, numbers, strings, lists and dictionaries.")
        return state

    def load_state_dict(self, state: Any, device: torch.device) -> None:
        """Restore a saved state: each tensor on the device of its counterpart, or on `device` if it has none."""
        self.made.load_state_dict(_on_devices_of(self.made.state_dict(), state, device))


def _unsaveable(value: Any, where: str) -> str | None:
    """Return place and type of a value that a training state cannot hold; None if there is none."""
    if type(value) in (dict, OrderedDict):
        keys = next((f"{where} has the key {key!r}" for key in value if not isinstance(key, str | int)), None)
        return keys or next((f for k, v in value.items() if (f := _unsaveable(v, f"{where}[{k!r}]"))), None)
    if type(value) in (list, tuple):
        return next((f for k, item in enumerate(value) if (f := _unsaveable(item, f"{where}[{k}]"))), None)
    plain = isinstance(value, torch.Tensor) or type(value) in (int, float, bool, str, bytes, type(None))
    return None if plain else f"{where} is a {type(value).__module__}.{type(value).__name__}"


def _attributes(made: Any) -> dict[str, Any]:
    """Return the attributes of an object, its class and bases, without calling a property."""
    of_class = {name: value for base in reversed(type(made).__mro__) for name, value in vars(base).items()}
    return of_class | getattr(made, "__dict__", {})


def described(value: Any) -> str:
    """Return the type of a value, and of its items."""
    if isinstance(value, list | tuple) and value:
        return f"a {type(value).__name__} of {', '.join(sorted({type(item).__name__ for item in value}))}"
    return type(value).__name__


def _on_devices_of(current: Any, saved: Any, device: torch.device) -> Any:
    if isinstance(saved, torch.Tensor):
        return saved.to(current.device if isinstance(current, torch.Tensor) else device)
    if isinstance(saved, Mapping):
        of_key = current.get if isinstance(current, Mapping) else lambda key: None
        return {key: _on_devices_of(of_key(key), value, device) for key, value in saved.items()}
    if isinstance(saved, list | tuple):
        known = current if isinstance(current, list | tuple) and len(current) == len(saved) else [None] * len(saved)
        return type(saved)(_on_devices_of(one, other, device) for one, other in zip(known, saved, strict=True))
    return saved
