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
    """Change the training arguments, or refuse them. Return the options that the run has, if they are not those that
    were given: a value that depends on the arguments is filled in here, with `dataclasses.replace`. Called once, in
    the starting process, before the run directory is named and before anything is written.

    - `args` - dict: the host's arguments of `training_loop()`, nested; change it in place. It becomes
      `training_options.json`, so what you put in must be JSON. Options of the plug-ins before this one stand under
      `args["plugins"]["options"]`.
    - `options` - the plug-in's own options, an instance of `OPTIONS`; `None` if it has none.
    - `explicit` - frozenset of str: the options that the user gave (`aug`, `batch_gpu`). Change a default only if its
      name is not in it, and print that you did.

    Raise `OptionError` or `PluginError` if the arguments do not go with the plug-in: the user sees one line."""


@hookspec
def register_labels(args: Any, options: Any) -> Any:
    """Return `Labels` that replace the labels of the data set: vectors [M, d], one for each image in the host's order
    (sorted names). If flipped images have other labels, as many for them. G then has labels of width d, and D, unless
    `configure` says otherwise. `None`: the data set stays as it is. At most one active plug-in may have labels.

    Called before `configure` in the starting process, and again in each process that trains, before the data set is
    made, and when a run is resumed. `args` - dict: as in `configure`, with `run_dir` in the latter two;
    results of a search can be stored in `args["plugins"]["options"]`. `options` - the plug-in's own. Raise
    `DataError` if images and labels do not fit together.

    The host's classes stay: the loop, its metrics and the workers of its data loader see the same labels, and
    snapshots name no class of ours. Labels that change during a run: see `session.relabel`."""


@hookspec
def register_generator_module(G: torch.nn.Module, options: Any) -> Any:
    """Return a module [N, z_dim] -> [N, z_dim] that comes before `G.mapping`, or `None`. It is trained with G, and the
    host's copies, averages, image grids, metrics and snapshots all have it. Make it of modules of torch.nn and of the
    host's layers only: stock tools load it from a snapshot without our package. Called where G is built, in each
    process, and when a snapshot of the run is loaded; its random numbers are its own, and the same in all processes.
    At most one active plug-in may have one. `G` - the host's generator; do not change it."""


@hookspec
def register_temperature(options: Any) -> Any:
    """Return a factor tau in [0, 1], or `None`: outside of training G's mapping network gives
    w_avg + psi tau (w - w_avg), psi being the truncation that is asked for. So image grids, metrics, snapshots and
    stock tools draw nearer to the mean; G's average has it, and G in training has not. (Its mapping network normalises
    z, so that a shorter z changes nothing.) Called where `register_generator_module` is; at most one active plug-in may
    have one."""


@hookspec
def register_sampler(run_dir: Path, options: Any) -> Any:
    """Return `Sampler`: where labels come from when images are generated without the data set. It gives them as G's
    mapping network embeds them, `G.mapping.embed(c)`, so that they may lie anywhere in that space. Called
    wherever images of a run are generated (`sample`, `export`, `interpolate`, `sheet`, `evaluate`, and metrics in
    `train.py` and `calc_metrics.py`), for each plug-in that was active in it. With `classes=True` labels are one-hot
    classes, which `--class` asks for by their number. `run_dir` - Path of the run; `options` - the plug-in's own, as
    they were. At most one active plug-in may have one."""


@hookspec
def register_backbones() -> Any:
    """Return frozen networks by name, `{name: Recipe}`: a model of timm with published weights, and which of its
    features vision-aided's decoders read. They can then be named wherever a backbone is. A name that exists already
    keeps its meaning."""


@hookspec
def register_features(run: Path) -> Any:
    """Return `RunFeatures`: features of images by a network that a run of the plug-in has trained. Called where
    `PLUGIN:RUN` is named in the place of a backbone, in `stylegan-plugins priors --features` and `--disp-features`, for
    the plug-in of that name, active or not, when a host is in use. `run` - Path of a run directory or a snapshot; it
    exists. Raise `DataError` if it has no such network. The plug-in's options of the run are in its
    training_options.json."""


