"""Replacement of host functions by functions with fewer operations on a CPU (reference_ops.py).

A replacement is first compared with the host's function on some numbers. A function that a fork has changed, or lacks,
stays as it is."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch

from stylegan_plugins.host import reference_ops

# Errors with which a fork's function may fail where ours, or the host's, does not.
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
Trials = list[tuple[tuple[Any, ...], dict[str, Any]]]  # positional and keyword arguments


def upfirdn2d(module: Any) -> None:
    """Replace the reference implementation of torch_utils.ops.upfirdn2d."""
    image, taps = _numbers(2, 3, 5, 5), _numbers(4, 4)
    trials: Trials = [((image, taps), dict(up=2, padding=[2, 1, 2, 1], gain=4))]
    trials += [((image, taps), dict(down=2, padding=1, flip_filter=True)), ((image, taps), dict(padding=2))]
    _replace(module, "_upfirdn2d_ref", reference_ops.upfirdn2d, trials)


def bias_act(module: Any) -> None:
    """Replace the reference implementation of torch_utils.ops.bias_act."""
    trials: Trials = [((_numbers(2, 3, 4, 4), _numbers(3)), dict(act="lrelu", clamp=1))]
    trials += [((_numbers(2, 3), _numbers(3)), {})]
    made = functools.partial(reference_ops.bias_act, defaults=getattr(module, "activation_funcs", {}))
    _replace(module, "_bias_act_ref", made, trials)


def conv2d(module: Any) -> None:
    """Replace conv2d of torch_utils.ops.conv2d_gradfix."""
    trials: Trials = [((_numbers(2, 3, 4, 5), _numbers(4, 3, 1, 1)), {})]
    trials += [((_numbers(2, 4, 4, 5), _numbers(4, 2, 3, 3)), dict(stride=2, padding=1, groups=2))]
    _replace(module, "conv2d", reference_ops.conv2d, trials)


def networks(module: Any) -> None:
    """Replace modulated_conv2d and FullyConnectedLayer.forward of StyleGAN2's networks."""
    convolution = dict(weight=_numbers(4, 3, 3, 3), styles=_numbers(2, 3), noise=_numbers(2, 1, 5, 5), padding=1)
    trials: Trials = [((_numbers(2, 3, 5, 5),), dict(convolution, fused_modconv=False))]
    _replace(module, "modulated_conv2d", reference_ops.modulated_conv2d, trials)
    with torch.random.fork_rng(devices=[]), contextlib.suppress(*FAILURES):
        cls = module.FullyConnectedLayer
        layers = [cls(6, 4, activation=name, lr_multiplier=0.5) for name in ("lrelu", "linear")]
        made = functools.partial(reference_ops.fully_connected, bias_act=module.bias_act.bias_act)
        _replace(cls, "forward", made, [((layer, _numbers(2, 6)), {}) for layer in layers])


def _numbers(*shape: int) -> torch.Tensor:
    """Return fixed numbers in [-2, 2], so that the random numbers of a run stay as they were."""
    return torch.arange(1, math.prod(shape) + 1).mul(1.7).sin().mul(2).view(shape)


def _replace(owner: Any, name: str, made: Callable[[Any], Any], trials: Trials) -> None:
    """Replace a function by `made(function)` if both take the same arguments and give the same results."""
    theirs = getattr(owner, name, None)
    if theirs is None:
        return
    ours = made(theirs)
    if list(inspect.signature(ours, follow_wrapped=False).parameters) != _arguments(theirs):
        return
    with contextlib.suppress(*FAILURES), torch.no_grad():
        if all(_equal(ours(*a, **b), theirs(*a, **b)) for a, b in trials):
            setattr(owner, name, ours)


def _arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's arguments; the hosts' `profiled_function` hides them."""
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    hidden = next(filter(inspect.isfunction, cells), function)
    return list(inspect.signature(hidden).parameters)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.allclose(one, other, rtol=1e-5, atol=1e-5)
