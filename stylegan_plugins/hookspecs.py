"""Every hook of the plug-in system. A plug-in implements those that it needs, with the arguments that it uses.

Besides hooks, a plug-in may have three plain attributes, tuples of plug-in names: `requires` and `conflicts`, which
must, or must not, be active with it, and `brings`, which are activated along with it. All default to nothing.

Hooks are called for one plug-in after the other, in the order of `--plugin`; loss terms are summed by name, so the
order never decides the numbers, except that augmentations are chained in it."""

import pluggy

hookspec = pluggy.HookspecMarker("stylegan_plugins")


@hookspec
def options():
    """Return a frozen dataclass whose fields become the options `--<plugin>-<field>` of train.py.

    Make fields with `stylegan_plugins.options.option`. Raise OptionError in `__post_init__` for values that do not go
    together. None, or no implementation: the plug-in has no options."""


@hookspec
def presets(options, given):
    """Return values that take the place of defaults: {plug-in: {field: value}}, of the plug-in itself or of others that
    it brings. What the user gave wins. None, or no implementation: the defaults stay.

    options  the plug-in's own options, of what was given
    given    all given options of active plug-ins, {plug-in: {field: value}}; do not change it
    Raise OptionError if given options contradict each other."""


@hookspec
def configure(args, options, given):
    """Change the training arguments, before the run directory is named and before anything is written.

    args     the host's arguments of training_loop(), a nested dictionary; mutate it. It is saved as
             training_options.json. args["plugins"]["options"] holds the options of all active plug-ins
    options  the plug-in's own options, an instance of what `options()` returned, or None
    given    names of the options that the user gave on the command line (`aug`, `batch_gpu`), a frozenset; a default
             may be changed only if its name is not in it
    Raise OptionError or PluginError if the arguments do not go with the plug-in."""


@hookspec
def register_dataset(args, options):
    """Return `training_ext.dataset.Labels` for the data set to have instead of its own, or None.

    Called before `configure` in the starting process, and again in each process that trains, before the data set is
    made, and when a run goes on. args: as in `configure`, with `run_dir` in the latter two; options: likewise. What is
    looked for once can be noted in args["plugins"]["options"]. Raise DataError if images and labels do not fit."""


@hookspec
def register_backbones():
    """Return frozen networks by name, {name: `stylegan_plugins.backbones.Recipe`}, for all that take one."""


@hookspec
def register_metrics():
    """Return metrics by name, {name: `stylegan_plugins.scores.Metric`}, for `stylegan-plugins evaluate`, `compare` and
    train.py's --metrics. Called for every installed plug-in."""


@hookspec
def register_sampler(run_dir, options):
    """Return `stylegan_plugins.sampling.Sampler`: where labels come from when images are made without the data set.

    Called by `stylegan-plugins sample` and `export`, for each plug-in that was active in a run. run_dir: Path of the
    run; options: the plug-in's own, as they were. At most one active plug-in may have one."""


@hookspec
def register_augmentations(session):
    """Return a list of `training_ext.parts.Augmentation`: differentiable transformations of D's input.

    Called once, when networks, loss and optimisers exist and nothing is trained yet. They come after ADA."""


@hookspec
def register_heads(session):
    """Return a list of `training_ext.parts.Head`: modules that are trained with D, by an optimiser with D's settings.

    Called once, after register_augmentations. `session.D` is D; `session.feature_size(layer)` gives the width of what a
    head reads. A head stays outside of D: snapshots, EMA and freezing do not see it."""


@hookspec
def register_loss_terms(session):
    """Return a list of `training_ext.parts.LossTerm` or `AdversarialTerm`. Called once, after register_heads.

    `session.heads` maps names to the modules of all heads. At most one active plug-in may replace the adversarial
    term."""


@hookspec
def step_end(session, phase):
    """An optimiser step was made. phase: its name, `Gmain`, `Greg`, `Dmain`, `Dreg`, `Gboth` or `Dboth`."""


@hookspec
def batch_end(session, cur_nimg, batch_idx):
    """An iteration is done. cur_nimg: real images shown so far; batch_idx: iterations done."""


@hookspec
def statistics(session, cur_nimg):
    """A tick ends and its statistics are collected next: what is reported now is among them. cur_nimg: real images
    shown so far. Called on each process, which all must report the same names in the same order."""


@hookspec
def tick(session, cur_nimg):
    """A tick is done and its statistics are written. cur_nimg: real images shown so far."""


@hookspec
def snapshot(session, path, cur_nimg):
    """A network snapshot was written. path: of the pickle. Called on the first process alone."""


@hookspec
def state_dict(session):
    """Return what the plug-in must remember between two runs, beyond its heads: a dictionary of tensors, numbers,
    strings, lists and dictionaries. None: nothing."""


@hookspec
def load_state_dict(session, state):
    """Take back what `state_dict` returned. Called after all parts are registered."""


@hookspec
def register_commands(cli):
    """Add sub-commands to the click group of the `stylegan-plugins` command. Called for every installed plug-in."""
