"""The specifications of all hooks. docs/make_reference.py writes their docstrings to hooks_of_plugins.md and
hooks_of_methods.md in docs/reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import click
    import torch

    from training_ext.parts import Step

hookspec = pluggy.HookspecMarker("stylegan_plugins")


@hookspec
def configure(args: Any, options: Any, explicit: frozenset[str]) -> Any:
    """Change the training arguments, or refuse them. To change the plug-in's options, for example to fill in a value
    that depends on the arguments, return new ones, made with `dataclasses.replace`. Called once, in the starting
    process, before the run directory is named and before anything is written.

    - `args` - dict: the host's arguments of `training_loop()`, nested; change it in place. It becomes
      `training_options.json`, so new values must be JSON. Options of the plug-ins before this one stand under
      `args["plugins"]["options"]`.
    - `options` - the plug-in's own options, an instance of `OPTIONS`; `None` if it has none.
    - `explicit` - frozenset of str: the options that the user gave (`aug`, `batch_gpu`). Change a default only if its
      name is not in it, and print that you did.

    Raise `OptionError` or `PluginError` if the arguments do not fit the plug-in: the user sees one line."""


@hookspec
def register_labels(args: Any, options: Any) -> Any:
    """Return `Labels` that replace the labels of the data set: vectors [M, d], one for each image in the host's order
    (sorted names). If flipped images have other labels, give as many for them. G then has labels of width d, and so has
    D, unless `configure` changes this. `None`: the data set keeps its labels. At most one active plug-in may have
    labels.

    Called before `configure` in the starting process, and again in each process that trains, before the data set is
    made, and when a run is resumed. `args` - dict: as in `configure`, with `run_dir` in the latter two;
    results of a search can be stored in `args["plugins"]["options"]`. `options` - the plug-in's own. Raise
    `DataError` if images and labels do not fit together.

    The data set keeps the host's class: the loop, its metrics and the workers of its data loader see the same labels,
    and snapshots name no class of this package. For labels that change during a run see `session.relabel`."""


@hookspec
def register_generator_module(G: torch.nn.Module, options: Any) -> Any:
    """Return a module [N, z_dim] -> [N, z_dim] that comes before `G.mapping`, or `None`. It is trained with G, and the
    host's copies, averages, image grids, metrics and snapshots all include it. Use modules of torch.nn and the host's
    layers only, so that stock tools can load it from a snapshot without this package. Called in each process when G is
    built, and when a snapshot of the run is loaded. Random numbers drawn here are hidden from the host, and the same in
    all processes. At most one active plug-in may have one. `G` - the host's generator; do not change it."""


@hookspec
def register_temperature(options: Any) -> Any:
    """Return a factor tau in [0, 1], or `None`. Outside of training G's mapping network then gives
    w_avg + psi tau (w - w_avg), where psi is the requested truncation. So image grids, metrics, snapshots and stock
    tools draw nearer to the mean. The factor applies to G's average, not to G in training. (A shorter z would have no
    effect, because the mapping network normalises z.) Called together with `register_generator_module`; at most one
    active plug-in may have one."""


@hookspec
def register_sampler(run_dir: Path, options: Any) -> Any:
    """Return a `Sampler`, the source of labels when images are generated without the data set. It gives labels after
    the embedding of G's mapping network, `G.mapping.embed(c)`, so that they may lie anywhere in that space. Called
    wherever images of a run are generated (`sample`, `export`, `interpolate`, `sheet`, `evaluate`, and metrics in
    `train.py` and `calc_metrics.py`), for each plug-in that was active in the run. With `classes=True` labels are
    one-hot classes, which `--class` selects by number. `run_dir` - Path of the run; `options` - the plug-in's own, as
    in that run. At most one active plug-in may have one."""


@hookspec
def register_backbones() -> Any:
    """Return frozen networks by name, `{name: Recipe}`. A recipe names a model of timm with published weights, and the
    features that vision-aided's decoders read. Options that take a backbone then accept these names. A name that exists
    already keeps its meaning."""


@hookspec
def register_features(run: Path) -> Any:
    """Return `RunFeatures`: features of images by a network that a run of the plug-in has trained. Called when the user
    gives `PLUGIN:RUN` instead of a backbone, to `stylegan-plugins priors --features` or `--disp-features`, for the
    plug-in of that name, active or not, with a host in use. `run` - Path of an existing run directory or snapshot.
    Raise `DataError` if it has no such network. The plug-in's options of the run are in its training_options.json."""


