"""The way from the command line of train.py to the arguments of the host's training loop."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from stylegan_plugins import options as plugin_options
from stylegan_plugins.cache import trust
from stylegan_plugins.errors import HostError, OptionError, PluginError, fail, tell
from stylegan_plugins.files import prepare
from stylegan_plugins.host import devices, generators
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.manager import Plugins, catalogue, is_file, recorded, split_names
from stylegan_plugins.run import argument_schema, defaults, finetune, host_metrics, loop_options, signals
from stylegan_plugins.run.loop_options import COUNT, option
from training_ext import labels
from training_ext.gan_losses import GAN_LOSSES
from training_ext.labels import Labels

HOST_LOSS = "training.loss.StyleGAN2Loss"
# Options of our loss, and the names of its arguments.
OF_LOSS = {
    "gan_loss": "gan_loss",
    "r2": "r2_gamma",
    "gradient_penalty": "gradient_penalty",
    "d_spectral_norm": "d_spectral_norm",
    "g_interval": "g_interval",
}
PLUGIN_LOSS = "training_ext.loss.PluginLoss"
# Our options that are arguments of `bridge.run` and may change when a run is resumed.
KEPT = ("state_minutes", "keep_states", "metric_samples", "on_nan", "image_minutes", "no_report", "cache")


@dataclass
class Request:
    """The user's options beyond the host's own.

    plugins   the active plug-ins with their options
    given     given values of options of plug-ins, by plug-in and field
    explicit  names of all given options, the host's and ours
    loss      given options of OF_LOSS, by name
    d_reg_interval  iterations between two regularisations of D, 0 in every step; None: the host's
    extra     options of the other host family, by name
    kept      given options of KEPT, by name
    data      pictures of --data; None without
    timed     the length of the run is set to about an hour; length: the line that says so
    resumes   folder of runs, to resume one with the same arguments if there is one; None: a new run"""

    plugins: Plugins = field(default_factory=Plugins)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    explicit: frozenset[str] = frozenset()
    loss: dict[str, Any] = field(default_factory=dict)
    d_reg_interval: int | None = None
    extra: dict[str, float] = field(default_factory=dict)
    no_workers: bool = False
    dry_run: bool = False
    kept: dict[str, Any] = field(default_factory=dict)
    data: prepare.HostData | None = None
    trust_pickle: bool = False
    timed: bool = False
    length: str = ""
    resumes: Path | None = None

    @classmethod
    def parse(cls, values: dict[str, Any], explicit: frozenset[str]) -> Request:
        """Sort the values of our options. Raises PluginError or OptionError before anything else happens."""
        given = values.pop("plugin")
        names = split_names(given)
        if given and not names and "none" not in ",".join(given).lower():  # for example, a variable that is not set
            tell(f"--plugin={','.join(given)} names no plug-in: training without.", err=True)
        request = cls(explicit=explicit, d_reg_interval=values.pop("d_reg_interval", None))
        request.loss = {name: value for name in OF_LOSS if (value := values.pop(name, None)) is not None}
        request.trust_pickle = bool(values.pop("trust_pickle", False))
        if values.pop("accept_changes", False):
            raise OptionError("--accept-changes is for --resume-run alone. Leave it out.")
        request.kept = {name: value for name in KEPT if (value := values.pop(name, None)) is not None}
        found = catalogue()
        for parameter, (plugin, field_name) in found.parameters().items():
            if (value := values.pop(parameter, None)) is not None:
                value = plugin_options.from_anywhere(found.options_class(plugin), field_name, value)
                request.given.setdefault(plugin, {})[field_name] = value
        request.extra = {name: value for name, value in values.items() if value is not None}
        request.plugins = found.activate(names, request.given)
        trust(request.plugins.files)
        request.check_effects()
        return request

    def check_effects(self, args: Mapping[str, Any] | None = None) -> None:
        """Raise OptionError for an option that was given and has no effect. args: of the training loop, if known."""
        for plugin, values in self.given.items():
            plugin_options.check_effect(plugin, self.plugins.options[plugin], values, args)
        if args is not None and self.trust_pickle and not args.get("resume_pkl"):
            raise OptionError("--trust-pickle: there is no pickle to load. Give --resume=PKL, or leave the option out.")
        if args is not None and "metric_samples" in self.kept:
            host_metrics.check_samples(self.kept["metric_samples"], args.get("metrics"))


def take_files(command: click.Command) -> None:
    """Let a command take --plugin=FILE.py: add the options of the file before the command line is parsed."""
    parse_args = command.parse_args

    def parse_with_files(context: click.Context, args: list[str]) -> list[str]:
        values = [arg.partition("=")[2] for arg in args if arg.startswith("--plugin=")]
        values += [value for flag, value in itertools.pairwise(args) if flag == "--plugin"]
        found = catalogue()
        known = set(found.sources)
        try:
            plugins = [found.add_file(name) for name in filter(is_file, split_names(values))]
            for plugin in dict.fromkeys(name for name in plugins if name not in known):
                command.params.extend(found.click_options(plugin))
        except PluginError as error:
            fail(error)
        return parse_args(context, args)

    command.parse_args = parse_with_files  # type: ignore[method-assign, assignment]


AUTO = "auto"  # for --resume and --resume-run: resume the run of this same command, or start it


class _RunFolder(click.Path):
    """A folder, or `auto`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == AUTO else super().convert(value, param, ctx)


