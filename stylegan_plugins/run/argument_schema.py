"""A schema for the arguments of a training loop: names, types and ranges. It checks the arguments of a new run before
the run's folder is made, and a training_options.json from elsewhere before anything is built from it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import Meta, Struct, field

from stylegan_plugins.errors import OptionError
from stylegan_plugins.host.limits import LARGEST
from stylegan_plugins.host.modules import host_directory, host_module
from stylegan_plugins.manager import Plugins
from training_ext.gan_losses import GAN_LOSSES

Count = Annotated[int, Meta(ge=1, le=2**31)]
# The limit of the pickle reader, which must be able to read a snapshot of the run.
Width = Annotated[int, Meta(ge=1, le=LARGEST["z_dim"])]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]


class NamedArguments(Struct):
    class_name: Text = ""


class DataArguments(NamedArguments):
    path: Text = ""
    use_labels: bool = False
    xflip: bool = False
    max_size: Count | None = None
    resolution: Annotated[int, Meta(ge=4, le=LARGEST["img_resolution"])] | None = None


class LoaderArguments(Struct):
    num_workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    prefetch_factor: Annotated[int, Meta(ge=1, le=1024)] | None = None


class MappingArguments(Struct):
    num_layers: Annotated[int, Meta(ge=1, le=LARGEST["num_layers"])] = 8


class ChannelArguments(Struct):
    channel_base: Annotated[int, Meta(ge=1, le=LARGEST["channel_base"])] = 2**15
    channel_max: Width = 512
    num_fp16_res: Annotated[int, Meta(ge=0, le=LARGEST["num_fp16_res"])] = 0
    conv_clamp: Positive | None = None
    use_noise: bool = True


class EpilogueArguments(Struct):
    mbstd_group_size: Annotated[int, Meta(ge=1, le=LARGEST["mbstd_group_size"])] | None = None
    mbstd_num_channels: Annotated[int, Meta(ge=0, le=LARGEST["mbstd_num_channels"])] = 1


class GeneratorArguments(ChannelArguments, kw_only=True):
    class_name: Text = ""
    z_dim: Width = 512
    w_dim: Width = 512
    mapping_kwargs: MappingArguments = field(default_factory=MappingArguments)
    synthesis_kwargs: ChannelArguments = field(default_factory=ChannelArguments)


class DiscriminatorArguments(ChannelArguments, kw_only=True):
    class_name: Text = ""
    mapping_kwargs: MappingArguments = field(default_factory=MappingArguments)
    epilogue_kwargs: EpilogueArguments = field(default_factory=EpilogueArguments)


class OptimizerArguments(NamedArguments):
    lr: NotNegative = 1e-3
    betas: Annotated[list[Annotated[float, Meta(ge=0, lt=1)]], Meta(min_length=2, max_length=2)] | None = None
    eps: Positive = 1e-8


class LossArguments(NamedArguments):
    r1_gamma: NotNegative = 10
    r2_gamma: NotNegative = 0
    gradient_penalty: NotNegative = 0
    d_spectral_norm: bool = False
    g_interval: Count = 1
    gan_loss: Literal[tuple(GAN_LOSSES)] = "nonsaturating"  # type: ignore[valid-type]
    pl_weight: NotNegative = 2
    style_mixing_prob: Share = 0
    blur_init_sigma: NotNegative = 0
    blur_fade_kimg: NotNegative = 0


class FileOfPlugin(Struct):
    path: Text
    sha256: Text
    hooks: Annotated[list[Text], Meta(max_length=100)] | None = None  # None: of a run by an older version


class PluginArguments(Struct):
    active: Annotated[list[Text], Meta(max_length=100)] = field(default_factory=list)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    presets: dict[str, Text] = field(default_factory=dict)
    files: dict[str, FileOfPlugin] = field(default_factory=dict)


class PicturesArguments(Struct):
    source: Text = ""
    size: Count | None = None
    crop: Text = ""
    colors: Text = ""
    stretch: bool = False


class Arguments(Struct, kw_only=True):
    """Arguments of both host families, and our arguments of `bridge.run`. A host or a fork may have more: its training
    loop's parameters name them, and every number in them must be finite."""

    run_dir: Text = "."
    training_set_kwargs: DataArguments = field(default_factory=DataArguments)
    data_loader_kwargs: LoaderArguments = field(default_factory=LoaderArguments)
    G_kwargs: GeneratorArguments = field(default_factory=GeneratorArguments)
    D_kwargs: DiscriminatorArguments = field(default_factory=DiscriminatorArguments)
    G_opt_kwargs: OptimizerArguments = field(default_factory=OptimizerArguments)
    D_opt_kwargs: OptimizerArguments = field(default_factory=OptimizerArguments)
    augment_kwargs: NamedArguments | None = None
    loss_kwargs: LossArguments = field(default_factory=LossArguments)
    metrics: Annotated[list[Text], Meta(max_length=100)] = field(default_factory=list)
    random_seed: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    num_gpus: Annotated[int, Meta(ge=1, le=1024)] = 1
    batch_size: Annotated[int, Meta(ge=1, le=2**16)] = 1
    batch_gpu: Annotated[int, Meta(ge=1, le=2**16)] = 1
    ema_kimg: NotNegative = 10
    ema_rampup: NotNegative | None = None
    G_reg_interval: Count | None = None
    D_reg_interval: Count | None = None
    augment_p: Share = 0
    ada_target: Share | None = None
    ada_interval: Count = 4
    ada_kimg: Positive = 500
    total_kimg: Positive = 1
    kimg_per_tick: Positive = 4
    image_snapshot_ticks: Count | None = None
    network_snapshot_ticks: Count | None = None
    resume_pkl: str | None = None
    cudnn_benchmark: bool = True
    allow_tf32: bool = False
    plugins: PluginArguments = field(default_factory=PluginArguments)
    device: Text = "auto"
    host: Text = "."
    state_minutes: Positive = 10
    keep_states: Count = 2
    metric_samples: Count | None = None
    on_nan: Literal["stop", "warn"] = "stop"
    image_minutes: NotNegative | None = None
    no_report: bool = False
    cache: Literal["auto", "off", "ram"] = "auto"
    trust_pickle: bool = False
    pictures: PicturesArguments | None = None
    class_names: Annotated[list[Text], Meta(max_length=1 << 16)] = field(default_factory=list)


