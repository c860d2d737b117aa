"""Passes of D: the images of a source and their views, run together if their minibatch-stddev groups allow it.

All functions depend on their arguments alone. A pass is made once and never changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from training_ext.batches import can_join, join, split
from training_ext.parts import Augmentation, Batch, ContractError, Critic, Declared, Images, Pass, Source, Term, View

NOTHING: Mapping[str, Any] = MappingProxyType({})
Output = dict[str, torch.Tensor]  # D's outputs for one batch: layers by name, and logits as ''
Made = tuple[Pass, dict[View, Pass]]  # the passes of some images and of their views


@contextmanager
def reading(module: torch.nn.Module, layers: Iterable[str]) -> Iterator[Output]:
    """A context with a dictionary that gets the outputs of submodules of these names, float32, when the module runs.

    The context uses forward hooks and removes them afterwards, because the host copies and pickles its networks."""
    found: Output = {}

    def note(name: str, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        # A block gives its features and, in some architectures, an image.
        found[name] = (output[0] if isinstance(output, tuple) else output).float()

    hooks = [module.get_submodule(name).register_forward_hook(partial(note, name)) for name in sorted(set(layers))]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def changing(module: torch.nn.Module, changes: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """A context in which these functions change the outputs of submodules of these names when the module runs."""

    def change(by: Callable[[torch.Tensor], torch.Tensor], module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        # A block gives its features and, in some architectures, an image.
        return (by(output[0]), *output[1:]) if isinstance(output, tuple) else by(output)

    hooks = [module.get_submodule(name).register_forward_hook(partial(change, by)) for name, by in changes.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def augmented(
    augmentations: Iterable[Augmentation],
    images: torch.Tensor,
    source: Source,
    phase: str,
    given: Mapping[str, Any] = NOTHING,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return images after all augmentations, and the draws of these. given: earlier draws to use again, by name."""
    omega: dict[str, Any] = {}
    for augmentation in augmentations:
        if augmentation.where(source, phase):
            name = augmentation.name
            omega[name] = given[name] if name in given else augmentation.sample(images)
            images = augmentation.apply(images, omega[name])
    return images, omega


def read(module: torch.nn.Module, layers: Iterable[str], *args: Any, **kwargs: Any) -> tuple[Any, Output]:
    """Call a module; return its output, and the outputs of its submodules of these names, float32."""
    with reading(module, layers) as found:
        return module(*args, **kwargs), found


@torch.no_grad()
def layer_shape(D: Any, layer: str, device: torch.device) -> tuple[int, ...]:
    """Return the shape of the output of a layer of D for one image."""
    image = torch.zeros([1, D.img_channels, D.img_resolution, D.img_resolution], device=device)
    _, found = read(D, [layer], image, torch.zeros([1, D.c_dim], device=device))
    return tuple(found[layer].shape[1:])


def minibatch_std_group(D: torch.nn.Module) -> int | None:
    """Return the group size of D's minibatch-stddev layer; 1 without such a layer, None if a group is the batch."""
    layer = getattr(D.get_submodule("b4"), "mbstd", None)
    return 1 if layer is None else layer.group_size  # type: ignore[return-value]


@dataclass(frozen=True)
class Unseen:
    """The images of a source before D has seen them, with the requirements on their pass.

    terms      terms that read the pass
    gradients  'raw', 'shown': gradients of the logits that the terms or R1 read
    kwargs     arguments of the host's D beside images and labels"""

    images: Images
    terms: Sequence[Term] = ()
    gradients: Iterable[str] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> dict[View | None, Batch]:
        """Return the shown images, with the key None, and the views that the terms read."""
        views = [view for term in self.terms for view in term.views if view.on in (self.images.source, "each")]
        found: dict[View | None, Batch] = {None: Batch(self.images.shown, self.images.labels)}
        return found | {view: _batch_of(view, self.images) for view in dict.fromkeys(views)}


