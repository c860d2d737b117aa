"""Repairs of host modules for current Python and PyTorch, made at run time; neither the host's files nor torch change.

Each repair is a function that takes the imported host module. `install()` imports the host modules that have a repair,
and repairs each once. A fork that lacks a module, or has repaired it, stays as it is."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch.torch_version import TorchVersion

from stylegan_plugins.errors import UserError
from stylegan_plugins.host import custom_ops, devices, quicker

_MARK = "_stylegan_plugins_repaired"


def install() -> list[str]:
    """Import and repair the modules of the host on `sys.path`. Return the names of all repaired modules, an empty list
    without a host. Further calls change nothing."""
    if importlib.util.find_spec("torch_utils") is None or importlib.util.find_spec("dnnlib") is None:
        return []
    with _stand_ins():
        for name, repair in _REPAIRS.items():
            try:
                module = importlib.import_module(name)
            except ModuleNotFoundError as error:
                if name in _OPTIONAL or (error.name is not None and name.startswith(error.name)):
                    continue  # this family, or this fork, has no such module, or its networks need another package
                raise
            if not getattr(module, _MARK, False):
                repair(module)
                setattr(module, _MARK, True)
    return [name for name in _REPAIRS if getattr(sys.modules.get(name), _MARK, False)]


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Provide `pkg_resources.parse_version` (stylegan3) and `distutils.util.strtobool` (dnnlib) while the host is
    imported. Newer Python or setuptools no longer include these modules. Other code does not see the stand-ins."""
    with contextlib.suppress(ImportError):
        import setuptools  # noqa: F401  provides distutils on newer Pythons, and complains about another
    made: dict[str, types.ModuleType] = {}
    for name, attributes in (
        ("pkg_resources", {"parse_version": TorchVersion}),
        ("distutils", {}),
        ("distutils.util", {"strtobool": _strtobool}),
    ):
        with contextlib.suppress(ModuleNotFoundError):
            if name in sys.modules or importlib.util.find_spec(name):
                continue
        sys.modules[name] = made[name] = types.ModuleType(name)
        vars(made[name]).update(attributes)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
            yield
    finally:
        for name, module in made.items():
            if sys.modules.get(name) is module:  # setuptools, if imported meanwhile, has put its distutils there
                del sys.modules[name]


def _strtobool(text: str) -> int:
    if text.lower() in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if text.lower() in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"invalid truth value {text!r}")


# --- dnnlib.util ----------------------------------------------------------------------------------------------------


def _repair_util(util: Any) -> None:
    """Let the logger write log.txt as UTF-8, with escapes for characters that UTF-8 lacks. The encoding of the locale
    may lack printed characters, for example in the name of a folder."""

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        text = {} if "b" in mode or args else {"encoding": "utf-8", "errors": "backslashreplace"}
        return open(file, mode, *args, **{**text, **kwargs})

    util.open = opened


# --- torch_utils.misc ----------------------------------------------------------------------------------------------


def _repair_misc(misc: Any) -> None:
    if misc.InfiniteSampler.__bases__ == (torch.utils.data.Sampler,):
        misc.InfiniteSampler.__bases__ = (_Sampler,)
    misc.print_module_summary = _keeping_buffers(misc.print_module_summary)
    misc.copy_params_and_buffers = _without_broadcasting(misc.copy_params_and_buffers, misc.named_params_and_buffers)


class _Sampler(torch.utils.data.Sampler):
    """A Sampler whose constructor takes the data set, as torch's did when the hosts were written. Today's raises
    TypeError for it."""

    def __init__(self, data_source: object = None) -> None:
        super().__init__()


def _keeping_buffers(print_module_summary: Callable) -> Callable:
    """Restore the buffers after the summary, which runs G in training mode on uninitialised memory and so changes
    `w_avg`."""

    @wraps(print_module_summary)
    def repaired(module: torch.nn.Module, *args: object, **kwargs: object) -> object:
        before = [(buffer, buffer.clone()) for buffer in module.buffers()]
        try:
            return print_module_summary(module, *args, **kwargs)
        finally:
            with torch.no_grad():
                for buffer, value in before:
                    buffer.copy_(value)

    return repaired


def _without_broadcasting(copy_params_and_buffers: Callable, named_tensors: Callable) -> Callable:
    """Refuse tensors of another shape and tensors without a counterpart. The host broadcasts the former and silently
    drops the latter: a pickle with 8 mapping layers loads into 2."""

    @wraps(copy_params_and_buffers)
    def repaired(src_module: torch.nn.Module, dst_module: torch.nn.Module, *args: object, **kwargs: object) -> object:
        target = {name: tuple(tensor.shape) for name, tensor in named_tensors(dst_module)}
        source = {name: tuple(tensor.shape) for name, tensor in named_tensors(src_module)}
        weights = {name for name, _ in src_module.named_parameters()}
        misfits = [
            f"{name} is {list(shape)} in the pickle and {list(target[name])} here"
            for name, shape in source.items()
            if name in target and target[name] != shape
        ]
        misfits += [f"{name} has no place here" for name in source if name in weights and name not in target]
        if misfits:
            more = f" (and {len(misfits) - 3} more)" if len(misfits) > 3 else ""
            raise UserError(
                f"The pickle's {type(src_module).__name__} does not fit the network to be trained: "
                f"{'; '.join(misfits[:3])}{more}. Give the options it was trained with (resolution, --cfg, --cbase, "
                "--cmax, --cond, mapping depth)."
            )
        return copy_params_and_buffers(src_module, dst_module, *args, **kwargs)

    return repaired


# --- torch_utils.training_stats ------------------------------------------------------------------------------------


