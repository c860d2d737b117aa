"""ContraD: D's features are learned by contrast, of two views of each real image and of all generated ones.

Jeong, Shin, "Training GANs with Stronger Augmentations via Contrastive Discriminator" (ICLR 2021, arXiv:2103.09742).

Symbols: N images; v projections [N, K] of unit length; s(a, b) = <a, b> / tau. Terms are [N]: the mean over the batch
is left to the caller. With several processes the arguments hold the projections of all processes
(training_ext.distributed)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training_ext.diffaugment import Omega, Transformation, spread


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return SimCLR's loss (Chen et al. 2020, arXiv:2002.05709, equation 1), per image, as the mean over its two views:

        l(a, b) = -log( exp s(a, b) / sum_{v != a} exp s(a, v) ),    l_n = ( l(v1_n, v2_n) + l(v2_n, v1_n) ) / 2

    with the sum over all 2N views except a. first, second: [N, K] of unit length. Returns [N]. ContraD's L_con+ is its
    mean, for h_r. The value is log(2N - 1) where all views are equal."""
    n = len(first)
    views = torch.cat([first, second])
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * n, device=views.device).roll(n)
    return torch.nn.functional.cross_entropy(logits, partner, reduction="none").unflatten(0, (2, n)).mean(dim=0)


def supcon_generated(
    first: torch.Tensor, second: torch.Tensor, generated: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return ContraD's L_con- (section 3.1), the supervised contrastive loss (Khosla et al. 2020) of generated images:

        l_i = -1/(N-1) sum_{j != i} log( exp s(f_i, f_j) / sum_{v != f_i} exp s(f_i, v) )

    with the inner sum over the N - 1 other generated images and the 2N real views. first, second, generated: [N, K] of
    unit length, projected by h_f. Real views also get gradients, as in the authors' code. Returns [N]; N must be 2 or
    more. The value is log(3N - 1) where all are equal."""
    n = len(generated)
    logits = generated @ torch.cat([generated, first, second]).T / temperature
    itself = torch.eye(n, 3 * n, dtype=torch.bool, device=logits.device)
    logs = logits.masked_fill(itself, -torch.inf).log_softmax(dim=1)
    return -logs[:, :n].masked_fill(itself[:, :n], 0).sum(dim=1) / (n - 1)


def heads(features: int, hidden: int, projection: int) -> torch.nn.ModuleDict:
    """Return h_r and h_f, which project real and generated images, and h_d, which computes the logits. Each is
    h(x) = W2 lrelu(W1 x + b1) + b2 with slope 0.1, x [N, F] -> [N, K], with plain linear layers, as in the authors'
    StyleGAN2 discriminator, and torch's initialisation."""
    linear = torch.nn.Linear
    head = lambda out: torch.nn.Sequential(linear(features, hidden), torch.nn.LeakyReLU(0.1), linear(hidden, out))
    return torch.nn.ModuleDict({"real": head(projection), "generated": head(projection), "logits": head(1)})


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


@dataclass(frozen=True)
class SimCLR(Transformation):
    """The strong augmentation of contrastive learning, one draw per image, as a differentiable T(x; omega).

    SimCLR (Chen et al. 2020, arXiv:2002.05709) with the strengths of ContraD (Jeong and Shin 2021, arXiv:2103.09742):
    random resized crop and horizontal flip, colour jitter with probability 0.8, grey with 0.2, and, for large images,
    Gaussian blur and cutout with the probabilities ``blur`` and ``cutout``. The published strengths are

        32 pixels (CIFAR)            crop_area 0.2, jitter 0.4, hue 0.1
        128 pixels (CelebA-HQ)       crop_area 0.2, jitter 0.4, hue 0.1, blur 0.5
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

    hsv_gradient: the gradient of hue, saturation and value is ``exact``, or ``straight-through`` (the gradient of the
    identity) as in the authors' code. Images have 1 or 3 channels, values in [-1, 1]; grey images have neither hue nor
    saturation. Jitter clamps changed images to [-1, 1], with the gradient of clamp; a hole is black (-1)."""

    crop_area: float = 0.2
    jitter: float = 0.4
    hue: float = 0.1
    blur: float = 0.0
    cutout: float = 0.0
    cutout_side: float = 0.5
    hsv_gradient: str = HSV_GRADIENTS[0]

    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega:
        """Return {group: omega [n, k]}, float32 in [0, 1]. Only this function draws random numbers."""
        omega = {"crop": sample_crop(n, height, width, self.crop_area, device), "jitter": sample_jitter(n, device)}
        omega["gray"] = sample_applied(n, GRAY_PROBABILITY, device)
        if self.blur:
            omega["blur"] = sample_blur(n, self.blur, device)
        if self.cutout:
            applied = sample_applied(n, self.cutout, device)
            omega["cutout"] = torch.cat([applied, torch.rand([n, 2], device=device)], dim=1)
        return omega

    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        """Return T(images; omega): images [N, C, H, W] of any floating type; omega as ``sample`` returns it."""
        x = (apply_crop(images, omega["crop"]) + 1) / 2  # the rest is defined for values in [0, 1]
        x = apply_jitter(x, omega["jitter"], self.jitter, self.hue, self.hsv_gradient)
        x = apply_gray(x, omega["gray"])
        if "blur" in omega:
            x = apply_blur(x, omega["blur"])
        if "cutout" in omega:
            x = apply_hole(x, omega["cutout"], self.cutout_side)
        return x * 2 - 1


def sample_applied(n: int, probability: float, device: torch.device | None) -> torch.Tensor:
    """Draw 1 for an image that is changed, with this probability, else 0; [n, 1]."""
    return (torch.rand([n, 1], device=device) < probability).float()


def sample_jitter(n: int, device: torch.device | None) -> torch.Tensor:
    """Draw: applied or not, contrast first or not, draws for contrast, hue, saturation, value, [n, 6]."""
    applied, first = (sample_applied(n, probability, device) for probability in (JITTER_PROBABILITY, 0.5))
    return torch.cat([applied, first, torch.rand([n, 4], device=device)], dim=1)


def sample_blur(n: int, probability: float, device: torch.device | None) -> torch.Tensor:
    """Draw: applied or not, draw for sigma, [n, 2]."""
    return torch.cat([sample_applied(n, probability, device), torch.rand([n, 1], device=device)], dim=1)


def sample_crop(n: int, height: int, width: int, area: float, device: torch.device | None) -> torch.Tensor:
    """Draw a window in whole pixels, with the share a ~ U(area, 1) of the image and width / height log-uniform in
    CROP_RATIO. The first of 10 trials that fits into the image counts, else the window is the image. The place is
    uniform, in half pixels; the window is flipped with probability 1/2.

    Returns (w / W, h / H, left / (W - w), top / (H - h), flipped) [n, 5]."""
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
    """Crop a window of each image, stretch it to the size of the image, and flip it; omega [N, 5] from `sample_crop`.

        y[n, c, i, j] = sum_kl R[n, i, k] C[n, j, l] x[n, c, k, l]

    Bilinear interpolation along rows, and along columns, is a matrix: R[n, i, k] = max(0, 1 - |r_ni - k|). Output row i
    is at row r_ni = top_n + (i + 1/2) h_n / H - 1/2, clamped to the image. A product of matrices has derivatives of any
    order, which grid_sample has in recent PyTorch alone. Its gradient needs no atomic additions, whose order changes
    sums from run to run on a GPU."""
    height, width = images.shape[2:]
    w, h, left, top, flipped = omega.to(images.dtype).unbind(dim=1)
    columns = _window(width, w, left)
    columns = torch.where(flipped[:, None] > 0, columns.flip(1), columns)
    return _hat(_window(height, h, top), height)[:, None] @ images @ _hat(columns, width)[:, None].mT


def _window(side: int, size: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return the places of a window's pixels in the image, [N, side], in pixels. size, place: [N] in [0, 1]."""
    centre = (torch.arange(side, device=size.device, dtype=size.dtype) + 0.5) / side
    start = place * (1 - size)
    return ((start[:, None] + centre * size[:, None]) * side - 0.5).clamp(0, side - 1)


def _hat(position: torch.Tensor, side: int) -> torch.Tensor:
    """Return weights of bilinear interpolation at a position [N, M]: [N, M, side]."""
    pixel = torch.arange(side, device=position.device, dtype=position.dtype)
    return (1 - (position[:, :, None] - pixel).abs()).clamp(min=0)


def apply_jitter(
    images: torch.Tensor, omega: torch.Tensor, strength: float = 0.4, hue: float = 0.1, hsv_gradient: str = "exact"
) -> torch.Tensor:
    """Change contrast, and hue, saturation and value, in either order; images in [0, 1]; omega [N, 6]: applied,
    contrast first, draws u of contrast, hue, saturation and value.

        contrast:    x <- clamp( m + f (x - m) )                m [N, C, 1, 1]: mean over the pixels of a channel
        HSV:         H <- H + hue (2 u - 1) 255/360,  S <- clamp(f S),  V <- clamp(f V)

    with a separate factor f = lo + (1 + strength - lo) u for each, lo = max(0, 1 - strength), and clamp to [0, 1]."""
    applied, first, *draws = omega.to(images.dtype)[:, :, None, None, None].unbind(dim=1)  # each [N, 1, 1, 1]
    low = max(0.0, 1 - strength)
    contrast, saturation, value = (low + (1 + strength - low) * draws[index] for index in (0, 2, 3))
    turn = hue * HUE_UNIT * (2 * draws[1] - 1)
    contrasted = lambda x: spread(x, x.mean(dim=[2, 3], keepdim=True), contrast).clamp(0, 1)
    x = torch.where(first > 0, contrasted(images), images)
    straight_through = hsv_gradient == "straight-through"
    shifted = _shift_hsv(x.detach() if straight_through else x, turn, saturation, value)
    x = shifted + (x - x.detach()) if straight_through else shifted  # exactly `shifted`, with the gradient of x
    x = torch.where(first > 0, x, contrasted(x))
    return torch.where(applied > 0, x, images)


def _shift_hsv(x: torch.Tensor, turn: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Add `turn` to hue (mod 1), multiply saturation and value by their factors, and clamp to [0, 1]. x [N, C, H, W] in
    [0, 1], C 1 or 3; one channel only has a value.

    Hue is the angle of the colour in the plane perpendicular to the grey axis, as in the authors' code. It differs by
    at most 1.2 degrees from the usual, hexagonal hue, and is equal at multiples of 30 degrees."""
    if x.shape[1] == 1:
        return (x * value).clamp(0, 1)
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
    """Put luma into all channels where omega [N, 1] is 1; images with one channel are grey already."""
    if images.shape[1] == 1:
        return images
    luma = torch.tensor(LUMA, device=images.device, dtype=images.dtype)[:, None, None]
    return torch.where(omega[:, :, None, None] > 0, (images * luma).sum(dim=1, keepdim=True), images)


def apply_blur(images: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """Blur by a Gaussian of sigma = 0.1 + 1.9 u pixels, omega [N, 2]: applied, u. The kernel has 2 r + 1 taps, with
    r = floor(H / 10) // 2. The image is mirrored at its outermost pixels. Below 20 pixels this is the identity."""
    height, width = images.shape[2:]
    radius = min(height // 10 // 2, height - 1, width - 1)
    sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * omega[:, 1:].to(images.dtype)
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-(taps**2) / (2 * sigma**2)).softmax(dim=1)  # [N, 2 r + 1]
    blurred = _band(kernel, height)[:, None] @ images @ _band(kernel, width)[:, None].mT
    return torch.where(omega[:, :1, None, None] > 0, blurred, images)


def _band(kernel: torch.Tensor, side: int) -> torch.Tensor:
    """Return the matrix [N, side, side] of a convolution along one axis, kernel [N, 2 r + 1]."""
    n, taps = kernel.shape
    source = torch.arange(side, device=kernel.device)[:, None] + torch.arange(taps, device=kernel.device) - taps // 2
    source = source.abs()
    source = torch.where(source >= side, 2 * (side - 1) - source, source)  # mirrored, the border pixel once
    matrix = kernel.new_zeros([n, side, side])
    return matrix.scatter_add_(2, source.expand(n, -1, -1), kernel[:, None].expand(-1, side, -1))


def apply_hole(images: torch.Tensor, omega: torch.Tensor, side: float = 0.5) -> torch.Tensor:
    """Set a square to 0 (black, for images in [0, 1]). Its side is `side` image heights, made odd, centred on a pixel.
    omega [N, 3]: applied, place of the centre among rows and columns."""
    length = int(images.shape[2] * side)
    length -= 1 - length % 2
    inside = []
    for place, extent in zip(omega[:, 1:].unbind(dim=1), images.shape[2:], strict=True):
        centre = (place * extent).floor().clamp(max=extent - 1)
        distance = torch.arange(extent, device=images.device) - centre[:, None]
        inside.append(distance.abs() <= length // 2)
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :] & (omega[:, :1, None, None] > 0)
    return images.masked_fill(hole, 0) if length > 0 else images
