"""DiffAugment: one differentiable random transformation T(x; omega) of real and generated images.

Zhao, Liu, Lin, Zhu, Han, "Differentiable Augmentation for Data-Efficient GAN Training" (NeurIPS 2020,
arXiv:2006.10738). The strengths and the normalised parameters omega are those of AugSelf-GAN (Hou et al., NeurIPS
2023, arXiv:2205.15677); with the default strengths each transformation is DiffAugment's own.

``DiffAugment.sample`` draws omega, ``DiffAugment.apply`` is a deterministic function of images and omega, so that the
very same parameters can be reported, learnt from and applied once more. Everything is twice differentiable with
respect to the images: the gradient penalty R1 goes through T. Nothing is clamped; pixels that T uncovers or cuts are
0, which is mid-grey for images in [-1, 1].

Symbols: x images [N, C, H, W], nominally in [-1, 1]; u uniform in [0, 1); i row, j column, both from 0.

The module has more than 400 lines because SimCLR's transformation is here, too: both share their checks and the way in
which omega is drawn and applied.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch

GROUPS = {"color": 3, "translation": 2, "cutout": 2}  # name -> K, the width of its omega [N, K]
Omega = dict[str, torch.Tensor]  # by group


class _Transformation(ABC):
    """T(x; omega) in two steps: ``sample`` draws, ``apply`` transforms."""

    def draw(self, images: torch.Tensor) -> Omega:
        """Return omega for images [N, C, H, W], as ``sample`` draws it."""
        _check_images(images)
        return self.sample(images.shape[0], images.shape[2], images.shape[3], images.device)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, Omega]:
        """Draw omega and apply it. Return T(images; omega) [N, C, H, W] and omega {group: [N, K]}."""
        omega = self.draw(images)
        return self.apply(images, omega), omega

    @abstractmethod
    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega: ...

    @abstractmethod
    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor: ...


class DiffAugment(_Transformation):
    """T(x; omega), one draw per image, as a chain of the groups in ``policy``, in that order.

    =============  ========================================  ====================================================
    group          omega [N, K] in [0, 1]                    strength
    =============  ========================================  ====================================================
    color          draws for brightness, saturation,         factor on the deviation from "unchanged", >= 0
                   contrast                                  (``brightness``, ``saturation``, ``contrast``)
    translation    place in the range of shifts: rows,       largest shift / side, in [0, 1]
                   columns; 1/2 is no shift
    cutout         place in the range of offsets: rows,      side of the hole / side of the image, in [0, 1]
                   columns; 1/2 is a hole in the middle
    =============  ========================================  ====================================================

    The scale of omega does not depend on the strength. policy: names of GROUPS, or one string of them with commas; an
    empty one is the identity.
    """

    def __init__(
        self,
        policy: str | Iterable[str] = tuple(GROUPS),
        brightness: float = 1.0,
        saturation: float = 1.0,
        contrast: float = 1.0,
        translation: float = 0.125,
        cutout: float = 0.5,
    ) -> None:
        self.policy = _check_policy(policy)
        self.brightness = _check_strength("brightness", brightness)
        self.saturation = _check_strength("saturation", saturation)
        self.contrast = _check_strength("contrast", contrast)
        self.translation = _check_strength("translation", translation, highest=1)
        self.cutout = _check_strength("cutout", cutout, highest=1)

    @property
    def omega_dims(self) -> dict[str, int]:
        """Width of omega per group of the policy, {name: K}."""
        return {group: GROUPS[group] for group in self.policy}

    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega:
        """Returns {group: omega [n, K]}, float32 in [0, 1], for n images of height x width.

        The only place that draws random numbers. One call of torch.rand or torch.randint per component, in the order of
        the policy: this is what the authors' code draws, so a seed gives the images that it gives there.
        """
        draw = {
            "color": lambda: _sample_color(n, device),
            "translation": lambda: _sample_translation(n, height, width, self.translation, device),
            "cutout": lambda: _sample_cutout(n, height, width, self.cutout, device),
        }
        return {group: draw[group]() for group in self.policy}

    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        """T(images; omega): images [N, C, H, W] in any floating type, any C, H, W; omega as ``sample`` returns it.

        Returns images of the same shape and type; with an empty policy the very tensor that came in.
        """
        _check_images(images)
        transform = {
            "color": lambda x, w: apply_color(x, w, self.brightness, self.saturation, self.contrast),
            "translation": lambda x, w: apply_translation(x, w, self.translation),
            "cutout": lambda x, w: apply_cutout(x, w, self.cutout),
        }
        for group in self.policy:
            _check_omega(group, omega, images.shape[0])
            images = transform[group](images, omega[group])
        return images


# Colour. ------------------------------------------------------------------------------------------


def _sample_color(n: int, device: torch.device | None) -> torch.Tensor:
    """omega = (u_b, u_s, u_c): the draws themselves, [n, 3]."""
    return torch.stack([torch.rand([n], device=device) for _ in range(GROUPS["color"])], dim=1)


def apply_color(
    images: torch.Tensor, omega: torch.Tensor, brightness: float = 1.0, saturation: float = 1.0, contrast: float = 1.0
) -> torch.Tensor:
    """Brightness, saturation and contrast, in this order; omega = (u_b, u_s, u_c) [N, 3] in [0, 1].

        x <- x + b (u_b - 1/2)
        x <- m + (1 + s (2 u_s - 1)) (x - m)      m [N, 1, H, W]: mean over channels
        x <- M + (1 + c (u_c - 1/2)) (x - M)      M [N, 1, 1, 1]: mean over the image, after the two steps above

    with the strengths b, s, c. At strength 1: an offset in [-1/2, 1/2), factors in [0, 2) and [1/2, 3/2). The second
    line changes nothing in an image of one channel, whose omega then has a component without effect.
    """
    u_b, u_s, u_c = omega.to(images.dtype).reshape(-1, 3, 1, 1, 1).unbind(dim=1)  # each [N, 1, 1, 1]
    images = images + brightness * (u_b - 0.5)
    images = _spread(images, images.mean(dim=1, keepdim=True), 1 + saturation * (2 * u_s - 1))
    return _spread(images, images.mean(dim=[1, 2, 3], keepdim=True), 1 + contrast * (u_c - 0.5))


def _spread(images: torch.Tensor, centre: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return centre + factor * (images - centre)


# Translation. -------------------------------------------------------------------------------------


def _largest_shift(side: int, ratio: float) -> int:
    return _round_half_up(side * ratio)


def _sample_translation(n: int, height: int, width: int, ratio: float, device: torch.device | None) -> torch.Tensor:
    """omega = t / (2 S) + 1/2 per axis, t an integer uniform in [-S, S]; [n, 2]. With S = 0 it is 1/2 throughout."""
    axes = []
    for side in (height, width):
        largest = _largest_shift(side, ratio)
        shift = torch.randint(-largest, largest + 1, [n], device=device)
        axes.append(shift / (2 * max(largest, 1)) + 0.5)
    return torch.stack(axes, dim=1)


def apply_translation(images: torch.Tensor, omega: torch.Tensor, ratio: float = 0.125) -> torch.Tensor:
    """Shift by whole pixels, zeros moving in; omega [N, 2] in [0, 1]: rows, columns.

        y[n, c, i, j] = x[n, c, i + t_n, j + t'_n]   where this pixel exists, else 0
        t_n = round(2 S (omega_n - 1/2)),  S = floor(H ratio + 1/2),  and t', S' with W for columns

    t > 0 moves the content up, t' > 0 to the left.
    """
    height, width = images.shape[2:]
    rows = _shifted(height, omega[:, 0], ratio)  # [N, H]: the row that row i is read from, perhaps outside the image
    cols = _shifted(width, omega[:, 1], ratio)  # [N, W]
    outside = _outside(rows, height).unsqueeze(2) | _outside(cols, width).unsqueeze(1)  # [N, H, W]
    # Rows and columns are read cyclically and what came round is blanked. So each pixel is read exactly once, and the
    # backward pass adds no two gradients in one place: exact, whatever the order of a GPU's atomic additions.
    source = rows.remainder(height).unsqueeze(2) * width + cols.remainder(width).unsqueeze(1)  # [N, H, W]
    source = source.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)  # [N, C, H W]
    moved = images.flatten(2).gather(2, source).reshape(images.shape)
    return moved.masked_fill(outside.unsqueeze(1), 0)


def _shifted(side: int, omega: torch.Tensor, ratio: float) -> torch.Tensor:
    shift = (2 * _largest_shift(side, ratio) * (omega - 0.5)).round().long()  # [N]
    return torch.arange(side, device=omega.device) + shift.unsqueeze(1)


def _outside(index: torch.Tensor, side: int) -> torch.Tensor:
    return (index < 0) | (index >= side)


# Cutout. ------------------------------------------------------------------------------------------


def _hole(side: int, ratio: float) -> tuple[int, int]:
    """Returns (h, R): the side of the hole and the largest offset, both in pixels."""
    hole = _round_half_up(side * ratio)
    return hole, side - hole % 2  # an odd hole is centred on one of H pixels, an even one on one of H + 1 pixel borders


def _sample_cutout(n: int, height: int, width: int, ratio: float, device: torch.device | None) -> torch.Tensor:
    """omega = o / R per axis, o an integer uniform in [0, R], R as in apply_cutout; [n, 2]. With R = 0 it is 0."""
    axes = []
    for side in (height, width):
        _, largest = _hole(side, ratio)
        offset = torch.randint(0, largest + 1, [n], device=device)
        axes.append(offset / max(largest, 1))
    return torch.stack(axes, dim=1)


def apply_cutout(images: torch.Tensor, omega: torch.Tensor, ratio: float = 0.5) -> torch.Tensor:
    """Blank one rectangle, which may reach over the border; omega [N, 2] in [0, 1]: rows, columns.

        y[n, c, i, j] = 0   where 0 <= i - a_n < h and 0 <= j - a'_n < h',  else x[n, c, i, j]
        a_n = o_n - floor(h / 2),  o_n = round(R omega_n),  h = floor(H ratio + 1/2),  R = H - (h mod 2)

    and a', o', h', R' with W for columns.
    """
    height, width = images.shape[2:]
    rows = _cut(height, omega[:, 0], ratio)  # [N, H]
    cols = _cut(width, omega[:, 1], ratio)  # [N, W]
    return images.masked_fill((rows.unsqueeze(2) & cols.unsqueeze(1)).unsqueeze(1), 0)


def _cut(side: int, omega: torch.Tensor, ratio: float) -> torch.Tensor:
    hole, largest = _hole(side, ratio)
    start = (largest * omega).round().long() - hole // 2  # [N]
    position = torch.arange(side, device=omega.device) - start.unsqueeze(1)  # [N, side]
    return (position >= 0) & (position < hole)


# SimCLR's views. ----------------------------------------------------------------------------------

SIMCLR = {  # the published variants: probabilities of blur and of cutout
    "simclr": {"blur": 0.0, "cutout": 0.0},
    "simclr-hq": {"blur": 0.5, "cutout": 0.0},
    "simclr-hq-cutout": {"blur": 0.5, "cutout": 0.5},
}
HSV_GRADIENTS = ("straight-through", "exact")
CROP_RATIO = (3 / 4, 4 / 3)  # width / height of a crop
CROP_TRIALS = 10
JITTER_PROBABILITY, GRAY_PROBABILITY = 0.8, 0.2
BLUR_SIGMA = (0.1, 2.0)  # pixels
LUMA = (0.299, 0.587, 0.114)
HUE_UNIT = 255 / 360  # the authors draw hue in 1/255 and apply it in 1/360 of a turn


class SimCLR(_Transformation):
    """The strong augmentation of contrastive learning, one draw per image, as a differentiable T(x; omega).

    SimCLR (Chen et al. 2020, arXiv:2002.05709) with the strengths of ContraD (Jeong and Shin 2021, arXiv:2103.09742):
    random resized crop and horizontal flip, colour jitter with probability 0.8, grey with 0.2, and, for large images,
    Gaussian blur and cutout with the probabilities ``blur`` and ``cutout``. The published strengths are

        32 pixels (CIFAR)            crop_area 0.2, jitter 0.4, hue 0.1; so at 128 pixels (CelebA-HQ), and blur 0.5
        512 pixels (AFHQ)            crop_area 0.08, jitter 0.8, hue 0.2, blur 0.5; cat and wild: cutout 0.5

    =======  ================================================  ======================================================
    group    omega [N, k] in [0, 1]                            strength
    =======  ================================================  ======================================================
    crop     width, height (in image sides), place from the    ``crop_area``: smallest share of the image's area
             left, from the top; flipped or not
    jitter   applied or not, contrast first or not, draws for  ``jitter``: factors are drawn from 1 +- it (but >= 0);
             contrast, hue, saturation, value                  ``hue``: largest change, in 255/360 of a turn
    gray     applied or not
    blur     applied or not, draw for sigma in 0.1 to 2 pixels ``blur``: probability
    cutout   applied or not, place of the centre: rows, columns ``cutout``: probability; ``cutout_side``, in image sides
    =======  ================================================  ======================================================

    hsv_gradient: the gradient of hue, saturation and value is ``exact``, or ``straight-through`` as in the authors'
    code: that of the identity. Images have 1 or 3 channels, values in [-1, 1]; grey ones know neither hue nor
    saturation. Jitter clamps what it changes to [-1, 1], with the gradient of clamp; a hole is black (-1).
    """

    def __init__(
        self,
        crop_area: float = 0.2,
        jitter: float = 0.4,
        hue: float = 0.1,
        blur: float = 0.0,
        cutout: float = 0.0,
        cutout_side: float = 0.5,
        hsv_gradient: str = HSV_GRADIENTS[0],
    ) -> None:
        self.crop_area = _check_strength("crop_area", crop_area, highest=1)
        self.jitter = _check_strength("jitter", jitter)
        self.hue = _check_strength("hue", hue, highest=0.5)
        self.blur = _check_strength("blur", blur, highest=1)
        self.cutout = _check_strength("cutout", cutout, highest=1)
        self.cutout_side = _check_strength("cutout_side", cutout_side, highest=1)
        if hsv_gradient not in HSV_GRADIENTS:
            raise ValueError(f"hsv_gradient: must be one of {', '.join(HSV_GRADIENTS)}, got {hsv_gradient!r}.")
        self.hsv_gradient = hsv_gradient

    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega:
        """Returns {group: omega [n, k]}, float32 in [0, 1]. The only place that draws random numbers."""
        applied = lambda probability: (torch.rand([n, 1], device=device) < probability).float()
        omega = {"crop": _sample_crop(n, height, width, self.crop_area, device)}
        omega["jitter"] = torch.cat([applied(JITTER_PROBABILITY), applied(0.5), torch.rand([n, 4], device=device)], 1)
        omega["gray"] = applied(GRAY_PROBABILITY)
        if self.blur:
            omega["blur"] = torch.cat([applied(self.blur), torch.rand([n, 1], device=device)], dim=1)
        if self.cutout:
            omega["cutout"] = torch.cat([applied(self.cutout), torch.rand([n, 2], device=device)], dim=1)
        return omega

    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        """T(images; omega): images [N, C, H, W] of any floating type; omega as ``sample`` returns it."""
        _check_images(images)
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images: must have 1 or 3 channels, got {images.shape[1]}.")
        x = (apply_crop(images, omega["crop"]) + 1) / 2  # the rest is defined for values in [0, 1]
        x = apply_jitter(x, omega["jitter"], self.jitter, self.hue, self.hsv_gradient)
        x = apply_gray(x, omega["gray"])
        if "blur" in omega:
            x = apply_blur(x, omega["blur"])
        if "cutout" in omega:
            x = apply_hole(x, omega["cutout"], self.cutout_side)
        return x * 2 - 1


def _sample_crop(n: int, height: int, width: int, area: float, device: torch.device | None) -> torch.Tensor:
    """A window of the share a ~ U(area, 1) of the image, width / height log-uniform in CROP_RATIO, in whole pixels; the
    first of 10 trials that fits into the image, else all of it. Its place is uniform, in half pixels; it is flipped
    with probability 1/2. Returns (w / W, h / H, left / (W - w), top / (H - h), flipped) [n, 5]."""
    share = area + (1 - area) * torch.rand([n, CROP_TRIALS], device=device)
    low, high = (math.log(ratio) for ratio in CROP_RATIO)
    ratio = (low + (high - low) * torch.rand([n, CROP_TRIALS], device=device)).exp()
    w = (height * width * share * ratio).sqrt().round()
    h = (height * width * share / ratio).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.long().argmax(dim=1, keepdim=True)
    fits = fits.gather(1, first)
    w = torch.where(fits, w.gather(1, first), torch.full_like(first, width, dtype=w.dtype)).squeeze(1)
    h = torch.where(fits, h.gather(1, first), torch.full_like(first, height, dtype=h.dtype)).squeeze(1)
    places = []
    for side, window in ((width, w), (height, h)):
        steps = 2 * (side - window)  # of half a pixel
        step = (torch.rand([n], device=device) * (steps + 1)).floor().minimum(steps)
        places.append(step / steps.clamp(min=1))
    flipped = (torch.rand([n], device=device) < 0.5).float()
    return torch.stack([w / width, h / height, *places, flipped], dim=1)


def apply_crop(images: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """A window of each image, stretched to the size of the image, and flipped; omega [N, 5] as `_sample_crop` gives it.

        y[n, c, i, j] = sum_kl R[n, i, k] C[n, j, l] x[n, c, k, l]

    Bilinear interpolation along rows and columns is a matrix each: R[n, i, k] = max(0, 1 - |r_ni - k|) for the row
    r_ni = top_n + (i + 1/2) h_n / H - 1/2, clamped to the image, at which output row i lies. As a product of matrices
    it is differentiable as often as one likes, which grid_sample is in recent PyTorch alone, and its gradient needs no
    atomic additions, whose order changes sums from run to run on a GPU.
    """
    height, width = images.shape[2:]
    w, h, left, top, flipped = omega.to(images.dtype).unbind(dim=1)
    rows = _window(height, h, top)
    columns = _window(width, w, left)
    columns = torch.where(flipped[:, None] > 0, columns.flip(1), columns)
    return _resample(images, _hat(rows, height), _hat(columns, width))


def _window(side: int, size: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Where the pixels of a window lie in the image, [N, side], in pixels. size, place: [N] in [0, 1]."""
    centre = (torch.arange(side, device=size.device, dtype=size.dtype) + 0.5) / side
    start = place * (1 - size)
    return ((start[:, None] + centre * size[:, None]) * side - 0.5).clamp(0, side - 1)


def _hat(position: torch.Tensor, side: int) -> torch.Tensor:
    """Weights of bilinear interpolation at a position [N, M]: [N, M, side]."""
    pixel = torch.arange(side, device=position.device, dtype=position.dtype)
    return (1 - (position[:, :, None] - pixel).abs()).clamp(min=0)


def _resample(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return rows[:, None] @ images @ columns[:, None].mT


def apply_jitter(
    images: torch.Tensor, omega: torch.Tensor, strength: float = 0.4, hue: float = 0.1, hsv_gradient: str = "exact"
) -> torch.Tensor:
    """Contrast, and hue, saturation and value, in either order; images in [0, 1]; omega [N, 6]: applied, contrast
    first, draws u of contrast, hue, saturation and value.

        contrast:    x <- clamp( m + f (x - m) )                m [N, C, 1, 1]: mean over the pixels of a channel
        HSV:         H <- H + hue (2 u - 1) 255/360,  S <- clamp(f S),  V <- clamp(f V)

    with f = lo + (1 + strength - lo) u of its own each, lo = max(0, 1 - strength), and clamp to [0, 1].
    """
    applied, first, *draws = omega.to(images.dtype)[:, :, None, None, None].unbind(dim=1)  # each [N, 1, 1, 1]
    low = max(0.0, 1 - strength)
    contrast, saturation, value = (low + (1 + strength - low) * draws[index] for index in (0, 2, 3))
    turn = hue * HUE_UNIT * (2 * draws[1] - 1)
    if images.shape[1] == 1:
        hsv = lambda x: (x * value).clamp(0, 1)
    else:
        hsv = lambda x: _shift_hsv(x, turn, saturation, value)
    x = torch.where(first > 0, _contrast(images, contrast), images)
    x = _straight_through(hsv, x) if hsv_gradient == "straight-through" else hsv(x)
    x = torch.where(first > 0, x, _contrast(x, contrast))
    return torch.where(applied > 0, x, images)


def _contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _spread(images, images.mean(dim=[2, 3], keepdim=True), factor).clamp(0, 1)


def _straight_through(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        value = function(x)
    return value + (x - x.detach())  # exactly `value`, with the gradient of x


def _shift_hsv(x: torch.Tensor, turn: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Hue + turn (mod 1), saturation and value times their factors, clamped to [0, 1]; x [N, 3, H, W] in [0, 1].

    Hue is the angle of the colour in the plane across the grey axis, as in the authors' code; it is within 1.2 degrees
    of the hexagonal hue of the usual definition, with which it agrees at multiples of 30 degrees.
    """
    r, g, b = x.unbind(dim=1)
    highest, lowest = x.amax(dim=1).clamp(min=0), x.amin(dim=1)  # [N, H, W]; below 0, value is clamped anyhow
    along, across = 2 * r - g - b, math.sqrt(3) * (g - b)
    gray = (along == 0) & (across == 0)  # no hue, and no gradient of it
    h = torch.atan2(across, torch.where(gray, torch.ones_like(along), along)) / (2 * math.pi)
    h = (h.unsqueeze(1) + turn) % 1
    s = ((1 - lowest / (highest + 1e-8)).unsqueeze(1) * saturation).clamp(0, 1)
    v = (highest.unsqueeze(1) * value).clamp(0, 1)
    sextant = (torch.tensor([5.0, 3.0, 1.0], device=x.device, dtype=x.dtype)[:, None, None] + 6 * h) % 6
    return v - v * s * torch.minimum(sextant, 4 - sextant).clamp(0, 1)


def apply_gray(images: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """Luma in all channels where omega [N, 1] is 1; images of one channel are grey already."""
    if images.shape[1] == 1:
        return images
    luma = torch.tensor(LUMA, device=images.device, dtype=images.dtype)[:, None, None]
    return torch.where(omega[:, :, None, None] > 0, (images * luma).sum(dim=1, keepdim=True), images)


def apply_blur(images: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """Gaussian of sigma = 0.1 + 1.9 u pixels, omega [N, 2]: applied, u. The kernel has 2 r + 1 taps, r = floor(H / 10)
    // 2; pixels outside of the image are mirrored at its outermost ones. Below 20 pixels it is the identity."""
    height, width = images.shape[2:]
    radius = min(height // 10 // 2, height - 1, width - 1)
    sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * omega[:, 1:].to(images.dtype)
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-(taps**2) / (2 * sigma**2)).softmax(dim=1)  # [N, 2 r + 1]
    blurred = _resample(images, _band(kernel, height), _band(kernel, width))
    return torch.where(omega[:, :1, None, None] > 0, blurred, images)


def _band(kernel: torch.Tensor, side: int) -> torch.Tensor:
    """The matrix [N, side, side] of a convolution along one axis, kernel [N, 2 r + 1]."""
    n, taps = kernel.shape
    source = torch.arange(side, device=kernel.device)[:, None] + torch.arange(taps, device=kernel.device) - taps // 2
    source = source.abs()
    source = torch.where(source >= side, 2 * (side - 1) - source, source)  # mirrored, the border pixel once
    matrix = kernel.new_zeros([n, side, side])
    return matrix.scatter_add_(2, source.expand(n, -1, -1), kernel[:, None].expand(-1, side, -1))


def apply_hole(images: torch.Tensor, omega: torch.Tensor, side: float = 0.5) -> torch.Tensor:
    """0 (black, for images in [0, 1]) in a square of `side` image heights, made odd, centred on a pixel; omega [N, 3]:
    applied, place of the centre among rows and columns."""
    length = int(images.shape[2] * side)
    length -= 1 - length % 2
    inside = []
    for place, extent in zip(omega[:, 1:].unbind(dim=1), images.shape[2:], strict=True):
        centre = (place * extent).floor().clamp(max=extent - 1)
        distance = torch.arange(extent, device=images.device) - centre[:, None]
        inside.append(distance.abs() <= length // 2)
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :] & (omega[:, :1, None, None] > 0)
    return images.masked_fill(hole, 0) if length > 0 else images


# Checks. ------------------------------------------------------------------------------------------


def _round_half_up(value: float) -> int:
    return int(value + 0.5)  # as in the authors' code; Python's round() goes to even


def _check_policy(policy: str | Iterable[str]) -> tuple[str, ...]:
    names = tuple(name for name in policy.split(",") if name) if isinstance(policy, str) else tuple(policy)
    for name in names:
        if name not in GROUPS:
            raise ValueError(f"policy: unknown group {name!r}. Known: {', '.join(GROUPS)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"policy: each group may be named once, got {','.join(names)}.")
    return names


def _check_strength(name: str, value: float, highest: float = math.inf) -> float:
    # Written so that nan fails too.
    if isinstance(value, (int, float)) and 0 <= value <= highest and value < math.inf:
        return float(value)
    allowed = "a finite number >= 0" if highest == math.inf else f"a number in [0, {highest}]"
    raise ValueError(f"{name}: must be {allowed}, got {value!r}.")


def _check_images(images: torch.Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images: must be [N, C, H, W] of a floating type, got {list(images.shape)}, {images.dtype}.")


def _check_omega(group: str, omega: Omega, n: int) -> None:
    shape = [n, GROUPS[group]]
    if group not in omega:
        raise ValueError(f"omega: lacks {group!r}, which the policy names. It has: {', '.join(omega) or 'nothing'}.")
    if list(omega[group].shape) != shape:
        raise ValueError(f"omega[{group!r}]: must have shape {shape}, got {list(omega[group].shape)}.")
