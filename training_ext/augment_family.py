"""Further transformations for the policy of DiffAugment, and DiffAugment with all of them.

PyTorch-StudioGAN lists most of them for its DiffAugment: flips and mirrored shifts of consistency regularisation (Zhang
et al. 2020, arXiv:1910.12027), SimCLR's crop, jitter, grey and blur (training_ext.contrad), ADA's groups
(training_ext.ada_transforms). The last one is CutMix (Yun et al. 2019, arXiv:1905.04899), which Zhao, Zhang, Chen,
Singh, Zhang, "Image Augmentations for GAN Training" (2020, arXiv:2006.02595) test on a GAN's D.

Omega contains the groups, and values that terms cannot learn: CutMix's partners, the noise, and ADA's parameters before
normalisation. Symbols as in training_ext.diffaugment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from training_ext import ada_transforms
from training_ext.ada_transforms import ADA_GROUPS
from training_ext.consistency import move
from training_ext.contrad import (
    apply_blur,
    apply_crop,
    apply_gray,
    apply_jitter,
    sample_applied,
    sample_blur,
    sample_crop,
    sample_jitter,
)
from training_ext.diffaugment import GROUPS, DiffAugment, Omega

FURTHER = {"flip": 1, "shift": 2, "crop": 4, "jitter": 6, "gray": 1, "blur": 2, "cutmix": 3}
WIDTHS = GROUPS | FURTHER | ADA_GROUPS  # every group that a policy may name -> K, the width of its omega [N, K]
PARTNER, FIELD = "cutmix/partner", "ada-noise/field"


@dataclass(frozen=True)
class AugmentFamily(DiffAugment):
    """T(x; omega) like DiffAugment, with further groups in ``policy``. Groups are applied one by one, in that order.

    =============  ========================================  ====================================================
    group          omega [N, K] in [0, 1]                    strength
    =============  ========================================  ====================================================
    flip           flipped or not                            probability (``flip``)
    shift          place in the range of shifts: rows,       largest shift / side, below 1 (``shift``); new pixels at
                   columns; 1/2: no shift                    the border are mirrored
    crop           width, height (in image sides), place     smallest share of the area, above 0 (``crop``); 1 = off
                   from the left, from the top
    jitter         applied or not, contrast first or not,    factors are drawn from 1 +- it, but >= 0 (``jitter``);
                   draws for contrast, hue, saturation,      largest change of hue, in 255/360 of a turn (``hue``);
                   value                                     both 0 = off, but for clamping to [-1, 1]
    gray           applied or not                            probability (``gray``)
    blur           applied or not, draw for sigma in 0.1 to  probability (``blur``)
                   2 pixels
    cutmix         side of the patch / largest side, place   largest side / side of the image, in [0, 1]
                   of its centre: rows, columns              (``cutmix``)
    ada-*          see ``ada_transforms.ADA_GROUPS``         probability of each transformation (``ada_p``)
    =============  ========================================  ====================================================
    """

    flip: float = 0.5
    shift: float = 0.125
    crop: float = 0.2
    jitter: float = 0.4
    hue: float = 0.1
    gray: float = 0.2
    blur: float = 0.5
    cutmix: float = 1.0
    ada_p: float = 1.0

    def draw(self, images: torch.Tensor) -> Omega:
        """Return omega for images [N, C, H, W], as ``sample`` draws it."""
        n, channels, height, width = images.shape
        return self.sample(n, height, width, images.device, channels)

    def sample(self, n: int, height: int, width: int, device: torch.device | None = None, channels: int = 3) -> Omega:
        """Return {group: omega [n, K]}, float32 in [0, 1], and further values by `group/name`.

        Only this function draws random numbers."""
        omega: Omega = {}
        for group in self.policy:
            if group in GROUPS:
                omega |= DiffAugment.sample(replace(self, policy=(group,)), n, height, width, device)
            elif group in ADA_GROUPS:
                drawn = ada_transforms.sample(group, n, self.ada_p, device, channels == 3)
                omega |= {group: ada_transforms.normalized(group, drawn), f"{group}/drawn": drawn}
                if group == "ada-noise":
                    omega[FIELD] = torch.randn([n, channels, height, width], device=device)
            else:
                omega[group] = self._sample_further(group, n, height, width, device)
                if group == "cutmix":
                    omega[PARTNER] = sample_partners(n, device)
        return omega

    def _sample_further(self, group: str, n: int, height: int, width: int, device: torch.device | None) -> torch.Tensor:
        if group == "flip":
            return sample_applied(n, self.flip, device)
        if group == "shift":
            return _sample_shift(n, height, width, self.shift, device)
        if group == "crop":
            return sample_crop(n, height, width, self.crop, device)[:, :4]
        if group == "jitter":
            return sample_jitter(n, device)
        if group == "gray":
            return sample_applied(n, self.gray, device)
        if group == "blur":
            return sample_blur(n, self.blur, device)
        return torch.cat([torch.rand([n, 1], device=device).sqrt(), torch.rand([n, 2], device=device)], dim=1)

    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        """Return T(images; omega): images [N, C, H, W] in any floating type; omega as ``sample`` returns it. CutMix
        mixes the images of the batch, all other groups transform each image separately."""
        for group in self.policy:
            if group in GROUPS:
                images = DiffAugment.apply(replace(self, policy=(group,)), images, omega)
            elif group in ADA_GROUPS:
                field = [omega[FIELD]] if group == "ada-noise" else []
                images = ada_transforms.ADA_APPLY[group](images, omega[f"{group}/drawn"], *field)
            else:
                images = self._apply_further(group, images, omega)
        return images

    def _apply_further(self, group: str, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        w = omega[group]
        if group == "flip":
            return torch.where(w[:, :, None, None] > 0, images.flip(3), images)
        if group == "shift":
            return apply_shift(images, w, self.shift)
        if group == "crop":
            return apply_crop(images, torch.cat([w, torch.zeros_like(w[:, :1])], dim=1))
        if group == "jitter":
            return apply_jitter((images + 1) / 2, w, self.jitter, self.hue) * 2 - 1
        if group == "gray":
            return apply_gray(images, w)
        if group == "blur":
            return apply_blur(images, w)
        return apply_cutmix(images, w, omega[PARTNER], self.cutmix)


def _sample_shift(n: int, height: int, width: int, ratio: float, device: torch.device | None) -> torch.Tensor:
    """Draw omega = t / (2 S) + 1/2 per axis, t an integer uniform in [-S, S], S = floor(side ratio); [n, 2]."""
    axes = []
    for side in (height, width):
        largest = int(side * ratio)
        axes.append(torch.randint(-largest, largest + 1, [n], device=device) / (2 * max(largest, 1)) + 0.5)
    return torch.stack(axes, dim=1)


def apply_shift(images: torch.Tensor, omega: torch.Tensor, ratio: float = 0.125) -> torch.Tensor:
    """Shift images by whole pixels, mirrored at the outermost ones; omega [N, 2] in [0, 1]: rows, columns.

        y[n, c, i, j] = x[n, c, m(i + t_n), m(j + t'_n)],   t_n = round(2 S (omega_n - 1/2)),  S = floor(H ratio)

    with m(i) = H - 1 - |H - 1 - |i||, and t', m' with W for columns."""
    sides = zip(images.shape[2:], omega.unbind(dim=1), strict=True)
    offset = torch.stack([(2 * int(side * ratio) * (w - 0.5)).round().long() for side, w in sides], dim=1)
    return move(images, torch.zeros(len(images), dtype=torch.bool, device=images.device), offset)


def sample_partners(n: int, device: torch.device | None = None) -> torch.Tensor:
    """Draw the places [n] in the batch of the images whose patches are pasted: 1 to n - 1 images further, the same
    distance for all, so that each is used once. A single image is its own partner."""
    step = torch.randint(1, max(n, 2), [], device=device)
    return (torch.arange(n, device=device) + step) % n


def apply_cutmix(images: torch.Tensor, omega: torch.Tensor, partner: torch.Tensor, side: float = 1.0) -> torch.Tensor:
    """Paste a patch of another image of the batch at the same place; omega [N, 3] in [0, 1]: v, centre (rows, columns).

        y[n, c, i, j] = x[p_n, c, i, j]   where a_n <= i < b_n and a'_n <= j < b'_n,  else x[n, c, i, j]
        a_n = floor(H c_n) - floor(h_n / 2),  b_n = floor(H c_n) + floor(h_n / 2),   h_n = floor(H side v_n)

    and a', b' with W for columns; a patch is cut at the border of the image. With side 1 and v^2 uniform, as
    ``AugmentFamily`` draws it, this is CutMix with alpha 1 and one patch per image. partner: [N], p."""
    inside = []
    for extent, place in zip(images.shape[2:], omega[:, 1:].unbind(dim=1), strict=True):
        half = (extent * side * omega[:, 0]).floor().div(2, rounding_mode="floor")
        centre = (place * extent).floor()
        pixel = torch.arange(extent, device=images.device)
        inside.append((pixel >= (centre - half)[:, None]) & (pixel < (centre + half)[:, None]))
    patch = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(patch, images[partner], images)
