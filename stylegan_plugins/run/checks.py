"""Checks that a session makes of its methods: once at set-up, and of values and gradients while it trains."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from stylegan_plugins.errors import PluginError
from stylegan_plugins.run.method import Method, described
from training_ext.parts import HOST_CRITIC, Critic, Step, Term


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


def check_views(methods: Iterable[Method], critic: Critic) -> None:
    """Raise PluginError for a view that the critic judges by D's outputs, and that D does not see."""
    for method in methods:
        for term in method.terms:
            for view in term.views:
                judged = (view.judged or view.gradient) and critic.logits is not None
                if judged and view.groups == "none" and (critic.layers or critic is HOST_CRITIC):
                    raise method.fault(
                        f"D does not see the view {view.name} of {term.name} (groups='none'), so it has no logits; "
                        "make it with other groups, or without judged and gradient."
                    )


def check_settings(name: str, settings: Mapping[str, Any], optimizer: type) -> None:
    """Raise PluginError for settings of a head that its optimiser does not have."""
    known = list(inspect.signature(optimizer).parameters)[1:]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise PluginError(
            f"--plugin: the head {name} has the setting {unknown[0]!r}; {optimizer.__name__} has {', '.join(known)}."
        )


def check_names(methods: Iterable[Method]) -> None:
    """Raise PluginError if two parts of one kind have the same name."""
    methods = list(methods)
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
                same = {id(part) for part in parts if part.name == name}
                names = ",".join(method.name for method in methods if same & set(map(id, method.parts())))
                cure = "leave one of the plug-ins out" if "," in names else "rename one"
                raise PluginError(f"--plugin={names}: two {kind} are named {name!r}: {cure}.")


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


@contextmanager
def passes_named(method: Method, term: Term, step: Step) -> Iterator[None]:
    """A context in which an attribute of a pass that a step lacks is an error that names the term."""
    try:
        yield
    except AttributeError as error:
        lacking = [name for name in ("real", "generated") if getattr(step, name) is None]
        if not lacking or "'NoneType' object" not in str(error):
            raise
        raise method.fault(
            f"compute of the term {term.name}: {error}. A term on {term.on!r} has no step.{lacking[0]} here; with "
            "on='both' it has both."
        ) from error


def check_value(method: Method, term: Term, value: Any, sizes: set[int]) -> None:
    """Raise PluginError unless a term's value is [N], or [M] of one of its views. sizes: N, and every M."""
    expected = " or ".join(f"[{size}]" for size in sorted(sizes))
    came = f"of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else described(value)
    if not isinstance(value, torch.Tensor) or value.ndim != 1 or len(value) not in sizes:
        raise method.fault(f"compute of the term {term.name} returned a value {came}; expected {expected}.")


def check_together(methods: Iterable[Method], critic: Critic, owner: Method | None, without_D: str | None) -> None:
    """Raise PluginError for methods that do not go together. owner: method of the critic; None: the host's critic."""
    methods = list(methods)
    check_names(methods)
    check_views(methods, critic)
    if critic.logits is None and owner is not None:
        refuse_readers(owner, methods, without_D)


def check_finite(finite: Mapping[tuple[str, str], torch.Tensor], nimg: int) -> None:
    """Raise PluginError if a term was not finite. finite: whether it was, by plug-in and term."""
    for method, term in [key for key, good in finite.items() if not good]:
        raise PluginError(
            f"--plugin={method}: the term {term} was not finite before {nimg / 1000:g} kimg. Give it a smaller weight "
            "or learning rate, or train without it."
        )


def check_gradients(network: torch.nn.Module, phase: str, terms: Mapping[str, str], nimg: int) -> None:
    """Raise PluginError if gradients of a network in single precision are not finite: the hosts replace them, so that
    the network would not learn. Half precision overflows now and then.

    terms: of this network, with their plug-ins"""
    if any(getattr(module, "use_fp16", False) for module in network.modules()):
        return
    found = [(name, parameter.grad) for name, parameter in network.named_parameters() if parameter.grad is not None]
    finite = torch.stack([gradient.isfinite().all() for _, gradient in found]).tolist() if found else []
    wrong = [name for (name, _), good in zip(found, finite, strict=True) if not good]
    if wrong and terms:
        raise PluginError(
            f"--plugin={','.join(dict.fromkeys(terms.values()))}: the gradient of {wrong[0]} in {phase} is not finite "
            f"at {nimg / 1000:g} kimg, and would become 0. One of these terms has a finite value and no finite "
            f"gradient, as a square root at 0 has: {', '.join(terms)}."
        )
