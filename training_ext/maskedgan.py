"""MaskedGAN: D sees images without some of their patches and some of their bands of frequencies.

Huang, Cui, Guan, Xiao, Zhan, Lu, Liao, Xing, "Masked Generative Adversarial Networks are Data-Efficient Generation
Learners" (NeurIPS 2022). There is no code of the authors'. Theirs are the two masks: patches of a grid with a random
shift, and bands of the spectrum with probabilities that follow the image. All numbers, and the details of the rules
below, are ours (docs/methods/maskedgan.md says what they were taken from).

Symbols: N images x [N, C, H, W]; G patches along each side; B bands (training_ext.genco). Everything is linear in the
images, for given masks: differentiable as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training_ext.diffaugment import Omega, Transformation
from training_ext.genco import band_of, keep_bands


@dataclass(frozen=True)
class ImageMask(Transformation):
    """T(x; omega) = M_spatial . F^-1( M_spectral F x ), masks of each image's own.

    =========  ==============================================  ======================================================
    group      omega in [0, 1]                                 strength
    =========  ==============================================  ======================================================
    patches    [N, G G]: 1 for a patch that is masked          ``patches``: share of them, in [0, 1]; ``grid``: G
    shift      [N, 2]: of the grid, in patches: rows, columns
    bands      [N, B]: 1 for a band that is masked             ``masked_bands``: how many on average; ``bands``: B
    =========  ==============================================  ======================================================

    A strength of 0 is off, and has no omega."""

    patches: float = 0.25
    grid: int = 16
    masked_bands: float = 1.0
    bands: int = 64

    def draw(self, images: torch.Tensor) -> Omega:
        """Return omega for images [N, C, H, W]: their bands decide how likely they are masked."""
        omega = self.sample(len(images), images.shape[2], images.shape[3], images.device)
        if self.masked_bands:
            likely = band_probabilities(images, self.bands, self.masked_bands)
            omega["bands"] = (torch.rand(likely.shape, device=likely.device) < likely).float()
        return omega

    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega:
        """Returns what does not depend on the images."""
        if not self.patches:
            return {}
        order = torch.rand([n, self.grid**2], device=device).argsort(dim=1)
        masked = (order < round(self.patches * self.grid**2)).float()
        return {"patches": masked, "shift": torch.rand([n, 2], device=device)}

    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        """T(images; omega): images [N, C, H, W] in float32 or float64."""
        if "bands" in omega:
            images = keep_bands(images, omega["bands"] == 0)
        if "patches" in omega:
            images = mask_patches(images, omega["patches"], omega["shift"])
        return images


@torch.no_grad()
def band_probabilities(images: torch.Tensor, bands: int, masked: float) -> torch.Tensor:
    """How likely each band of each image is masked, [N, B] in [0, 1]:

        p_b = min(1, masked a_b / sum_j a_j),   a_b = sum of |F x| over channels and the frequencies of band b

    so that bands of large amplitude, the ones that D could rely on alone, are masked more often, and about `masked` of
    them at a time. A band without frequencies, or without amplitude, never is. Without gradient."""
    rows, columns = (band_of(side, bands, images.device) for side in images.shape[2:])
    ring = torch.maximum(rows[:, None], columns)
    amplitude = torch.fft.fft2(images.float()).abs().sum(dim=1)  # [N, H, W]
    content = amplitude.new_zeros([len(images), bands + 1]).index_add_(1, ring.flatten(), amplitude.flatten(1))
    content = content[:, :bands]
    return (masked * content / content.sum(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)


def mask_patches(images: torch.Tensor, patches: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """0 in the patches of a shifted grid; patches [N, G G] 1 or 0, shift [N, 2] in [0, 1].

        y[n, c, i, j] = 0   where m_n[g(i + s_n), g'(j + s'_n)] = 1,  else x[n, c, i, j]
        g(i) = floor(G (i mod H) / H),   s_n = floor(shift_n H / G)

    and g', s' with W for columns. The grid goes round: what a shift pushes out comes in at the other end."""
    grid = round(patches.shape[1] ** 0.5)
    places = []
    for side, moved in zip(images.shape[2:], shift.unbind(dim=1), strict=True):
        start = (moved * side / grid).floor().long()
        pixel = (torch.arange(side, device=images.device) + start[:, None]) % side
        places.append((pixel * grid).div(side, rounding_mode="floor"))  # [N, side]
    n = torch.arange(len(images), device=images.device)[:, None, None]
    masked = patches.reshape(-1, grid, grid)[n, places[0][:, :, None], places[1][:, None, :]]  # [N, H, W]
    return images.masked_fill(masked.unsqueeze(1) > 0, 0)
