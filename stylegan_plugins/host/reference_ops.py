"""Functions of the hosts with fewer operations on a CPU: upfirdn2d, bias_act, fully connected layers, modulated
convolutions, and convolutions with a kernel of one pixel. Each takes the host's function and calls it for all other
cases. Results differ by rounding; torch computes derivatives of any order.

upfirdn2d inserts up - 1 zeros after each pixel, pads or crops, filters with f, and keeps each down-th pixel. The hosts'
reference implementation does so step by step: it writes the zeros, repeats the filter for each channel, and computes
pixels that it drops. Here a convolution with a stride skips the dropped pixels, a transposed convolution skips the
zeros, and very small maps are multiplied with one matrix.

Source of the definitions: Karras et al. 2020, Training Generative Adversarial Networks with Limited Data, and the
documentation of scipy.signal.upfirdn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, NamedTuple

import torch
from torch.nn import functional

Pair = tuple[int, int]  # y, x
EXACT = (torch.float32, torch.float64)

# One matrix is used up to this many products, where calls cost more than arithmetic. Measured on one core, 16 images of
# 4x4 to 64x64 pixels, forward and backward: a convolution takes 100 us or more, this many products take 90 us.
PRODUCTS = 2_000_000
MATRIX = 65_536  # largest number of elements of a matrix, so that all matrices of a network stay small
PIXEL_PRODUCTS = 16 * 32 * 32  # images times weights up to which matrices are faster for a kernel of one pixel


class Filter(NamedTuple):
    """A filter, with the way to apply it.

    shape, values  taps, [y, x], or [taps] of a separable filter
    ups, downs     factors of y and x
    pads           pixels before and after, of y and of x
    flip           whether correlation needs the taps in reverse order"""

    shape: tuple[int, ...]
    values: tuple[float, ...]
    ups: Pair
    downs: Pair
    pads: tuple[Pair, Pair]
    flip: bool
    gain: float


def upfirdn2d(reference: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a host's `_upfirdn2d_ref` with fewer operations for contiguous float32 and float64 images on a CPU.

    reference: the host's function, for all other cases"""

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

        if f is None or f.requires_grad or x.ndim != 4 or not _usual(x, f):
            return step_by_step(x)
        ups, downs, pads = _pair(up), _pair(down), _four(padding)
        case = Filter(tuple(f.shape), tuple(f.flatten().tolist()), ups, downs, pads, not flip_filter, gain)
        lengths = zip(x.shape[2:], ups, downs, pads, (f.shape[0], f.shape[-1]), strict=True)
        height, width = ((size * up + sum(pad) - length) // down + 1 for size, up, down, pad, length in lengths)
        if min(height, width, x.numel()) < 1:
            return step_by_step(x)
        elements = x.shape[2] * x.shape[3] * height * width
        if elements <= MATRIX and elements * x.shape[0] * x.shape[1] <= PRODUCTS:
            return _multiplied(x, _matrix(case, (x.shape[2], x.shape[3]), x.dtype, step_by_step), (height, width))
        filtered = _filtered(x, case)
        return step_by_step(x) if filtered is None else filtered

    return resampled


def _usual(*tensors: torch.Tensor) -> bool:
    """Return whether tensors are float32 or float64, contiguous and on a CPU. False while torch traces or exports,
    since a trace must also hold for other sizes and filters."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return all(
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype in EXACT
        and tensor.is_contiguous()
        for tensor in tensors
    )


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


@contextmanager
def _apart() -> Iterator[None]:
    """A context for making a cached constant, independent of the modes of torch at its first use."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


# --- Small maps: one matrix ------------------------------------------------------------------------------------------

_MATRICES: dict[Any, torch.Tensor] = {}


def _matrix(
    case: Filter, size: Pair, dtype: torch.dtype, step_by_step: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return the op as a matrix, [pixels in, pixels out]. The op is linear, so a row is its result for a single pixel
    of 1."""
    key = (case, size, dtype)
    if key not in _MATRICES:
        with _apart():
            pixels = torch.eye(math.prod(size), dtype=dtype, device="cpu").view(-1, 1, *size)
            _MATRICES[key] = step_by_step(pixels).flatten(1).contiguous()
    return _MATRICES[key]


def _multiplied(x: torch.Tensor, matrix: torch.Tensor, size: Pair) -> torch.Tensor:
    maps = x.reshape(x.shape[0] * x.shape[1], -1)
    return torch.mm(maps, matrix).view(*x.shape[:2], *size)


# --- Convolutions ----------------------------------------------------------------------------------------------------


def _filtered(x: torch.Tensor, case: Filter) -> torch.Tensor | None:
    """Filter with one convolution, or with two for a separable f. None: torch has no convolution for the case."""
    if len(case.shape) == 2:
        return _convolved(x, case)
    (length,), (upy, upx), (downy, downx), (pady, padx) = case.shape, case.ups, case.downs, case.pads
    part = case._replace(gain=math.sqrt(case.gain))
    rows = _convolved(x, part._replace(shape=(1, length), ups=(1, upx), downs=(1, downx), pads=((0, 0), padx)))
    if rows is None:
        return None
    return _convolved(rows, part._replace(shape=(length, 1), ups=(upy, 1), downs=(downy, 1), pads=(pady, (0, 0))))


def _convolved(x: torch.Tensor, case: Filter) -> torch.Tensor | None:
    channels, ups, downs, (pady, padx) = x.shape[1], case.ups, case.downs, case.pads
    if ups == (1, 1):
        weight = _weight(case.shape, case.values, case.flip, case.gain, channels, x.dtype)
        if pady[0] == pady[1] >= 0 and padx[0] == padx[1] >= 0:
            return functional.conv2d(x, weight, stride=downs, padding=(pady[0], padx[0]), groups=channels)
        return functional.conv2d(functional.pad(x, [*padx, *pady]), weight, stride=downs, groups=channels)
    # y[o] = sum_i x[i] w[o + P - i up]: a transposed convolution with P = taps - 1 - p0, with p1 - p0 + up - 1 pixels
    # more or fewer at the end.
    paddings = [length - 1 - before for length, (before, _) in zip(case.shape, case.pads, strict=True)]
    added = [after - before + up - 1 for up, (before, after) in zip(ups, case.pads, strict=True)]
    if downs != (1, 1) or min(paddings) < 0 or any(not 0 <= more < up for more, up in zip(added, ups, strict=True)):
        return None
    weight = _weight(case.shape, case.values, not case.flip, case.gain, channels, x.dtype)
    return functional.conv_transpose2d(
        x, weight, stride=ups, padding=tuple(paddings), output_padding=tuple(added), groups=channels
    )


@lru_cache(maxsize=256)
def _weight(
    shape: tuple[int, ...], values: tuple[float, ...], flip: bool, gain: float, channels: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return the weight of a convolution that filters each channel separately, [channels, 1, taps, taps]."""
    with _apart():
        taps = torch.tensor(values, dtype=torch.float32, device="cpu").view(shape) * gain
        return (taps.flip([0, 1]) if flip else taps).to(dtype).expand(channels, 1, *shape).contiguous()


# --- bias_act --------------------------------------------------------------------------------------------------------


def bias_act(reference: Callable[..., torch.Tensor], defaults: dict[str, Any]) -> Callable[..., torch.Tensor]:
    """Return a host's `_bias_act_ref` with fewer operations for the leaky ReLU and for no activation, on a CPU.

    Both are positively homogeneous: gain * act(x + b) = act(gain * x + gain * b), and the sum is one operation.

    reference: the host's function, for all other cases
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
        if b is None or act not in ("linear", "lrelu") or not _usual(x, b) or not gain > 0:
            return reference(x=x, b=b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
        assert clamp is None or clamp >= 0
        assert b.ndim == 1 and 0 <= dim < x.ndim and b.shape[0] == x.shape[dim]
        bias = b.view([-1 if axis == dim else 1 for axis in range(x.ndim)])
        y = x + bias if gain == 1 else torch.add(bias * gain, x, alpha=gain)
        if act == "lrelu":
            y = functional.leaky_relu(y, float(defaults[act].def_alpha if alpha is None else alpha))
        return y if clamp is None else y.clamp(-clamp, clamp)

    return activated


# --- Fully connected layers ------------------------------------------------------------------------------------------


def fully_connected(forward: Callable[..., torch.Tensor], bias_act: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Return the `forward` of the hosts' FullyConnectedLayer, act(gain x W^T + b), which scales x and not W on a CPU.

    x is smaller: a mapping network has 512 x 512 weights, a batch 16 x 512 features. x: [N, features].

    forward: the host's function, for other devices, other types and larger batches
    bias_act: the host's"""

    @wraps(forward)
    def scaled(self: Any, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight, self.bias
        if not _usual(x, weight) or x.dtype != weight.dtype or x.ndim != 2 or x.numel() >= weight.numel():
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
    """Return the hosts' `modulated_conv2d` for StyleGAN2, which demodulates without copying the weights for each image.

        d_no = (sum_ik (s_ni w_oik)^2 + eps)^-1/2 = (sum_i s_ni^2 sum_k w_oik^2 + eps)^-1/2

    s: styles, [N, in]; w: weight, [out, in, kernel]; eps: 1e-8 (Karras et al. 2020, Analyzing and Improving the Image
    Quality of StyleGAN, equation 3).

    reference: the host's function, for all cases but the demodulated, not fused one on a CPU"""

    @wraps(reference)
    def demodulated(
        x: torch.Tensor,
        weight: torch.Tensor,
        styles: torch.Tensor,
        noise: torch.Tensor | None = None,
        up: int = 1,
        down: int = 1,
        padding: Any = 0,
        resample_filter: torch.Tensor | None = None,
        demodulate: bool = True,
        flip_weight: bool = True,
        fused_modconv: bool = True,
    ) -> torch.Tensor:
        where = dict(up=up, down=down, padding=padding, resample_filter=resample_filter, flip_weight=flip_weight)
        if not demodulate or fused_modconv or not _usual(x, weight, styles) or x.dtype != weight.dtype:
            how = dict(noise=noise, demodulate=demodulate, fused_modconv=fused_modconv)
            return reference(x, weight, styles, **how, **where)
        energy = styles.square() @ weight.square().sum([2, 3]).t()
        scale = (energy + 1e-8).rsqrt()[:, :, None, None]
        x = reference(x, weight, styles, demodulate=False, fused_modconv=False, **where)
        return x * scale if noise is None else torch.addcmul(noise.to(x.dtype), x, scale)

    return demodulated


def conv2d(reference: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return the hosts' `conv2d_gradfix.conv2d`, with products of matrices for small kernels of one pixel on a CPU.

    Measured on one core, 16 images of 4x4 to 16x16 pixels, forward and backward: with 3 and 32 channels a third to six
    sevenths less time. More channels take longer, since each image has a gradient of the weight.

    reference: the host's function, for all other cases"""

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
        single = weight.ndim == 4 and weight.shape[2:] == (1, 1) and groups == 1 and bias is None
        plain = stride in (1, [1, 1], (1, 1)) and padding in (0, [0, 0], (0, 0)) and dilation in (1, [1, 1], (1, 1))
        usual = _usual(input, weight) and input.ndim == 4  # before sizes, on which a trace must not depend
        if not (usual and single and plain) or input.shape[0] * weight.numel() > PIXEL_PRODUCTS:
            return reference(input, weight, bias, stride, padding, dilation, groups)
        matrices = weight.flatten(1).expand(input.shape[0], -1, -1)
        return torch.bmm(matrices, input.flatten(2)).unflatten(2, input.shape[2:])

    return convolved