@hookspec
def register_metrics() -> Any:
    """Return metrics by name, `{name: Metric}`: functions of features of real and of generated images.
    `stylegan-plugins evaluate` and `compare` then accept these names, with any `--features`. So does train.py's
    `--metrics`, as `<name>_<features>`, with Inception as `<name>_clean`. Called for every installed plug-in, active or
    not. A name that exists already keeps its meaning."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add sub-commands to the `stylegan-plugins` command. Called for every installed plug-in, active or not, when all
    commands are listed, or when a command needs PyTorch (not `list`, `info`, `new` or `patch`). Import slow modules
    inside of a command."""


@hookspec
def setup(session: Any, options: Any) -> Any:
    """Return the method in this run: an object whose attributes are its parts (`augmentations`, `heads`, `averages`,
    `terms`, `critic`), and whose hooks are its methods marked with `hookimpl`. `None` adds nothing.

    Called once in each process, when networks, loss and optimisers exist and nothing is trained yet. Random numbers
    drawn here are hidden from the host, and the same in all processes. An object with state beyond its heads and
    averages returns it from `state_dict()`, and restores it in `load_state_dict(state)`. `session` - see
    [the session](session.md); do not change networks here. The networks, `device`, `dataset` and `layer_shape` are
    available; `judge`, `generate`, `augment` and the heads' optimisers are available from `attached` on."""


class MethodHooks:
    """Hooks of the object that `setup` returns. Keep the session in `self`: these hooks do not get it."""

    @hookspec
    def attached(self) -> None:
        """All methods are set up, and the heads' optimisers exist."""

    @hookspec
    def trains(self, name: str, nimg: int) -> bool:  # type: ignore[empty-body]
        """Return whether a parameter of G or D is trained now. `name` - str: `G.mapping.fc0.weight`, `D.b4.out.bias`;
        parameters of a plug-in's module before the mapping network are `G.mapping.before.*`. `nimg` - int: real images
        shown so far. A parameter is trained if all methods with this hook return True. A phase in which nothing is
        trained is skipped. Called in each round, because the host switches every parameter on."""

    @hookspec
    def paired_latents(self, z: torch.Tensor, labels: torch.Tensor, index: Any) -> Any:
        """Return `(z, labels)` from which G makes the images of its main phase instead: [N, z_dim], with a graph where
        z is trained, and [N, c_dim]. `z` - the latents that the loop drew; `labels` - of the real images of this round;
        `index` - [N], their places in the host's data set, or `None` as in `Images`. Each generated image belongs to a
        real one: no styles are mixed, and a pair shares one draw of the augmentations, so that a term on `both` can
        compare pairs. ADA draws for each image."""

    @hookspec
    def real_images(self, images: torch.Tensor, labels: torch.Tensor, phase: str) -> Any:
        """Return `(images, labels)` to show to D as real instead: [N, C, H, W] in [-1, 1] before ADA, [N, c_dim].
        Called in each round of a phase in which D sees real images, including R1's phase."""

    @hookspec
    def sample_weights(self, step: Step) -> Any:
        """Return the weight of each generated image in G's adversarial loss, [N], or `None` for 1. `step` has the
        generated pass. Weights of several methods are multiplied."""

    @hookspec
    def observe(self, step: Step) -> None:
        """Observe a pass of shown images. Called after the terms on its source alone. Terms on `both` come before this
        call, except for D's pass of generated images, where they come after it. `step` has that pass, without views. A
        phase of G has generated images only. Gradients are switched off."""

    @hookspec
    def step_end(self, phase: str) -> None:
        """An optimiser made a step. `phase` - str: `Gmain`, `Greg`, `Dmain` or `Dreg`; `Gboth` or `Dboth` where the
        host does not regularise lazily."""

    @hookspec
    def batch_end(self, nimg: int, batch_idx: int) -> None:
        """An iteration is done. `nimg` - int: real images shown so far. `batch_idx` - int: iterations done."""

    @hookspec
    def statistics(self, nimg: int) -> None:
        """A tick ends, and its statistics are collected after this call. Values reported here appear in `stats.jsonl`
        and TensorBoard. Called in each process, after metrics and snapshot; all must report the same names in the same
        order. Leave random numbers unchanged."""

    @hookspec
    def tick(self, nimg: int) -> None:
        """A tick is done and its statistics are written. `nimg` - int: real images shown so far."""

    @hookspec
    def snapshot(self, path: str, nimg: int) -> None:
        """A network snapshot was written. Called in the first process alone. `path` - str: the pickle; write
        related files beside it."""
