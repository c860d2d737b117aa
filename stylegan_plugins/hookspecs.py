"""A plug-in is a module (or any object) with functions that are marked as hook implementations. It implements the hooks
that it needs, with the arguments that it uses, by name, without defaults. The heading of each section is the hook's
full signature. [Writing plug-ins](writing_plugins.md) starts from nothing; [testing plug-ins](testing_plugins.md)
goes on from there. The examples are parts of [examples/every_hook.py](../examples/every_hook.py), which the tests
train.

Hooks are called in the order of `--plugin`, one plug-in after the other. Where a list is returned, `None` means an
empty one. The order decides no number but one: augmentations are chained in it. Loss terms are summed by name.

Besides hooks, a plug-in may have plain attributes: `requires` and `conflicts`, tuples of names of plug-ins that
must, or must not, be active with it; `brings`, names of plug-ins that are activated along with it; `PAPER`, a line,
and `PRESETS`, a dictionary of `stylegan_plugins.options.Preset`, which `stylegan-plugins info` shows.

In a run, hooks are called in this order:

| when | hooks |
| --- | --- |
| `train.py` reads its command line | `options`, `presets` |
| the host's arguments are complete, nothing is written | `register_dataset`, `configure` |
| each process that trains starts | `register_dataset` |
| networks, loss and optimisers exist | `register_augmentations`, `register_heads`, `register_loss_terms` |
| a run goes on from a saved state | `load_state_dict` |
| each optimiser step, each iteration | `step_end`, `batch_end` |
| each network snapshot | `snapshot` |
| each tick, before and after its statistics are written | `statistics`, `tick` |
| a state is saved | `state_dict` |
| the `stylegan-plugins` command starts | `register_commands` |
| images are made without the data set | `register_sampler` |
| a frozen network or a metric is asked for | `register_backbones`, `register_metrics` |"""

import pluggy

hookspec = pluggy.HookspecMarker("stylegan_plugins")


@hookspec
def options():
    """Return a frozen dataclass. Its fields become the options `--<plugin>-<field>` of `train.py`, and are saved with
    defaults in `training_options.json`. Make fields with `stylegan_plugins.options.option(default, help)`; they may
    be `bool`, `int`, `float` or `str`, or one of them `| None`, with `choices`, `minimum` and `maximum`. Values that
    do not go together: raise `OptionError` in `__post_init__`.

    Called whenever the installed plug-ins' options are needed, `train.py --help` included, so it must be quick."""


@hookspec
def presets(options, given):
    """Return values that take the place of defaults, `{plug-in: {field: value}}`: of the plug-in itself, or of others
    that it `brings`. What the user gave wins. `None`, or no implementation: the defaults stay. Called once or twice,
    in the starting process, before `configure`.

    - `options` - the plug-in's own options, made of what was given.
    - `given` - dict: all options of active plug-ins that were given, `{plug-in: {field: value}}`; do not change it.

    Raise `OptionError` if given options contradict each other."""


@hookspec
def configure(args, options, given):
    """Change the training arguments, or refuse them. Called once, in the starting process, before the run directory is
    named and before anything is written.

    - `args` - dict: the host's arguments of `training_loop()`, nested; change it in place. It becomes
      `training_options.json`, so what you put in must be JSON.
    - `options` - the plug-in's own options, an instance of its dataclass; `None` if it has none.
    - `given` - frozenset of str: the options that the user gave (`aug`, `batch_gpu`). Change a default only if its
      name is not in it, and print that you did.

    Raise `OptionError` or `PluginError` if the arguments do not go with the plug-in: the user sees one line."""


@hookspec
def register_dataset(args, options):
    """Return `training_ext.dataset.Labels` for the data set to have instead of its own: vectors [M, d], one for each
    image in the host's order (sorted names), and, if x-flips have others, as many for them. G then has labels of
    width d, and D, unless `configure` says otherwise. `None`: the data set stays as it is. At most one active
    plug-in may have labels.

    Called before `configure` in the starting process, and again in each process that trains, before the data set is
    made, and when a run goes on. `args` - dict: as in `configure`, with `run_dir` in the latter two; what was looked
    for once can be noted in `args["plugins"]["options"]`. `options` - the plug-in's own. Raise `DataError` if images
    and labels do not fit together.

    The host's classes stay: the loop, its metrics and the workers of its data loader see the same labels, and
    snapshots name no class of ours."""


@hookspec
def register_backbones():
    """Return frozen networks by name, `{name: stylegan_plugins.backbones.Recipe}`: a model of timm with published
    weights, and which of its features vision-aided's decoders read. They can then be named wherever a backbone is. A
    name that exists already keeps its meaning."""


