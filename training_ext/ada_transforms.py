"""The transformations of ADA for policies of DiffAugment, with the drawn parameters of each.

Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, "Training Generative Adversarial Networks with Limited Data" (NeurIPS
2020, arXiv:2006.06676), appendix B. The groups and the order of draws are the same as in AdaAugment of
PyTorch-StudioGAN, which lists them as augmentations of DiffAugment. Here each group is applied separately. StudioGAN
and the hosts' pipe resample ``blit`` and ``geom`` at once, so they mirror at the border of the original image and not
of the shifted one.

``sample`` draws the parameters as they are used. ``normalized`` maps them to [0, 1], for terms that learn them. Normal
parameters are mapped by their distribution function, to 1/2 where nothing changes.

Symbols: N images x [N, C, H, W], C 1 or 3; p the probability of each transformation; z standard normal; Phi its
distribution function. Everything is differentiable twice with respect to the images."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import conv2d, pad

# Width of omega: flip, quarter turns, shift (rows, columns); scale, angle, stretch, angle, shift (rows, columns);
# brightness, contrast, luma flip, hue, saturation; four bands; sigma; applied or not, centre (rows, columns).
ADA_GROUPS = {"ada-blit": 4, "ada-geom": 6, "ada-color": 5, "ada-filter": 4, "ada-noise": 1, "ada-cutout": 3}

SHIFT = 0.125  # image sides: the largest whole-pixel shift, and the deviation of a fractional one
SCALE_STD = ANISO_STD = 0.2  # of log2
BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5  # of log2
SATURATION_STD = FILTER_STD = 1.0  # of log2
NOISE_STD = 0.1
HOLE = 0.5  # image sides
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of natural images, 1/f

# Scaling filters of the least asymmetric Daubechies wavelets with 2 and 6 vanishing moments.
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466),
    *(0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578),
    *(0.0017677118642428036, -0.007800708325034148),
)

Drawn = torch.Tensor  # [N, K], what a group applies


def sample(group: str, n: int, p: float, device: torch.device | None = None, color: bool = True) -> Drawn:
    """Draw the parameters of a group, [n, K] in the order of ADA_GROUPS, except for shifts: columns before rows.

    Calls of torch.rand and torch.randn have StudioGAN's order and shapes, so a seed gives the same images as there.
    color: whether images have three channels; other images draw neither hue nor saturation."""
    rand = lambda *shape: torch.rand([n, *shape], device=device)
    randn = lambda *shape: torch.randn([n, *shape], device=device)

    def with_probability(values: torch.Tensor, neutral: float, probability: float = p) -> torch.Tensor:
        applied = rand(*([1] * (values.ndim - 1))) < probability
        return torch.where(applied, values, torch.full_like(values, neutral)).reshape(n, -1)

    angle = lambda *probability: with_probability((rand() * 2 - 1) * math.pi, 0, *probability)
    if group == "ada-blit":
        flip, turns = (with_probability((rand() * count).floor(), 0) for count in (2, 4))
        values = [flip, turns, with_probability((rand(2) * 2 - 1) * SHIFT, 0)]
    elif group == "ada-geom":
        either = 1 - math.sqrt(1 - p)  # for each of two rotations, so that at least one has probability p
        values = [with_probability((randn() * SCALE_STD).exp2(), 1), angle(either)]
        values += [with_probability((randn() * ANISO_STD).exp2(), 1), angle(either)]
        values += [with_probability(randn(2) * SHIFT, 0)]
    elif group == "ada-color":
        values = [with_probability(randn() * BRIGHTNESS_STD, 0), with_probability((randn() * CONTRAST_STD).exp2(), 1)]
        values += [with_probability((rand(1, 1) * 2).floor(), 0)]
        if color:
            values += [angle(), with_probability((randn(1, 1) * SATURATION_STD).exp2(), 1)]
        else:
            values += [torch.zeros_like(values[0]), torch.ones_like(values[0])]
    elif group == "ada-filter":
        values = [with_probability((randn() * FILTER_STD).exp2(), 1) for _ in BAND_POWER]
    elif group == "ada-noise":
        values = [with_probability(randn(1, 1, 1).abs() * NOISE_STD, 0)]
    else:
        values = [with_probability(torch.ones([n, 1, 1, 1, 1], device=device), 0), rand(2, 1, 1, 1).reshape(n, 2)]
    return torch.cat(values, dim=1)


def normalized(group: str, drawn: Drawn) -> torch.Tensor:
    """Return omega [N, K] in [0, 1], in the order of ADA_GROUPS, from the drawn parameters of a group."""
    normal = torch.special.ndtr
    angle = lambda value: (value / math.pi + 1) / 2
    columns = drawn.unbind(dim=1)
    if group == "ada-blit":
        flip, turns, x, y = columns
        omega = [flip, turns / 3, (y / SHIFT + 1) / 2, (x / SHIFT + 1) / 2]
    elif group == "ada-geom":
        scale, first, stretch, second, x, y = columns
        omega = [normal(scale.log2() / SCALE_STD), angle(first), normal(stretch.log2() / ANISO_STD), angle(second)]
        omega += [normal(y / SHIFT), normal(x / SHIFT)]
    elif group == "ada-color":
        brightness, contrast, flip, hue, saturation = columns
        omega = [normal(brightness / BRIGHTNESS_STD), normal(contrast.log2() / CONTRAST_STD), flip, angle(hue)]
        omega += [normal(saturation.log2() / SATURATION_STD)]
    elif group == "ada-filter":
        omega = [normal(gain.log2() / FILTER_STD) for gain in columns]
    elif group == "ada-noise":
        omega = [2 * normal(columns[0] / NOISE_STD) - 1]
    else:
        applied, x, y = columns
        omega = [applied, y, x]
    return torch.stack(omega, dim=1).clamp(0, 1)


# Geometry. ----------------------------------------------------------------------------------------


def apply_blit(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Flip, turn by quarters, and shift by whole pixels. Output place q, from the centre, is input place

        F R (q - t),   F = diag(+-1, 1),  R a rotation by 0, 90, 180 or 270 degrees,  t = round(side * shift)

    drawn [N, 4]: flipped, turns, shift (columns, rows). Flips pass the filters of `warped`, as in the authors' code, so
    they are not exact for each pixel."""
    height, width = images.shape[2:]
    flip, turns, x, y = drawn.unbind(dim=1)
    linear = _scaling(1 - 2 * flip, torch.ones_like(flip)) @ _rotation(turns * (math.pi / 2))
    return warped(images, linear, (x * width).round(), (y * height).round())


