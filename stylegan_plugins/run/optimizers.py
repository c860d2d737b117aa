"""Optimisers of a run: without torch's compiler, restored from a state that may be crafted, and how often they step."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any

import torch

# Values that torch's optimisers keep as one number for each parameter.
SCALARS = ("step", "mu_product", "eta", "ax")


def leave_compiler_out() -> None:
    """Let Adam work without torch's compiler, until something else imports it.

    Methods of torch's optimisers import the compiler in order not to be compiled, which takes almost as long as
    `import torch` (docs/inside/cost.md). Without it nothing is compiled. Call this before the first Adam is made: torch
    wraps `step` then. Other optimisers still import the compiler, at their first step. A torch with other methods is
    left alone."""
    for cls in (torch.optim.Optimizer, torch.optim.Adam):
        for name, method in list(vars(cls).items()):
            if not isinstance(method, FunctionType) or not hasattr(method, "__wrapped__"):
                continue
            if method.__globals__["__name__"] == "torch._compile":
                setattr(cls, name, _until_compiler(method, method.__wrapped__))
            elif (method.__module__, method.__code__.co_name) == ("torch.optim.adam", "_use_grad"):
                setattr(cls, name, _until_compiler(method, _with_gradients_as_told(method.__wrapped__)))


def _until_compiler(method: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is `plain`, and `method` as soon as the compiler is imported."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else plain)(*args, **kwargs)

    return call


def _with_gradients_as_told(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step of an optimiser that records gradients if the optimiser is `differentiable`, and else does not."""

    def call(optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(optimizer.defaults["differentiable"]):
            return step(optimizer, *args, **kwargs)

    return call


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Restore a saved state. Raises ValueError, LookupError, TypeError or AttributeError if it does not belong to this
    optimiser: torch would accept it, and fail in the first step."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in saved["state"].items():
        for name, value in values.items():
            if value is not None and value.shape != (() if name in SCALARS else parameters[index].shape):
                raise ValueError(f"{name} of parameter {index} has another shape")
    if len({frozenset(values) for values in saved["state"].values()}) > 1:
        raise ValueError("moments of some parameters are missing")
    for group, kept in zip(optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True):
        if kept["params"] != group["params"]:
            raise ValueError("the optimiser's parameters are in another order")
        for name, value in group.items():
            fits = _fits(optimizer, kept[name]) if name == "fused" else _alike(value, kept[name])
            if not fits:
                raise ValueError(f"{name} of the optimiser is {kept[name]!r:.50}")
    optimizer.load_state_dict(dict(saved))


def fuse_on_cpu(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Let Adam update all parameters in one call on a CPU, unless it was made with `fused` or `foreach`.

    Results differ by rounding. A training state has the setting, so a resumed run keeps it."""
    for group in (group for optimizer in optimizers if _fusible(optimizer) for group in optimizer.param_groups):
        on_cpu = all(parameter.device.type == "cpu" for parameter in group["params"])
        if on_cpu and group["fused"] is None and group["foreach"] is None and not group["differentiable"]:
            group["fused"] = True


def _fusible(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether one call may update all parameters. The call takes a parameter and its moments as they lie in
    memory, and a training state has contiguous moments."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return type(optimizer) is torch.optim.Adam and all(parameter.is_contiguous() for parameter in parameters)


def _fits(optimizer: torch.optim.Optimizer, kept: Any) -> bool:
    """Return whether an optimiser can step by a saved `fused`: a resumed run keeps its setting."""
    return kept is None or (isinstance(kept, bool) and kept <= _fusible(optimizer))


def spread(phases: Iterable[Any], interval: int) -> None:
    """Let phases of the hosts' loop run less often: every (`phase.interval` * `interval`)-th iteration."""
    if interval > 1:
        for phase in phases:
            phase.interval *= interval


def _alike(value: Any, kept: Any) -> bool:
    """Return whether both are numbers, the saved one in [0, 1e9], or sequences of such numbers, or equal."""
    if isinstance(value, list | tuple):
        return isinstance(kept, list | tuple) and len(kept) == len(value) and all(map(_alike, value, kept))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return isinstance(kept, int | float) and not isinstance(kept, bool) and 0 <= kept <= 1e9
    return bool(value == kept)