def make_pass(
    D: torch.nn.Module,
    critic: Critic,
    images: Images,
    terms: Sequence[Term],
    gradients: Iterable[str],
    kwargs: Mapping[str, Any],
    no_weight_gradients: Callable[[], AbstractContextManager],
) -> Made:
    """Return the pass of some images with everything that the critic and the terms read, and the passes of the terms'
    views.

    terms, gradients, kwargs   as in `Unseen`
    no_weight_gradients        a context in which convolutions make no gradients of weights (the host's)"""
    return make_passes(D, critic, [Unseen(images, terms, gradients, kwargs)], no_weight_gradients)[0]


def make_passes(
    D: torch.nn.Module,
    critic: Critic,
    drawn: Sequence[Unseen],
    no_weight_gradients: Callable[[], AbstractContextManager],
) -> list[Made]:
    """Return the result of `make_pass` for each of several sources. Their shown images, and the views that share groups
    with them, form one batch of D in this order, so that minibatch-stddev groups span the sources."""
    batches = [one.batches() for one in drawn]
    layers = {name for one in drawn for term in one.terms for name in term.layers} | set(critic.layers)

    # Run D on the shown images and on the views that it sees. The key of a batch is its source and its view.
    keys = [(number, view) for number, of_one in enumerate(batches) for view in of_one]
    seen = [key for key in keys if key[1] is None or key[1].groups != "none"]
    outputs: dict[Any, Output] = {}
    judged_alone = all(view.judged or view.gradient for _, view in seen if view)  # the critic may not need D
    if (critic.runs_D and critic.logits is not None) or layers or not judged_alone:
        groups = [[key for key in seen if key[1] is None or key[1].groups == "shared"]]
        groups += [[key] for key in seen if key[1] is not None and key[1].groups == "own"]
        kwargs = {name: value for one in drawn for name, value in one.kwargs.items()}
        outputs = _run_D(D, groups, {key: batches[key[0]][key[1]] for key in keys}, layers, kwargs)
    return [
        _asked(critic, one, of_one, {view: outputs.get((number, view)) for view in of_one}, no_weight_gradients)
        for number, (one, of_one) in enumerate(zip(drawn, batches, strict=True))
    ]


def _asked(
    critic: Critic,
    drawn: Unseen,
    batches: Mapping[View | None, Batch],
    outputs: Mapping[View | None, Output | None],
    no_weight_gradients: Callable[[], AbstractContextManager],
) -> Made:
    """Return the passes of a source and its views, with the critic's logits and their gradients."""
    images = drawn.images
    shown = _judged(critic, Pass(images, None, images.shown, images.labels, **_parts(outputs[None])))
    of_views: dict[View, Pass] = {}
    for view, batch in batches.items():
        if view is None:
            continue
        assert batch.labels is not None  # see _batch_of
        made = Pass(images, view.name, batch.images, batch.labels, batch.targets, **_parts(outputs[view]))
        if view.judged or view.gradient:
            made = _judged(critic, made)
        if view.gradient:
            with no_weight_gradients():
                made = replace(made, gradients={"batch": _gradients(made.logits, [made.batch])[0]})
        of_views[view] = made

    # Gradients of the logits, computed once for all readers.
    wanted = sorted(set(drawn.gradients))
    if wanted:
        with no_weight_gradients():
            values = _gradients(shown.logits, [getattr(images, name) for name in wanted])
        shown = replace(shown, gradients=Declared("gradients", dict(zip(wanted, values, strict=True))))
    return shown, of_views