GENERATOR = "stylegan_plugins.bridge.generator"  # the host's G with a module of a plug-in
DEPTH = 12  # levels of nested arguments
# Arguments that every run has. Those in CLASSES name a class.
CLASSES = ("training_set_kwargs", "G_kwargs", "D_kwargs", "G_opt_kwargs", "D_opt_kwargs", "loss_kwargs")
REQUIRED = (*CLASSES, "data_loader_kwargs", "batch_size", "batch_gpu", "total_kimg")
# The option of each argument, to name in errors.
FLAGS = {
    "loss_kwargs.r1_gamma": "--gamma",
    "loss_kwargs.r2_gamma": "--r2",
    "loss_kwargs.gradient_penalty": "--gradient-penalty",
    "loss_kwargs.g_interval": "--g-interval",
    "random_seed": "--seed",
    "total_kimg": "--kimg",
    "batch_size": "--batch",
    "batch_gpu": "--batch-gpu",
    "num_gpus": "--gpus",
    "augment_p": "--p",
    "ada_target": "--target",
    "kimg_per_tick": "--tick",
    "image_snapshot_ticks": "--snap",
    "state_minutes": "--state-minutes",
    "image_minutes": "--image-minutes",
    "G_kwargs.channel_base": "--cbase",
    "G_kwargs.synthesis_kwargs.channel_base": "--cbase",
    "G_kwargs.channel_max": "--cmax",
    "G_kwargs.synthesis_kwargs.channel_max": "--cmax",
    "G_opt_kwargs.lr": "--glr",
    "D_opt_kwargs.lr": "--dlr",
}


