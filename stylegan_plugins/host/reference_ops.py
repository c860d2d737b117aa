"""Functions of the hosts on a CPU, in fewer operations of torch: upfirdn2d, bias_act, fully connected layers, modulated
convolutions, and convolutions with a kernel of one pixel. Each takes the host's own, which does all other cases.
Results differ by rounding; derivatives of any order are torch's own.

upfirdn2d inserts up - 1 zeros after each pixel, pads or crops, filters with f, and keeps each down-th pixel. The hosts'
reference implementation does so step by step: it writes the zeros, repeats the filter for each channel, and computes
pixels that it drops. Here a convolution with a stride leaves the dropped pixels out, a transposed one the zeros, and
very small maps are multiplied with one matrix.

Source of the definitions: Karras et al. 2020, Training Generative Adversarial Networks with Limited Data, and the
documentation of scipy.signal.upfirdn."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch.nn import functional

Values = tuple[float, ...]
Pair = tuple[int, int]  # y, x
EXACT = (torch.float32, torch.float64)

# One matrix is used while this many products are enough: there, calls cost more than arithmetic. Measured on one core,
# 16 images of 4x4 to 64x64 pixels, forward and backward: a convolution takes 100 us or more, so many products 90.
PRODUCTS = 2_000_000
PIXEL_WEIGHTS = 32 * 32  # channels in times out, up to which kernels of one pixel gain
MATRIX = 65_536  # elements of a matrix, so that all of a network's stay small


def upfirdn2d(reference: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a host's `_upfirdn2d_ref` with fewer operations for float32 and float64 images on a CPU.

    reference: the host's own, for all other cases"""

    @wraps(reference)
    def resampled(
        x: torch.Tensor,
        f: torch.Tensor | None,
        up: Any = 1,
        down: Any = 1,
        padding: Any = 0,
        flip_filter: bool = False,
        gain: float = 1,
    ) -> torch.Tensor:
        def step_by_step(images: torch.Tensor) -> torch.Tensor:
            return reference(images, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=gain)

        if f is None or f.requires_grad or x.device.type != "cpu" or x.ndim != 4 or x.dtype not in EXACT:
            return step_by_step(x)
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # f is no constant there
            return step_by_step(x)
        taps = (tuple(f.shape), tuple(f.flatten().tolist()))
        ups, downs, pads = _pair(up), _pair(down), _four(padding)
        lengths = zip(x.shape[2:], ups, downs, pads, (f.shape[0], f.shape[-1]), strict=True)
        height, width = ((size * up + sum(pad) - length) // down + 1 for size, up, down, pad, length in lengths)
        if min(height, width, x.numel()) < 1:
            return step_by_step(x)
        elements = x.shape[2] * x.shape[3] * height * width
        if elements <= MATRIX and elements * x.shape[0] * x.shape[1] <= PRODUCTS:
            key = (taps, ups, downs, pads, flip_filter, gain, tuple(x.shape[2:]), x.dtype)
            return _multiplied(x, _matrix(key, step_by_step), (height, width))
        filtered = _filtered(x, taps, ups, downs, pads, not flip_filter, gain)
        return step_by_step(x) if filtered is None else filtered

    return resampled


def _pair(value: Any) -> Pair:
    """Return up or down as factors of y and x; hosts take a number or [x, y]."""
    x, y = (value, value) if isinstance(value, int) else value
    return y, x


def _four(padding: Any) -> tuple[Pair, Pair]:
    """Return padding before and after, of y and of x; hosts take a number, [x, y], or [x0, x1, y0, y1]."""
    if isinstance(padding, int):
        padding = [padding] * 4
    if len(padding) == 2:
        padding = [padding[0], padding[0], padding[1], padding[1]]
    x0, x1, y0, y1 = (int(value) for value in padding)
    return (y0, y1), (x0, x1)


# --- Small maps: one matrix ------------------------------------------------------------------------------------------

_MATRICES: dict[Any, torch.Tensor] = {}


def _matrix(key: Any, step_by_step: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the op as a matrix, [pixels in, pixels out]. It is linear: a row is the result for one pixel of 1."""
    if key not in _MATRICES:
        *_, (height, width), dtype = key
        with torch.inference_mode(False), torch.no_grad():
            pixels = torch.eye(height * width, dtype=dtype).view(-1, 1, height, width)
            _MATRICES[key] = step_by_step(pixels).flatten(1).contiguous()
    return _MATRICES[key]


def _multiplied(x: torch.Tensor, matrix: torch.Tensor, size: Pair) -> torch.Tensor:
    maps = x.reshape(x.shape[0] * x.shape[1], -1)
    return torch.mm(maps, matrix).view(*x.shape[:2], *size)


# --- Convolutions ----------------------------------------------------------------------------------------------------


def _filtered(
    x: torch.Tensor,
    taps: tuple[tuple[int, ...], Values],
    ups: Pair,
    downs: Pair,
    pads: tuple[Pair, Pair],
    flip: bool,
    gain: float,
) -> torch.Tensor | None:
    """Filter with one convolution, or with two for a separable f. None: torch has no convolution for the case."""
    shape, values = taps
    if len(shape) == 2:
        return _convolved(x, (shape, values), ups, downs, pads, flip, gain)
    (length,) = shape
    rows = _convolved(x, ((1, length), values), (1, ups[1]), (1, downs[1]), ((0, 0), pads[1]), flip, math.sqrt(gain))
    if rows is None:
        return None
    return _convolved(rows, ((length, 1), values), (ups[0], 1), (downs[0], 1), (pads[0], (0, 0)), flip, math.sqrt(gain))


def _convolved(
    x: torch.Tensor,
    taps: tuple[tuple[int, ...], Values],
    ups: Pair,
    downs: Pair,
    pads: tuple[Pair, Pair],
    flip: bool,
    gain: float,
) -> torch.Tensor | None:
    channels = x.shape[1]
    if ups == (1, 1):
        weight = _weight(*taps, flip, gain, channels, x.dtype)
        (y0, y1), (x0, x1) = pads
        if y0 == y1 >= 0 and x0 == x1 >= 0:
            return functional.conv2d(x, weight, stride=downs, padding=(y0, x0), groups=channels)
        return functional.conv2d(functional.pad(x, [x0, x1, y0, y1]), weight, stride=downs, groups=channels)
    # y[o] = sum_i x[i] w[o + P - i up]: a transposed convolution with P = taps - 1 - p0, which lacks or has to add
    # p1 - p0 + up - 1 pixels at the end.
    paddings = [length - 1 - before for length, (before, _) in zip(taps[0], pads, strict=True)]
    added = [after - before + up - 1 for up, (before, after) in zip(ups, pads, strict=True)]
    if downs != (1, 1) or min(paddings) < 0 or any(not 0 <= more < up for more, up in zip(added, ups, strict=True)):
        return None
    weight = _weight(*taps, not flip, gain, channels, x.dtype)
    return functional.conv_transpose2d(
        x, weight, stride=ups, padding=tuple(paddings), output_padding=tuple(added), groups=channels
    )


@lru_cache(maxsize=256)
def _weight(
    shape: tuple[int, int], values: Values, flip: bool, gain: float, channels: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return the weight of a convolution that filters each channel alone, [channels, 1, taps, taps]."""
    with torch.inference_mode(False):
        taps = torch.tensor(values, dtype=torch.float32).view(shape) * gain
        return (taps.flip([0, 1]) if flip else taps).to(dtype).expand(channels, 1, *shape).contiguous()


# --- bias_act --------------------------------------------------------------------------------------------------------


def bias_act(reference: Callable[..., torch.Tensor], defaults: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """Return a host's `_bias_act_ref` with fewer operations for the leaky ReLU and for no activation, on a CPU.

    Both are positively homogeneous: gain * act(x + b) = act(gain * x + gain * b), of which the sum is one operation.

    reference: the host's own, for all other cases
    defaults: the host's `activation_funcs`, with `def_alpha` and `def_gain` of each activation"""

    @wraps(reference)
    def activated(
        x: torch.Tensor,
        b: torch.Tensor | None = None,
        dim: int = 1,
        act: str = "linear",
        alpha: float | None = None,
        gain: float | None = None,
        clamp: float | None = None,
    ) -> torch.Tensor:
        gain = float(defaults[act].def_gain if gain is None else gain)
        if b is None or act not in ("linear", "lrelu") or x.device.type != "cpu" or not gain > 0:
            return reference(x=x, b=b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
        assert b.ndim == 1 and 0 <= dim < x.ndim and b.shape[0] == x.shape[dim]
        bias = b.view([-1 if axis == dim else 1 for axis in range(x.ndim)])
        y = x + bias if gain == 1 else torch.add(bias * gain, x, alpha=gain)
        if act == "lrelu":
            y = functional.leaky_relu(y, float(defaults[act].def_alpha if alpha is None else alpha))
        return y if clamp is None or clamp < 0 else y.clamp(-clamp, clamp)

    return activated


# --- Fully connected layers ------------------------------------------------------------------------------------------


def fully_connected(forward: Callable[..., torch.Tensor], bias_act: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Return the `forward` of the hosts' FullyConnectedLayer, act(gain x W^T + b), which scales x and not W on a CPU.

    A mapping network has 512 x 512 weights and a batch 16 x 512 features. x: [N, features].

    forward: the host's own, for other devices, other types and larger batches
    bias_act: the host's"""

    @wraps(forward)
    def scaled(self: Any, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight, self.bias
        if x.device.type != "cpu" or x.dtype != weight.dtype or x.numel() >= weight.numel() or x.ndim != 2:
            return forward(self, x)
        if bias is not None and self.bias_gain != 1:
            bias = bias * self.bias_gain
        x = x * self.weight_gain
        if self.activation == "linear" and bias is not None:
            return functional.linear(x, weight, bias)
        return bias_act(functional.linear(x, weight), bias, act=self.activation)

    return scaled


# --- Modulated convolutions ------------------------------------------------------------------------------------------


def modulated_conv2d(reference: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return the hosts' `modulated_conv2d` for StyleGAN2, which demodulates without a copy of the weights per image.

        d_no = (sum_ik (s_ni w_oik)^2 + eps)^-1/2 = (sum_i s_ni^2 sum_k w_oik^2 + eps)^-1/2

    s: styles, [N, in]; w: weight, [out, in, kernel]; eps: 1e-8 (Karras et al. 2020, Analyzing and Improving the Image
    Quality of StyleGAN, equation 3).

    reference: the host's own, for all but the demodulated, not fused case on a CPU"""

    @wraps(reference)
    def demodulated(
        x: torch.Tensor,
        weight: torch.Tensor,
        styles: torch.Tensor,
        noise: torch.Tensor | None = None,
        demodulate: bool = True,
        fused_modconv: bool = True,
        **resampling: Any,
    ) -> torch.Tensor:
        if not demodulate or fused_modconv or x.device.type != "cpu" or x.dtype != weight.dtype:
            return reference(
                x, weight, styles, noise=noise, demodulate=demodulate, fused_modconv=fused_modconv, **resampling
            )
        energy = styles.square() @ weight.square().sum([2, 3]).t()
        scale = (energy + 1e-8).rsqrt()[:, :, None, None]
        x = reference(x, weight, styles, demodulate=False, fused_modconv=False, **resampling)
        return x * scale if noise is None else torch.addcmul(noise, x, scale)

    return demodulated


def conv2d(reference: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return the hosts' `conv2d_gradfix.conv2d`, with products of matrices for kernels of one pixel on a CPU.

    Measured on one core, 16 images of 4x4 to 32x32 pixels, forward and backward: a third to six sevenths less time.

    reference: the host's own, for all other cases"""

    @wraps(reference)
    def convolved(
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> torch.Tensor:
        single = (
            weight.numel() <= PIXEL_WEIGHTS
            and weight.ndim == 4
            and weight.shape[2:] == (1, 1)
            and groups == 1
            and bias is None
        )
        plain = stride in (1, [1, 1], (1, 1)) and padding in (0, [0, 0], (0, 0)) and dilation in (1, [1, 1], (1, 1))
        if not (single and plain) or input.device.type != "cpu" or input.ndim != 4 or input.dtype not in EXACT:
            return reference(input, weight, bias, stride, padding, dilation, groups)
        matrices = weight.flatten(1).expand(input.shape[0], -1, -1)
        return torch.bmm(matrices, input.flatten(2)).unflatten(2, input.shape[2:])

    return convolved