def apply_geom(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Scale, rotate, stretch, rotate and shift. Output place q, from the centre, is input place

        S(1/s, 1/s) R(a) S(1/b, b) R(a') (q - t),   t = side * shift

    drawn [N, 6]: s, a, b, a', shift (columns, rows)."""
    height, width = images.shape[2:]
    s, first, b, second, x, y = drawn.unbind(dim=1)
    linear = _scaling(1 / s, 1 / s) @ _rotation(first) @ _scaling(1 / b, b) @ _rotation(second)
    return warped(images, linear, x * width, y * height)


def _scaling(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.diag_embed(torch.stack([x, y], dim=1))  # [N, 2, 2]


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([cosine, -sine, sine, cosine], dim=1).unflatten(1, (2, 2))


def warped(images: torch.Tensor, linear: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Warp images that are mirrored at their outermost pixels: output place q, from the centre, is input place
    `linear` (q - (x, y)). Images are enlarged twice with a low-pass filter (sym6), interpolated bilinearly, and reduced
    with the same filter.

    linear: [N, 2, 2], columns before rows; x, y: [N] in pixels."""
    height, width = images.shape[2:]
    offset = -linear @ torch.stack([x, y], dim=1)[:, :, None]  # [N, 2, 1]

    # Mirror as far as the image that moves most needs it.
    taps = torch.tensor(SYM6, device=images.device, dtype=images.dtype)
    taps = taps / taps.sum()
    reach = len(taps) // 4
    centre = [(width - 1) / 2, (height - 1) / 2]
    corners = torch.tensor([[-1, 1, 1, -1], [-1, -1, 1, 1]], device=images.device) * x.new_tensor(centre)[:, None]
    most = (linear @ corners + offset).abs().amax(dim=(0, 2)).tolist()
    margin = [math.ceil(min(max(m + 2 * reach - c, 0), 2 * c)) for m, c in zip(most, centre, strict=True)]
    padded = pad(images, [margin[0], margin[0], margin[1], margin[1]], mode="reflect")

    # Twice as many pixels: place q lies at 2 q there, and half a pixel further.
    up = _upsampled(_upsampled(padded, taps, 3), taps, 2)
    shape = [2 * (height + 2 * reach), 2 * (width + 2 * reach)]
    places = [torch.arange(side, device=x.device, dtype=x.dtype) + 0.5 - side / 2 for side in shape]
    q = torch.stack(torch.broadcast_tensors(places[1][None, :], places[0][:, None])).flatten(1) + 0.5  # [2, H' W']
    place = linear @ q + 2 * offset - 0.5
    place = place + x.new_tensor([up.shape[3] / 2 - 0.5, up.shape[2] / 2 - 0.5])[:, None]
    moved = _bilinear(up, *place.unflatten(2, shape).unbind(dim=1))

    # Back.
    moved = moved[:, :, 1:-1, 1:-1]
    return _filtered(_filtered(moved, taps, 3, stride=2), taps, 2, stride=2)


def _filtered(images: torch.Tensor, taps: torch.Tensor, dim: int, stride: int = 1) -> torch.Tensor:
    """Correlate all channels with `taps` along dimension 2 or 3, without padding."""
    kernel = taps.reshape([1, 1, -1, 1] if dim == 2 else [1, 1, 1, -1]).expand(images.shape[1], -1, -1, -1)
    return conv2d(images, kernel, stride=(stride, 1) if dim == 2 else (1, stride), groups=images.shape[1])


def _upsampled(images: torch.Tensor, taps: torch.Tensor, dim: int) -> torch.Tensor:
    """Double the pixels along dimension 2 or 3: insert a zero after each, then convolve with twice the taps."""
    spaced = torch.stack([images, torch.zeros_like(images)], dim=dim + 1).flatten(dim, dim + 1)
    around = [(len(taps) + 1) // 2, (len(taps) - 2) // 2]
    return _filtered(pad(spaced, around if dim == 3 else [0, 0, *around]), 2 * taps.flip(0), dim)


def _bilinear(images: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return images at places x, y [N, H', W'] in pixels, with zeros around them. Sums of gathered pixels have a second
    derivative, which grid_sample lacks in some versions of PyTorch."""
    height, width = images.shape[2:]
    left, top = x.floor(), y.floor()
    result: torch.Tensor | None = None
    for rows, columns in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        weight = (1 - (y - rows).abs()) * (1 - (x - columns).abs()) * inside
        source = rows.clamp(0, height - 1).long() * width + columns.clamp(0, width - 1).long()  # [N, H', W']
        flat = source.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
        part = images.flatten(2).gather(2, flat).unflatten(2, source.shape[1:]) * weight.unsqueeze(1).to(images.dtype)
        result = part if result is None else result + part
    assert result is not None
    return result


# Colours, frequencies, corruptions. ---------------------------------------------------------------


def apply_ada_color(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Map the colour of each pixel: brightness (+ b), contrast (times c), luma flip (a reflection at the plane with the
    normal v = (1, 1, 1)/sqrt(3)), rotation around v, saturation (times s perpendicular to v), in this order.

    drawn [N, 5]: b, c, flipped, angle, s. One channel becomes the mean of the result for three equal channels."""
    b, c, flip, hue, s = (value[:, None, None] for value in drawn.to(images.dtype).unbind(dim=1))
    eye = torch.eye(3, device=images.device, dtype=images.dtype)
    along = torch.full_like(eye, 1 / 3)  # v v^T
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=images.device, dtype=images.dtype)
    rotation = along + hue.cos() * (eye - along) + hue.sin() * cross / math.sqrt(3)
    linear = c * (along + s * (eye - along)) @ rotation @ (eye - 2 * flip * along)  # [N, 3, 3]
    offset = linear.sum(dim=2, keepdim=True) * b  # the map of (b, b, b)
    if images.shape[1] == 1:
        return images * linear.sum(dim=2).mean(dim=1)[:, None, None, None] + offset.mean(dim=1)[:, :, None, None]
    return (linear @ images.flatten(2) + offset).unflatten(2, images.shape[2:])


def filter_bank() -> np.ndarray:
    """Return four band-pass filters, [4, taps], whose sum is the identity, from the lowest band to the highest."""
    low = np.asarray(SYM2)
    high = low * (-1.0) ** np.arange(low.size)
    low2, high2 = np.convolve(low, low[::-1]) / 2, np.convolve(high, high[::-1]) / 2
    bank = np.eye(len(BAND_POWER), 1)
    for band in range(1, len(BAND_POWER)):
        spaced = np.zeros([len(bank), 2 * bank.shape[1] - 1])
        spaced[:, ::2] = bank
        bank = np.stack([np.convolve(row, low2) for row in spaced])
        start = (bank.shape[1] - high2.size) // 2
        bank[band, start : start + high2.size] += high2
    return bank


def apply_filter(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Amplify four bands of frequencies, in rows and columns alike. drawn [N, 4]: gains t_k of the bands.

        g = prod_k t'_k,   t'_k = (1, .., t_k, .., 1) / sqrt( sum_j power_j (1, .., t_k, .., 1)_j^2 )

    so that images with the power spectrum of natural ones keep their power."""
    power = drawn.new_tensor(BAND_POWER)
    gains = torch.ones_like(drawn)
    for band, gain in enumerate(drawn.unbind(dim=1)):
        one = torch.ones_like(drawn)
        one[:, band] = gain
        gains = gains * one / (power * one.square()).sum(dim=1, keepdim=True).sqrt()
    n, channels, height, width = images.shape
    taps = gains @ torch.as_tensor(filter_bank(), dtype=drawn.dtype, device=drawn.device)  # [N, taps]
    kernel = taps.to(images.dtype).repeat_interleave(channels, dim=0)[:, None]  # [N C, 1, taps]
    around = taps.shape[1] // 2
    x = _mirrored(images, around).reshape(1, n * channels, height + 2 * around, width + 2 * around)
    x = conv2d(x, kernel.unsqueeze(2), groups=n * channels)
    return conv2d(x, kernel.unsqueeze(3), groups=n * channels).reshape(images.shape)


def _mirrored(images: torch.Tensor, around: int) -> torch.Tensor:
    """Pad images by `around` pixels on each side, mirrored at the outermost pixels, repeatedly for small images. The
    pad of torch, and the hosts' pipe, refuse images that are smaller than the padding."""
    for dim in (2, 3):
        side = images.shape[dim]
        place = torch.arange(-around, side + around, device=images.device).remainder(max(2 * side - 2, 1))
        images = images.index_select(dim, torch.minimum(place, (2 * side - 2 - place).abs()))
    return images


def apply_noise(images: torch.Tensor, drawn: Drawn, field: torch.Tensor) -> torch.Tensor:
    """Return x + sigma * field. drawn [N, 1]: sigma; field [N, C, H, W]: standard normal."""
    return images + (field * drawn[:, :, None, None]).to(images.dtype)


def apply_ada_cutout(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Set a square of half the side to 0. drawn [N, 3]: applied or not, centre (columns, rows) in image sides."""
    applied, x, y = drawn.unbind(dim=1)
    inside = []
    for side, place in ((images.shape[2], y), (images.shape[3], x)):
        pixel = (torch.arange(side, device=images.device) + 0.5) / side
        inside.append((pixel - place[:, None]).abs() < HOLE / 2 * applied[:, None])
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


ADA_APPLY: dict[str, Callable[..., torch.Tensor]] = {
    "ada-blit": apply_blit,
    "ada-geom": apply_geom,
    "ada-color": apply_ada_color,
    "ada-filter": apply_filter,
    "ada-noise": apply_noise,
    "ada-cutout": apply_ada_cutout,
}