def _repair_training_stats(training_stats: Any) -> None:
    """Exchange statistics on the CPU in a process without a GPU. The scripts name a CUDA device."""
    init = training_stats.init_multiprocessing

    @wraps(init)
    def repaired(rank: int, sync_device: torch.device | None) -> None:
        if sync_device is not None:
            sync_device = torch.device("cpu") if torch.distributed.get_backend() == "gloo" else devices.device(rank)
        init(rank=rank, sync_device=sync_device)

    training_stats.init_multiprocessing = repaired


# --- torch_utils.persistence ---------------------------------------------------------------------------------------


def _repair_persistence(persistence: Any) -> None:
    """Let networks that are unpickled for a CPU use float32. Half precision is slow and inexact there."""

    def float32_on_cpu(meta: dict) -> dict:
        if devices.device().type == "cpu" and meta["state"].get("use_fp16") is True:
            meta["state"]["use_fp16"] = False
        return meta

    persistence.import_hook(float32_on_cpu)


# --- torch_utils.custom_ops and the ops that use it ----------------------------------------------------------------


def _repair_custom_ops(module: Any) -> None:
    """Replace get_plugin, which compiles an op and then imports it by name. Current PyTorch does not allow this."""

    def get_plugin(*args: Any, **kwargs: Any) -> types.ModuleType:
        return custom_ops.get_plugin(*args, verbosity=module.verbosity, **kwargs)

    module.get_plugin = get_plugin


def _repair_op(module: Any) -> None:
    """Report once why an op cannot be built, and use the reference implementation. Without this repair one family warns
    on every call, and the other ends with an error."""
    init = module._init

    def loud_init() -> bool:
        if module._plugin is None and custom_ops.reason(f"{module.__name__.split('.')[-1]}_plugin") is None:
            with contextlib.suppress(custom_ops.BuildError), warnings.catch_warnings():  # get_plugin has reported it
                warnings.filterwarnings("ignore", "Failed to build CUDA kernels")
                init()
        return module._plugin is not None

    module._init = loud_init


def _repair_upfirdn2d(module: Any) -> None:
    _repair_op(module)
    quicker.upfirdn2d(module)


def _repair_bias_act(module: Any) -> None:
    _repair_op(module)
    quicker.bias_act(module)


# --- gradient fixes ------------------------------------------------------------------------------------------------


def _repair_conv2d_gradfix(module: Any) -> None:
    """Use torch's conv2d instead of the host's replacement. The replacement supports torch 1.7 to 1.9 only, and warns
    on every call with others. Since 1.11 torch itself skips weight gradients that are not needed, which was the purpose
    of the replacement."""
    module._should_use_custom_op = lambda input: False
    if "disable" not in inspect.signature(module.no_weight_gradients).parameters:
        no_weight_gradients = module.no_weight_gradients

        def repaired(disable: bool = True) -> contextlib.AbstractContextManager:
            return no_weight_gradients() if disable else contextlib.nullcontext()

        module.no_weight_gradients = repaired
    quicker.conv2d(module)


def _repair_grid_sample_gradfix(module: Any) -> None:
    """Use torch's grid_sample, as for conv2d, or `GridSample` if torch's has no second derivative, which ADA's R1 step
    needs, and the grid needs no gradient."""
    native = grid_sample_has_second_derivative()

    def repaired(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return _grid_sample(input, grid) if native or grid.requires_grad else GridSample.apply(input, grid)

    module.grid_sample = repaired


def _grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def grid_sample_has_second_derivative() -> bool:
    """Try a second derivative of grid_sample with this torch, on a 2x2 image."""
    image = torch.ones([1, 1, 2, 2], requires_grad=True)
    gradient = torch.autograd.grad(
        _grid_sample(image, torch.zeros([1, 2, 2, 2])).square().sum(), image, create_graph=True
    )[0]
    try:
        gradient.sum().backward()
    except RuntimeError:
        return False
    return True


class GridSample(torch.autograd.Function):
    """Bilinear sampling, zero padding, corners not aligned, with derivatives of any order by the image.

    Sampling is linear in the image, so the backward of its backward is sampling again. The grid gets no gradient."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = input.shape
        return _grid_sample(input, grid)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        return GridSampleTransposed.apply(grad_output, grid, ctx.shape), None


class GridSampleTransposed(torch.autograd.Function):
    """The transpose of GridSample: scatters a gradient of the output to the pixels that were read."""

    @staticmethod
    def forward(ctx: Any, grad_output: torch.Tensor, grid: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        ctx.save_for_backward(grid)
        image = grad_output.new_zeros(shape)
        return torch.ops.aten.grid_sampler_2d_backward(grad_output, image, grid, 0, 0, False, [True, False])[0]

    @staticmethod
    def backward(ctx: Any, grad_image: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return GridSample.apply(grad_image, grid), None, None


_OPTIONAL = ("training.networks", "training.networks_stylegan2")  # repaired only for speed
_REPAIRS: dict[str, Callable[[Any], None]] = {
    "dnnlib.util": _repair_util,
    "torch_utils.misc": _repair_misc,
    "torch_utils.training_stats": _repair_training_stats,
    "torch_utils.persistence": _repair_persistence,
    "torch_utils.custom_ops": _repair_custom_ops,
    "torch_utils.ops.bias_act": _repair_bias_act,
    "torch_utils.ops.upfirdn2d": _repair_upfirdn2d,
    "torch_utils.ops.filtered_lrelu": _repair_op,
    "torch_utils.ops.conv2d_gradfix": _repair_conv2d_gradfix,
    "torch_utils.ops.grid_sample_gradfix": _repair_grid_sample_gradfix,
    "training.networks": quicker.networks,
    "training.networks_stylegan2": quicker.networks,
}
