"""MaskedGAN: D sees images without some of their patches and some of their bands of frequencies.

Huang, Cui, Guan, Xiao, Zhan, Lu, Liao, Xing, "Masked Generative Adversarial Networks are Data-Efficient Generation
Learners" (NeurIPS 2022). The authors published no code. The two masks are theirs: patches of a grid with a random
shift, and bands of the spectrum with probabilities that depend on the image. All numbers, and the details of the rules
below, are ours (docs/methods/maskedgan.md names their sources).

Symbols: N images x [N, C, H, W]; G patches along each side; B bands (training_ext.genco). For given masks everything is
linear in the images, with derivatives of any order."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training_ext.diffaugment import Omega, Transformation
from training_ext.genco import band_of, keep_bands


@dataclass(frozen=True)
class ImageMask(Transformation):
    """T(x; omega) = M_spatial . F^-1( M_spectral F x ), with separate masks for each image.

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
        """Return omega for images [N, C, H, W], whose amplitudes determine the probabilities of masked bands."""
        omega = self.sample(len(images), images.shape[2], images.shape[3], images.device)
        if self.masked_bands:
            likely = band_probabilities(images, self.bands, self.masked_bands)
            omega["bands"] = (torch.rand(likely.shape, device=likely.device) < likely).float()
        return omega

    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega:
        """Return the groups of omega that do not depend on the images."""
        if not self.patches:
            return {}
        order = torch.rand([n, self.grid**2], device=device).argsort(dim=1)
        masked = (order < round(self.patches * self.grid**2)).float()
        return {"patches": masked, "shift": torch.rand([n, 2], device=device)}

    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        """Return T(images; omega): images [N, C, H, W] in float32 or float64."""
        if "bands" in omega:
            images = keep_bands(images, omega["bands"] == 0)
        if "patches" in omega:
            images = mask_patches(images, omega["patches"], omega["shift"])
        return images


@torch.no_grad()
def band_probabilities(images: torch.Tensor, bands: int, masked: float) -> torch.Tensor:
    """Return the probability of masking each band of each image, [N, B] in [0, 1], without gradient:

        p_b = min(1, masked a_b / sum_j a_j),   a_b = sum of |F x| over channels and the frequencies of band b

    Bands of large amplitude, on which D could rely alone, are masked more often, about `masked` bands at a time. A band
    without frequencies, or without amplitude, is never masked."""
    rows, columns = (band_of(side, bands, images.device) for side in images.shape[2:])
    ring = torch.maximum(rows[:, None], columns)
    amplitude = torch.fft.fft2(images.float()).abs().sum(dim=1)  # [N, H, W]
    content = amplitude.new_zeros([len(images), bands + 1]).index_add_(1, ring.flatten(), amplitude.flatten(1))
    content = content[:, :bands]
    return (masked * content / content.sum(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)


def mask_patches(images: torch.Tensor, patches: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Set masked patches of a shifted grid to 0; patches [N, G G] 1 or 0, shift [N, 2] in [0, 1].

        y[n, c, i, j] = 0   where m_n[g(i + s_n), g'(j + s'_n)] = 1,  else x[n, c, i, j]
        g(i) = floor(G (i mod H) / H),   s_n = floor(shift_n H / G)

    and g', s' with W for columns. The grid is cyclic: rows and columns that leave at one end enter at the other."""
    grid = round(patches.shape[1] ** 0.5)
    places = []
    for side, moved in zip(images.shape[2:], shift.unbind(dim=1), strict=True):
        start = (moved * side / grid).floor().long()
        pixel = (torch.arange(side, device=images.device) + start[:, None]) % side
        places.append((pixel * grid).div(side, rounding_mode="floor"))  # [N, side]
    n = torch.arange(len(images), device=images.device)[:, None, None]
    masked = patches.reshape(-1, grid, grid)[n, places[0][:, :, None], places[1][:, None, :]]  # [N, H, W]
    return images.masked_fill(masked.unsqueeze(1) > 0, 0)