def check(args: Mapping[str, Any], where: str = "") -> None:
    """Raise OptionError, in one line, if arguments of a training loop are not valid.

    where: beginning of the message; empty for arguments of this command line, which are named by option"""
    try:
        for path, number in _numbers(args):
            if not -(2**53) <= number <= 2**53:  # false for NaN, too
                raise msgspec.ValidationError(f"Expected a finite number - at `$.{path}`")
        msgspec.convert(args, Arguments)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at `$")
        name = path.rstrip("`").removeprefix(".")
        value: Any = args
        for key in name.split(".") if name else ():
            value = value.get(key) if isinstance(value, Mapping) else value
        name = name.encode("unicode_escape").decode()  # a key may have line breaks
        flag = None if where else FLAGS.get(name)
        shown = f"{flag}={value}" if flag else f"{name or 'it'} is {value!r:.60}"
        raise OptionError(f"{where}{shown}: expected {said.removeprefix('Expected ').replace('`', '')}.") from error


def check_names(args: Mapping[str, Any], plugins: Plugins, where: str) -> None:
    """Raise OptionError for an argument that neither the host's training loop nor `bridge.run` has, and for a class
    from elsewhere than the host, this package, an active plug-in or torch's optimisers: the run would call it."""
    training_loop = host_module("training.training_loop").training_loop
    for name in REQUIRED:
        if args.get(name) is None or (name in CLASSES and not args[name].get("class_name")):
            raise OptionError(f"{where}{name} is missing, or has no class_name.")
    if not args["training_set_kwargs"].get("path"):
        raise OptionError(f"{where}training_set_kwargs.path, of the data set, is missing.")
    known = {*inspect.signature(training_loop).parameters, *Arguments.__struct_fields__}
    unknown = sorted(map(str, set(args) - known))
    if unknown:
        raise OptionError(f"{where}this host's training loop has no argument {unknown[0]!r}.")
    for path, name in _classes(args):
        if not (isinstance(name, str) and _is_known_class(name, plugins)):
            raise OptionError(
                f"{where}{path} is {name!r:.60}, which is not a class of this host or of stylegan-plugins."
            )


def _is_known_class(name: str, plugins: Plugins) -> bool:
    if name == GENERATOR:
        return True
    module_name, _, class_name = name.rpartition(".")
    modules = (plugins.catalogue.load(plugin) for plugin in plugins.names)
    of_plugins = {getattr(module, "__name__", type(module).__module__).split(".")[0] for module in modules}
    if module_name.split(".")[0] in (of_plugins | {"training_ext"}) - {"stylegan_plugins"}:
        found = getattr(sys.modules.get(module_name) or _imported(module_name), class_name, None)
        return callable(found) and found.__module__ == module_name  # defined there, not imported, as os.system may be
    if module_name == "torch.optim":
        cls = getattr(torch.optim, class_name, None)
        return inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
    file = host_directory().joinpath(*module_name.split(".")).with_suffix(".py")
    if not all(part.isidentifier() for part in name.split(".")) or "." not in module_name or not file.is_file():
        return False
    found = getattr(host_module(module_name), class_name, None)
    # Defined in the module, not imported. The hosts' persistent classes are made elsewhere; their bases are in the
    # module.
    return inspect.isclass(found) and any(base.__module__ == module_name for base in found.__mro__)


def _imported(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ImportError:
        return None


def _numbers(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """Yield all numbers, nested or not, with their paths."""
    if depth > DEPTH:
        raise msgspec.ValidationError(f"Expected at most {DEPTH} levels - at `$.{path.split('.')[0]}`")
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _numbers(item, f"{path}.{key}" if path else str(key), depth + 1)


def _classes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items() if isinstance(value, Mapping) else ():
        where = f"{path}.{key}" if path else str(key)
        if key in ("class_name", "host_class", "func_name"):
            yield where, item
        yield from _classes(item, where)