_DEVICE_HELP = "Where to run; auto takes a GPU if there is one  [default: auto]"
_SAMPLES_HELP = "Images generated for each of our metrics  [default: 5000 for less than 5000 real ones, 50000 for more]"
DEVICE_OPTION = option("--device", _DEVICE_HELP, click.Choice(devices.CHOICES), None)
METRIC_SAMPLES_OPTION = option("--metric-samples", _SAMPLES_HELP, click.IntRange(min=2))


def options_for(command: click.Command) -> list[click.Option]:
    """Return our options for a host's training command, except those that it has itself. --workers may be 0."""
    existing = {name for parameter in command.params for name in parameter.opts}
    for parameter in command.params:
        if parameter.name == "workers":
            parameter.type = click.IntRange(min=0)
    plugin_help = "Plug-ins to train with, or .py files of them, repeatable; see: stylegan-plugins list"
    resume_help = (
        "Resume exactly the run in DIR, or the newest run in it; needs no other option. auto: resume the run of this "
        "command, or start it"
    )
    minutes_help = "Time between two training states  [default: 10]"
    grids_help = (
        "Time between two image grids, beside the grids at ticks; 0: at ticks alone  [default: 2, after 30 minutes 10]"
    )
    nan_help = "When weights or losses are not finite: end the run, or warn and continue  [default: stop]"
    accept_help = "Let --resume-run continue although data or arguments of the run have changed"
    trust_help = "Load the pickle of --resume as the host would: it may run any code"
    resume: dict[str, Any] = dict(is_eager=True, callback=_nothing_else_required)
    ours = [
        option("--plugin", plugin_help, None, "NAME,...", multiple=True),
        DEVICE_OPTION,
        option("--resume-run", resume_help, _RunFolder(exists=True, file_okay=False), "DIR|auto", **resume),
        option("--state-minutes", minutes_help, click.FloatRange(min=0, min_open=True), "MIN"),
        option("--keep-states", "Training states that are kept  [default: 2]", COUNT),
        METRIC_SAMPLES_OPTION,
        option("--image-minutes", grids_help, click.FloatRange(min=0), "MIN"),
        click.Option(["--no-report"], is_flag=True, default=None, help="Do not write report.html of the run"),
        option("--on-nan", nan_help, click.Choice(["stop", "warn"]), None),
        click.Option(["--accept-changes"], is_flag=True, help=accept_help),
        click.Option(["--trust-pickle"], is_flag=True, help=trust_help),
        click.Option(["--allow-empty-classes"], is_flag=True, help="Train although some classes have no picture"),
        *_loss_options(),
    ]
    found = catalogue()
    ours += [option for name in found.usable() for option in found.click_options(name)]
    taken = sorted(existing & {flag for option in ours for flag in option.opts})
    if taken:
        raise HostError(f"This host's train.py already has {', '.join(taken)}, which plug-ins need: rename it there.")
    extra = [*loop_options.options(), *(click.Option([flag], **how) for flag, how in prepare.OPTIONS.items())]
    return ours + [option for option in extra if not existing & set(option.opts)]