def for_term(term: Term, made: Made) -> Pass:
    """Return a pass for a term, with only the layers, gradients and views that it declares."""
    shown, views = made
    of_G = Declared.of("generator_layers", term.generator_layers, shown.images.generator_layers)
    images = replace(shown.images, generator_layers=of_G)
    seen = lambda one, what, names: replace(
        one,
        images=images,
        layers=Declared.of("layers", term.layers, one.layers),
        gradients=Declared.of(what, names, one.gradients),
    )
    of_views = {view.name: seen(views[view], "gradient", ["batch"]) for view in term.views if view in views}
    absent = [view.name for view in term.views if view not in views]
    return replace(seen(shown, "gradients", term.gradients), views=Declared("views", of_views, absent))


def _judged(critic: Critic, seen: Pass) -> Pass:
    """Return a pass with the critic's logits, if there are any. The critic only sees the layers that it declares."""
    if critic.logits is None:
        return seen
    try:
        logits = critic.logits(replace(seen, layers=Declared.of("layers", critic.layers, seen.layers)))
    except ContractError as error:
        error.part = critic
        raise
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(seen.batch):
        came = f"of shape {list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ContractError(f"logits returned a value {came}; expected [{len(seen.batch)}, K]", critic)
    return replace(seen, judged=logits)


def _batch_of(view: View, images: Images) -> Batch:
    made = view.make(images)
    batch = Batch(made) if isinstance(made, torch.Tensor) else made
    if not isinstance(batch, Batch) or batch.images.ndim != 4:
        raise ContractError(
            f"the view {view.name!r} made a {type(made).__name__}; expected images [M, C, H, W] or a Batch", view
        )
    labels = images.labels if batch.labels is None else batch.labels
    if len(labels) != len(batch.images):
        raise ContractError(
            f"the view {view.name!r} made {len(batch.images)} images with {len(labels)} labels; give labels in a Batch",
            view,
        )
    if view.gradient:
        batch = replace(batch, images=batch.images.detach().requires_grad_(True))
    return replace(batch, labels=labels)


def _parts(output: Output | None) -> dict[str, Any]:
    if output is None:
        return {}
    layers = {name: value for name, value in output.items() if name}
    return {"host_logits": output[""], "layers": Declared("layers", layers)}


def _gradients(logits: torch.Tensor, images: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad([logits.sum()], images, create_graph=True, only_inputs=True)


def _run_D(
    D: torch.nn.Module,
    groups: list[list[Any]],
    batches: Mapping[Any, Batch],
    layers: set[str],
    kwargs: Mapping[str, Any],
) -> dict[Any, Output]:
    """Run D on several batches, in one pass if the result is the same, else in one pass for each group. Batches of one
    group share their minibatch-stddev groups."""
    images = [_concatenated([batches[key].images for key in group]) for group in groups]
    labels = [_concatenated([batches[key].labels for key in group]) for group in groups]
    sizes, size = [len(batch) for batch in images], minibatch_std_group(D)
    for group, count in zip(groups, sizes, strict=True):
        views = [view for _, view in group if view is not None]
        if views and size is not None and count % min(size, count):
            names = ", ".join(repr(view.name) for view in views)
            raise ContractError(
                f"the view {names} has {count} items; D takes groups of {size} (minibatch-stddev)", views[0]
            )

    def run(images: torch.Tensor, labels: torch.Tensor) -> Output:
        logits, found = read(D, layers, images, labels, **kwargs)
        return {"": logits, **found}

    if size is not None and len(groups) > 1 and can_join(sizes, size):
        parts = {name: split(value, sizes, size) for name, value in run(join(images, size), join(labels, size)).items()}
        outputs = [{name: values[k] for name, values in parts.items()} for k in range(len(groups))]
    else:
        outputs = list(map(run, images, labels))
    by_key: dict[Any, Output] = {key: {} for group in groups for key in group}
    for group, output in zip(groups, outputs, strict=True):
        counts = [len(batches[key].images) for key in group]
        for name, value in output.items():
            for key, part in zip(group, value.split(counts) if len(group) > 1 else [value], strict=True):
                by_key[key][name] = part
    return by_key


def _concatenated(tensors: list[Any]) -> torch.Tensor:
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]