@hookspec
def register_metrics() -> Any:
    """Return metrics by name, `{name: Metric}`: functions of features of real and of generated images. They can then
    be named in `stylegan-plugins evaluate` and `compare`, with any `--features`, and in train.py's `--metrics` as
    `<name>_<features>`, on Inception `<name>_clean`. Of installed plug-ins, active or not. A name that exists already
    keeps its meaning."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add sub-commands to the `stylegan-plugins` command. Called for every installed plug-in, active or not, when all
    commands are listed, or when a command needs PyTorch (not `list`, `info`, `new` or `patch`). Import slow modules
    inside of a command."""


@hookspec
def setup(session: Any, options: Any) -> Any:
    """Return the method in this run: an object whose attributes are its parts (`augmentations`, `heads`, `averages`,
    `terms`, `critic`) and whose methods that are marked with `hookimpl` are its hooks. `None` adds nothing.

    Called once in each process, when networks, loss and optimisers exist and nothing is trained yet. Random numbers
    drawn here are the plug-in's own, hidden from the host, and the same in all processes. State of
    the object beyond its heads and averages is returned by its `state_dict()`, and restored by its
    `load_state_dict(state)`. `session` - see [the session](session.md); do not change networks here. The
    networks, `device`, `dataset` and `layer_shape` are there; `judge`, `generate`, `augment` and the heads' optimisers
    follow in `attached`."""


class MethodHooks:
    """Hooks of what `setup` returns. The session is what `setup` was given: keep it in `self`."""

    @hookspec
    def attached(self) -> None:
        """All methods are set up, and the heads' optimisers exist."""

    @hookspec
    def trains(self, name: str, nimg: int) -> bool:  # type: ignore[empty-body]
        """Return whether a parameter of G or D is trained now. `name` - str: `G.mapping.fc0.weight`, `D.b4.out.bias`.
        Parameters of a plug-in's module before the mapping network are
        `G.mapping.before.*`. `nimg` - int: real images
        shown so far. A parameter is trained if all methods that have this hook say so; a
        phase in which nothing is trained is skipped. Asked in each round: the host switches everything on."""

    @hookspec
    def paired_latents(self, z: torch.Tensor, labels: torch.Tensor, index: Any) -> Any:
        """Return `(z, labels)` of which G makes the images of its main phase instead: [N, z_dim], with a graph where
        z is trained, and [N, c_dim]. `z` - those that the loop drew; `labels` - of the real images of this round;
        `index` - [N], their places in the host's data set, or `None` as in `Images`. The generated images belong to
        the real ones: no style is mixed in, and each pair has one draw of the augmentations, so that a term on `both`
        can compare pairs. ADA draws for each image."""

    @hookspec
    def real_images(self, images: torch.Tensor, labels: torch.Tensor, phase: str) -> Any:
        """Return `(images, labels)` to show to D as real instead: [N, C, H, W] in [-1, 1] before ADA, [N, c_dim].
        Called in each round of a phase in which D sees real images, R1's among them."""

    @hookspec
    def sample_weights(self, step: Step) -> Any:
        """Return the weight of each generated image in G's adversarial loss, [N], or `None` for 1. `step` has the
        generated pass. Weights of several methods are multiplied."""

    @hookspec
    def observe(self, step: Step) -> None:
        """Called after each pass of shown images and the terms on its source alone; terms on `both` come after it.
        `step` has that pass, without views. A phase of G has generated images only. Gradients are switched off."""

    @hookspec
    def step_end(self, phase: str) -> None:
        """An optimiser made a step. `phase` - str: `Gmain`, `Greg`, `Dmain` or `Dreg`; `Gboth` or `Dboth` where the
        host does not regularise lazily."""

    @hookspec
    def batch_end(self, nimg: int, batch_idx: int) -> None:
        """An iteration is done. `nimg` - int: real images shown so far. `batch_idx` - int: iterations done."""

    @hookspec
    def statistics(self, nimg: int) -> None:
        """A tick ends and its statistics are collected next. Values that are reported now are among them, in
        `stats.jsonl` and TensorBoard. Called on each process, after metrics and snapshot; all must report the same
        names in the same order. Leave random numbers as they were."""

    @hookspec
    def tick(self, nimg: int) -> None:
        """A tick is done and its statistics are written. `nimg` - int: real images shown so far."""

    @hookspec
    def snapshot(self, path: str, nimg: int) -> None:
        """A network snapshot was written. Called in the first process alone. `path` - str: the pickle; write
        related files beside it."""