def _loss_options() -> list[click.Option]:
    weight = click.FloatRange(min=0)
    interval_help = "Iterations between two regularisations of D, 0 = in every step  [default: 16]"
    norm_help = "Divide each weight of D by its largest singular value"
    return [
        option("--gan-loss", "Adversarial loss  [default: nonsaturating]", click.Choice(list(GAN_LOSSES)), None),
        option("--r1", "Weight of R1, 0 = off; another name of --gamma", weight, "GAMMA"),
        option("--r2", "Weight of R2, which is R1 on generated images  [default: 0]", weight, "GAMMA"),
        option("--gradient-penalty", "Weight of WGAN-GP's penalty, 10 in the paper  [default: 0]", weight, "FLOAT"),
        option("--g-interval", "Steps of D for each step of G, 5 in WGAN-GP's paper  [default: 1]", COUNT),
        option("--d-reg-interval", interval_help, click.IntRange(min=0)),
        click.Option(["--d-spectral-norm"], is_flag=True, default=None, help=norm_help),
    ]


def take_r1(values: dict[str, Any], given: dict[str, Any]) -> None:
    """Replace --r1 by --gamma, the hosts' name, in all options and in given ones. Raises OptionError if both were given
    and differ."""
    r1 = values.pop("r1")
    if given.pop("r1", None) is None:
        return
    if given.get("gamma", r1) != r1:
        raise OptionError(f"--r1={r1:g}: --gamma={given['gamma']:g} is the same weight. Give one of them.")
    values["gamma"] = given["gamma"] = r1