@hookspec
def register_metrics():
    """Return metrics by name, `{name: stylegan_plugins.scores.Metric}`: functions of features of real and of generated
    images. They can then be named in `stylegan-plugins evaluate` and `compare`, with any `--features`, and in
    train.py's `--metrics` as `<name>_<features>`, on Inception `<name>_clean`. Of installed plug-ins, active or
    not. A name that exists already keeps its meaning."""


@hookspec
def register_sampler(run_dir, options):
    """Return `stylegan_plugins.sampling.Sampler`: where labels come from when images are made without the data set. It
    gives them as G's mapping network embeds them, `G.mapping.embed(c)`, so that they may lie anywhere in that space.
    Called by `stylegan-plugins sample` and `export` for each plug-in that was active in a run. `run_dir` - Path of
    the run; `options` - the plug-in's own, as they were. At most one active plug-in may have one."""


@hookspec
def register_augmentations(session):
    """Return a list of `training_ext.parts.Augmentation`: differentiable transformations of D's input, real and
    generated. Called once, when networks, loss and optimisers exist and nothing is trained yet. They come after the
    host's ADA.

    A transformation takes images [N, C, H, W] with pixel values in [-1, 1], and returns the transformed images and
    omega: what was drawn, a dictionary of tensors [N, k] with values in [0, 1]. It must be differentiable twice, for
    R1. `applies` says for which source and phase it is used."""


@hookspec
def register_heads(session):
    """Return a list of `training_ext.parts.Head`: modules that are trained with D, by an optimiser with D's settings
    that steps after D's phases; heads without gradient, as most are after R1, stay as they are. Called once, after
    `register_augmentations`. `session.feature_size(layer)` gives the width of what a head reads: `conv` (the last
    convolution, flattened) or `fc` (the last hidden layer).

    A head is float32 and stays outside of D: snapshots, EMA and freezing never see it. The random numbers that its
    initialisation draws are hidden from the host, and the same in all processes."""


@hookspec
def register_loss_terms(session):
    """Return a list of `training_ext.parts.LossTerm`, or of one `AdversarialTerm`, which takes the place of the
    adversarial loss; at most one active plug-in may do that. Called once, after `register_heads`; `session.heads`
    has the modules of all heads by name.

    A term belongs to a network, `"D"` or `"G"`, and is computed in that network's main phase: for D once on
    generated and once on real images. It reads a `training_ext.parts.Pass` and returns [N], neither reduced nor
    weighted; with weight 0 it is not computed at all. Layers whose features it reads are named in `features`, those
    of the images before augmentation in `clean_features`: they cost a larger batch. `Pass.raw` are the images before
    ADA. A term that takes part at times has a function `active`, asked in each pass; what a plug-in keeps between
    its hooks can be put in `session.kept`. The value is reported before weighting as `Loss/<network>/<name>`.

    An `AdversarialTerm` makes the logits, from which loss, R1, ADA and statistics follow. It may add a term of D
    that needs both passes at once (`joint`), have real images augmented several times in D's main phase (`views`,
    read from `Pass.views`), and have R1 taken with respect to the augmented images. R1 then has a pass of its own,
    with phase `Dreg`."""


@hookspec
def step_end(session, phase):
    """An optimiser made a step. `phase` - str: `Gmain`, `Greg`, `Dmain` or `Dreg`; `Gboth` or `Dboth` where the host
    does not regularise lazily."""


@hookspec
def batch_end(session, cur_nimg, batch_idx):
    """An iteration is done. `cur_nimg` - int: real images shown so far. `batch_idx` - int: iterations done."""


@hookspec
def statistics(session, cur_nimg):
    """A tick ends and its statistics are collected next: what is reported to the host's `training_stats` now is among
    them, in `stats.jsonl` and tensorboard. `cur_nimg` - int: real images shown so far. Called on each process, after
    metrics and snapshot; all must report the same names in the same order, which is what `report0` is for. Leave
    random numbers as they were."""


@hookspec
def tick(session, cur_nimg):
    """A tick is done and its statistics are written. `cur_nimg` - int: real images shown so far; the host rounds it
    down to whole thousands."""


@hookspec
def snapshot(session, path, cur_nimg):
    """A network snapshot was written. Called in the first process alone. `path` - str: the pickle; write what belongs
    to it beside it. `cur_nimg` - int: real images shown so far."""


@hookspec
def state_dict(session):
    """Return what the plug-in must remember between two runs, beyond its heads: a dictionary of tensors, numbers,
    strings, lists and dictionaries, as `torch.load(weights_only=True)` reads them. `None`: nothing. Called on each
    process whenever a training state is written, between two iterations; each gets its own back."""


@hookspec
def load_state_dict(session, state):
    """Take back what `state_dict` returned. Called after all parts are registered, and only if there is a state."""


@hookspec
def register_commands(cli):
    """Add sub-commands to the `stylegan-plugins` command. `cli` - `click.Group`. Called for every installed plug-in,
    active or not, whenever the command starts, so import what is slow inside of a command."""
