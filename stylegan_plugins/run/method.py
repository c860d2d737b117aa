"""A method in one run: the object that a plug-in's `setup` returned. It is checked once; the loop calls its hooks."""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from stylegan_plugins import hookspecs
from stylegan_plugins.errors import PluginError
from stylegan_plugins.manager import call_line, write_trace
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
            raise self.fault(f"setup() returned {_described(made)}; expected an object that holds the parts.")
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
            raise self.fault(f"{kind} is {_described(value)}; expected a list of {cls.__name__}.")
        for part in value:
            self._check_fields(part)
        return list(value)

    def _check_fields(self, part: Any) -> None:
        """Raise PluginError for a field with an unknown choice, or for a list with items of another type."""
        for name, allowed in CHOICES.items():
            value = getattr(part, name, allowed[0])
            if value not in allowed:
                raise self.fault(
                    f"{name} of {part.name} is {value!r}; expected one of {', '.join(map(repr, allowed))}."
                )
        for name, cls in SEQUENCES.items():
            value = getattr(part, name, [])
            if not isinstance(value, list | tuple) or not all(isinstance(item, cls) for item in value):
                raise self.fault(f"{name} of {part.name} is {_described(value)}; expected a list of {cls.__name__}.")
        wrong = [name for name in getattr(part, "gradients", ()) if name not in ("raw", "shown")]
        if wrong:
            raise self.fault(f"gradients of {part.name} has {wrong[0]!r}; it may have 'raw' and 'shown'.")
        if isinstance(part, Head) and ("." in part.name or not part.name or hasattr(torch.nn.ModuleDict, part.name)):
            raise self.fault(f"a head is named {part.name!r}; give it another name, without dots.")
        for view in getattr(part, "views", ()):
            self._check_fields(view)
            if view.on != "each" and view.on != part.on and part.on != "both":
                raise self.fault(f"{part.name} is on {part.on!r}, its view {view.name} on {view.on!r} alone.")

    def _one_critic(self) -> Critic | None:
        value = getattr(self.made, "critic", None)
        if value is not None and not isinstance(value, Critic):
            raise self.fault(f"critic is {_described(value)}; expected one Critic or None.")
        if value is not None:
            self._check_fields(value)
        return value

    def _check_names(self) -> None:
        """Raise PluginError for parts under other names than PARTS, and for hooks with a wrong name or without a
        mark."""
        for attribute, value in _attributes(self.made).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            if attribute not in PARTS and held and all(isinstance(part, PART) for part in held):
                raise self.fault(f"{attribute} holds {_described(value)}; parts stand under {', '.join(PARTS)}.")
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
                    raise self.fault(f"{attribute} has the name of a hook and is {_described(function)}. Rename it.")
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
                came = [list(v.shape) if isinstance(v, torch.Tensor) else _described(v) for v in values]
                if came != expected:
                    shown = [" and ".join(map(str, shapes)) for shapes in (came, expected)]
                    raise self.fault(f"{hook}() returned {shown[0]}; expected {shown[1]}.")
            return result

        return guarded

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


def _described(value: Any) -> str:
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


# Checks that a session makes once. ----------------------------------------------------------------


def check_terms(method: Method, D: torch.nn.Module, synthesis: torch.nn.Module, without_D: str | None = None) -> None:
    """Raise PluginError for layers that the networks lack, for terms that can never be computed, and for parts that
    read a D that is not trained. without_D: the plug-in that trains without D."""
    for part in method.readers:
        seen = (view for view in getattr(part, "views", ()) if not (view.judged or view.gradient))
        reads_D = part.layers or any(view.groups != "none" for view in seen)
        if without_D and reads_D and part.weight != 0:
            raise method.fault(
                f"{part.name} reads the host's D, which is not trained with {without_D}. Leave one of the two out."
            )
        for network, what, layers in (
            (D, "D", part.layers),
            (synthesis, "G.synthesis", getattr(part, "generator_layers", ())),
        ):
            for layer in layers:
                if others := other_layers(network, layer):
                    raise method.fault(
                        f"{part.name} reads the layer {layer!r}, which {what} has not. It has: {others}."
                    )
    for term in method.terms:
        if term.network == "G" and term.on == "real":
            raise method.fault(f"the term {term.name} of G is on real images, which G does not make.")
        if term.network == "G" and term.on == "both" and (term.gradients or any(v.gradient for v in term.views)):
            raise method.fault(f"the term {term.name} of G is on both and reads gradients, which real images have not.")
        names = [view.name for view in term.views]
        if len(set(names)) < len(names):
            raise method.fault(f"the term {term.name} reads two views of one name: {', '.join(names)}.")


def check_names(methods: Iterable[Method]) -> None:
    """Raise PluginError if two parts of one kind have the same name."""
    terms = [term for method in methods for term in method.terms]
    kinds: dict[str, list[Any]] = {
        "augmentations": [part for method in methods for part in method.augmentations],
        "averages": [part for method in methods for part in method.averages],
        "heads": [part for method in methods for part in method.heads],
        "terms of G": [term for term in terms if term.network == "G"],
        "terms of D": [term for term in terms if term.network == "D"],
    }
    for kind, parts in kinds.items():
        for name, count in Counter(part.name for part in parts).items():
            if count > 1:
                raise PluginError(f"--plugin: two {kind} are named {name!r}: leave one of the plug-ins out.")


def refuse_readers(owner: Method, methods: Iterable[Method], without_D: str | None) -> None:
    """Raise PluginError for a method that needs D or its logits. owner: method of the critic, which has no logits;
    without_D: the plug-in that trains without D; None is an error, too."""
    if without_D is None:
        raise owner.fault("its critic has no logits, so that D is not trained: give the plug-in trains_D = False.")
    for method in methods:
        terms = [t.name for t in method.terms if t.weight != 0 and (t.network == "D" or _reads_D(t))]
        heads = [head.name for head in method.heads if head.network == "D"]
        hooks = [f"{name}()" for name in ("real_images", "sample_weights") if name in method.hooks]
        if found := [*terms, *heads, *hooks]:
            raise PluginError(
                f"--plugin: {method.name} needs D ({found[0]}), and {owner.name} trains without D: leave one of them "
                "out."
            )


def _reads_D(term: Term) -> bool:
    return bool(term.layers or term.gradients or any(v.groups != "none" or v.judged or v.gradient for v in term.views))


def other_layers(network: torch.nn.Module, layer: str) -> str:
    """Return names of the larger layers of a network if it lacks this layer, else ""."""
    known = {name for name, _ in network.named_modules() if name}
    return "" if layer in known else ", ".join(sorted(name for name in known if name.count(".") <= 1))


def check_value(method: Method, term: Term, value: Any, sizes: set[int]) -> None:
    """Raise PluginError unless a term's value is [N], or [M] of one of its views. sizes: N, and every M."""
    expected = " or ".join(f"[{size}]" for size in sorted(sizes))
    came = f"of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else _described(value)
    if not isinstance(value, torch.Tensor) or value.ndim != 1 or len(value) not in sizes:
        raise method.fault(f"compute of the term {term.name} returned a value {came}; expected {expected}.")