def _nothing_else_required(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Make all options optional for a resumed run: the run directory has them."""
    if value not in (None, AUTO):
        for parameter in context.command.params:
            parameter.required = False
    return value


def configure(desc: str, args: Any, request: Request) -> tuple[str, Any]:
    """Apply a request to the host's complete arguments. Return the description of the run directory and the arguments.

    Without plug-ins and without --device no key is added."""
    loop_options.apply(args, request.extra)
    if "subset" in request.extra:
        desc += f"-subset{request.extra['subset']}"
    if request.no_workers:
        args["data_loader_kwargs"]["num_workers"] = 0
        args["data_loader_kwargs"].pop("prefetch_factor", None)
    if devices.device().type == "cpu" and "metrics" not in request.explicit:
        args["metrics"] = []  # the default would make 50,000 images at the first tick
    request.check_effects(args)
    args.update(request.kept)
    if request.data is not None:
        recorded_data = {"pictures": request.data.pictures, "class_names": request.data.class_names}
        args.update({name: value for name, value in recorded_data.items() if value})
    plugins = request.plugins
    if plugins:
        args["plugins"] = plugins.record()
    labels = use_labels(args, plugins)
    lacking: set[str] = set()
    if args.get("resume_pkl"):
        lacking = finetune.configure(args, request.explicit, request.trust_pickle, labels is not None, plugins)
    if request.timed and not request.dry_run:
        argument_schema.check(args)
        _check_groups(args, request.explicit)
        request.length = defaults.set_length(args, request.explicit)
    if "device" in request.explicit:
        args["device"] = os.environ[devices.VARIABLE]
    if plugins or request.loss or request.d_reg_interval is not None:
        _set_loss(args, request)
    if plugins:
        _configure_plugins(args, recorded(args["plugins"]), request.explicit)
        desc += "-" + "-".join(plugins.names)
    if "ema_kimg" in request.extra:  # it overrides presets of plug-ins
        args["ema_kimg"] = request.extra["ema_kimg"]
    finetune.check_frozen(args, lacking)
    _check_groups(args, request.explicit)
    if args.get("metrics") and not request.dry_run:
        host_metrics.check_metrics(args["metrics"], args["training_set_kwargs"]["path"], args.get("metric_samples"))
    argument_schema.check(args)
    return desc, args


def _configure_plugins(args: Any, plugins: Plugins, explicit: frozenset[str]) -> None:
    """Let each plug-in change the arguments, first those that change data set or batch, then the others in order. A
    plug-in that returns options replaces its options in the run."""
    later = lambda name: not getattr(plugins.catalogue.load(name), "changes_data", False)
    for name in sorted(plugins.names, key=later):
        _set_ada(args, name, getattr(plugins.catalogue.load(name), "ada", "keep"), explicit)
        options = plugins.call(name, "configure", args=args, explicit=explicit)
        if options is not None:
            plugins = plugins.with_options(name, options)
        args["plugins"] = plugins.record()
    if generators.have_module(plugins):
        kwargs = args["G_kwargs"]
        kwargs["host_class"], kwargs["class_name"] = kwargs["class_name"], argument_schema.GENERATOR


def _set_ada(args: Any, who: str, ada: str, explicit: frozenset[str], why: str = "the authors' setting") -> None:
    """Switch off the hosts' default ADA for a loss, or for a plug-in whose authors train without it.

    ADA stays if the user asked for it by --aug, or by an option that needs ADA. Raises OptionError if ADA was asked for
    and is refused."""
    asked = explicit & {"aug", "target", "augpipe"}
    if ada == "keep" or "augment_kwargs" not in args or (ada == "off" and asked):
        return
    if asked:
        flags = ", ".join(f"--{name}" for name in sorted(asked))
        raise OptionError(f"{flags}: {who} does not go with ADA. Leave it out, or give --aug=noaug.")
    for name in ("augment_kwargs", "ada_target", "augment_p"):
        args.pop(name, None)
    give = "" if ada == "refuse" else "; give --aug=ada to train with ADA in front of it"
    print(f"{who}: --aug=noaug, {why}{give}.")


def use_labels(args: Any, plugins: Plugins) -> Labels | None:
    """Let the data set have a plug-in's labels, if a plug-in has any, in this process. Raises PluginError if two
    plug-ins have labels."""
    found = plugins.only("register_labels", args=args)
    if found is not None:
        data = args["training_set_kwargs"]
        data["use_labels"] = True
        labels.use_labels(host_module("dnnlib").util.get_obj_by_name(data["class_name"]), data["path"], found)
    return found


def _set_loss(args: Any, request: Request) -> None:
    """Set the loss and its options. Raises PluginError if our loss is needed and the host's is not NVIDIA's."""
    loss, given = args["loss_kwargs"], request.loss
    if request.d_reg_interval is not None:
        args["D_reg_interval"] = request.d_reg_interval or None
    if request.plugins or given:
        if loss["class_name"] != HOST_LOSS:
            raise PluginError(
                f"This host trains with {loss['class_name']}; plug-ins extend {HOST_LOSS} alone. Train without "
                "--plugin, --gan-loss, --r2, --gradient-penalty, --g-interval and --d-spectral-norm."
            )
        loss["class_name"] = PLUGIN_LOSS
    loss.update({OF_LOSS[name]: value for name, value in given.items()})
    gan_loss = given.get("gan_loss", "nonsaturating")
    if not GAN_LOSSES[gan_loss].signed:
        _set_ada(args, f"--gan-loss={gan_loss}", "off", request.explicit, "since ADA reads signs of logits")


def _check_groups(args: Any, explicit: frozenset[str]) -> None:
    """Raise OptionError if D's minibatch-stddev layer cannot split a GPU's images into its groups."""
    count = args.get("batch_gpu", 0)
    group = args.get("D_kwargs", {}).get("epilogue_kwargs", {}).get("mbstd_group_size", 4)  # the hosts' default is 4
    if group and count and count % min(group, count):
        given = f"--batch-gpu={count}" if "batch_gpu" in explicit else f"--batch={args['batch_size']}"
        raise OptionError(
            f"{given}: a GPU gets {count} images at a time, and D takes groups of {group} (minibatch-stddev). Choose "
            f"--batch or --batch-gpu so that a GPU gets a multiple of {group}."
        )


def adapt(args: dict[str, Any], device: torch.device, of_plugin: Labels | None = None) -> None:
    """Change the training loop's arguments last, in the process that runs it. These changes are not saved.

    of_plugin: labels from `use_labels`, for the data loader's workers; None: labels of the data set"""
    for name in ("G_opt_kwargs", "D_opt_kwargs"):
        if "betas" in args.get(name, {}):  # Adam refuses an int, which remains here without lazy regularisation
            args[name] = type(args[name])(args[name], betas=[float(beta) for beta in args[name]["betas"]])
    loader = args["data_loader_kwargs"] = dict(args.get("data_loader_kwargs", {}))
    if loader.get("num_workers"):
        begin = partial(labels.begin_worker, signals.outlast, of_plugin) if of_plugin else signals.outlast
        loader["worker_init_fn"] = begin
    if device.type == "cpu":
        loader["pin_memory"] = False
        for name in ("G_kwargs", "D_kwargs"):
            defaults.in_single_precision(args[name])
        if args.get("num_gpus", 1) > 1:  # processes share the cores
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // devices.local_processes(args["num_gpus"])))
