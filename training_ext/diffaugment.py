"""DiffAugment: one differentiable random transformation T(x; omega) of real and generated images.

Zhao, Liu, Lin, Zhu, Han, "Differentiable Augmentation for Data-Efficient GAN Training" (NeurIPS 2020,
arXiv:2006.10738). The strengths and the normalised parameters omega are from AugSelf-GAN (Hou et al., NeurIPS 2023,
arXiv:2205.15677). With the default strengths each transformation equals DiffAugment's.

``DiffAugment.sample`` draws omega. ``DiffAugment.apply`` is a deterministic function of images and omega, so that
parameters can be reported, learnt and applied again. Everything is twice differentiable with respect to the images,
because the gradient penalty R1 goes through T. Values are not clamped. Pixels that T uncovers or cuts are 0, which is
mid-grey for images in [-1, 1].

Symbols: x images [N, C, H, W], nominally in [-1, 1]; u uniform in [0, 1); i row, j column, both from 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

GROUPS = {"color": 3, "translation": 2, "cutout": 2}  # name -> K, the width of its omega [N, K]
Omega = dict[str, torch.Tensor]  # by group


class Transformation(ABC):
    """T(x; omega) in two steps: ``sample`` draws, ``apply`` transforms."""

    def draw(self, images: torch.Tensor) -> Omega:
        """Return omega for images [N, C, H, W], as ``sample`` draws it."""
        return self.sample(images.shape[0], images.shape[2], images.shape[3], images.device)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, Omega]:
        """Draw omega and apply it. Return T(images; omega) [N, C, H, W] and omega {group: [N, K]}."""
        omega = self.draw(images)
        return self.apply(images, omega), omega

    @abstractmethod
    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega: ...

    @abstractmethod
    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor: ...


@dataclass(frozen=True)
class DiffAugment(Transformation):
    """T(x; omega), one draw per image, as a chain of the groups in ``policy``, in that order.

    =============  ========================================  ====================================================
    group          omega [N, K] in [0, 1]                    strength
    =============  ========================================  ====================================================
    color          draws for brightness, saturation,         factor on the deviation from "unchanged", >= 0
                   contrast                                  (``brightness``, ``saturation``, ``contrast``)
    translation    place in the range of shifts: rows,       largest shift / side, in [0, 1]
                   columns; 1/2: no shift
    cutout         place in the range of offsets: rows,      side of the hole / side of the image, in [0, 1]
                   columns; 1/2: a hole in the middle
    =============  ========================================  ====================================================

    The scale of omega does not depend on the strength. policy: names of GROUPS; an empty one is the identity."""

    policy: tuple[str, ...] = tuple(GROUPS)
    brightness: float = 1.0
    saturation: float = 1.0
    contrast: float = 1.0
    translation: float = 0.125
    cutout: float = 0.5

    def sample(self, n: int, height: int, width: int, device: torch.device | None = None) -> Omega:
        """Return {group: omega [n, K]}, float32 in [0, 1], for n images of height x width.

        Only this function draws random numbers. It calls torch.rand or torch.randint once per component, in the order
        of the policy, like the authors' code, so a seed gives the same images as there."""
        draw = {
            "color": lambda: torch.stack([torch.rand([n], device=device) for _ in range(GROUPS["color"])], dim=1),
            "translation": lambda: _sample_translation(n, height, width, self.translation, device),
            "cutout": lambda: _sample_cutout(n, height, width, self.cutout, device),
        }
        return {group: draw[group]() for group in self.policy}

    def apply(self, images: torch.Tensor, omega: Omega) -> torch.Tensor:
        """Return T(images; omega): images [N, C, H, W] in any floating type, any C, H, W; omega from ``sample``.

        The result has the same shape and type; with an empty policy it is the same tensor."""
        transform = {
            "color": lambda x, w: apply_color(x, w, self.brightness, self.saturation, self.contrast),
            "translation": lambda x, w: apply_translation(x, w, self.translation),
            "cutout": lambda x, w: apply_cutout(x, w, self.cutout),
        }
        for group in self.policy:
            images = transform[group](images, omega[group])
        return images


def apply_color(
    images: torch.Tensor, omega: torch.Tensor, brightness: float = 1.0, saturation: float = 1.0, contrast: float = 1.0
) -> torch.Tensor:
    """Change brightness, saturation and contrast, in this order; omega = (u_b, u_s, u_c) [N, 3] in [0, 1].

        x <- x + b (u_b - 1/2)
        x <- m + (1 + s (2 u_s - 1)) (x - m)      m [N, 1, H, W]: mean over channels
        x <- M + (1 + c (u_c - 1/2)) (x - M)      M [N, 1, 1, 1]: mean over the image, after the two steps above

    with the strengths b, s, c. At strength 1: an offset in [-1/2, 1/2), factors in [0, 2) and [1/2, 3/2). The second
    line does not change an image with one channel, so that one component of its omega has no effect."""
    u_b, u_s, u_c = omega.to(images.dtype).reshape(-1, 3, 1, 1, 1).unbind(dim=1)  # each [N, 1, 1, 1]
    images = images + brightness * (u_b - 0.5)
    images = spread(images, images.mean(dim=1, keepdim=True), 1 + saturation * (2 * u_s - 1))
    return spread(images, images.mean(dim=[1, 2, 3], keepdim=True), 1 + contrast * (u_c - 0.5))


def spread(images: torch.Tensor, centre: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return centre + factor * (images - centre)


def _sample_translation(n: int, height: int, width: int, ratio: float, device: torch.device | None) -> torch.Tensor:
    """Draw omega = t / (2 S) + 1/2 per axis, t an integer uniform in [-S, S]; [n, 2]. With S = 0 all are 1/2."""
    axes = []
    for side in (height, width):
        largest = _round_half_up(side * ratio)
        shift = torch.randint(-largest, largest + 1, [n], device=device)
        axes.append(shift / (2 * max(largest, 1)) + 0.5)
    return torch.stack(axes, dim=1)


def apply_translation(images: torch.Tensor, omega: torch.Tensor, ratio: float = 0.125) -> torch.Tensor:
    """Shift images by whole pixels, with zeros at the border; omega [N, 2] in [0, 1]: rows, columns.

        y[n, c, i, j] = x[n, c, i + t_n, j + t'_n]   where this pixel exists, else 0
        t_n = round(2 S (omega_n - 1/2)),  S = floor(H ratio + 1/2),  and t', S' with W for columns

    t > 0 moves the content up, t' > 0 to the left."""
    height, width = images.shape[2:]
    rows = _shifted(height, omega[:, 0], ratio)  # [N, H]: the row that row i is read from, perhaps outside the image
    cols = _shifted(width, omega[:, 1], ratio)  # [N, W]
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((cols >= 0) & (cols < width)).unsqueeze(1)  # [N, H, W]
    # Rows and columns are read cyclically, and pixels from the other side are blanked. So each pixel is read exactly
    # once, and the backward pass never adds two gradients: exact, whatever the order of a GPU's atomic additions.
    source = rows.remainder(height).unsqueeze(2) * width + cols.remainder(width).unsqueeze(1)  # [N, H, W]
    source = source.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)  # [N, C, H W]
    moved = images.flatten(2).gather(2, source).reshape(images.shape)
    return moved.masked_fill(~inside.unsqueeze(1), 0)


def _shifted(side: int, omega: torch.Tensor, ratio: float) -> torch.Tensor:
    shift = (2 * _round_half_up(side * ratio) * (omega - 0.5)).round().long()  # [N]
    return torch.arange(side, device=omega.device) + shift.unsqueeze(1)


def _hole(side: int, ratio: float) -> tuple[int, int]:
    """Return (h, R): the side of the hole and the largest offset, both in pixels."""
    hole = _round_half_up(side * ratio)
    return hole, side - hole % 2  # an odd hole is centred on one of H pixels, an even one on one of H + 1 pixel borders


def _sample_cutout(n: int, height: int, width: int, ratio: float, device: torch.device | None) -> torch.Tensor:
    """Draw omega = o / R per axis, o an integer uniform in [0, R], R as in apply_cutout; [n, 2]. With R = 0 it is 0."""
    axes = []
    for side in (height, width):
        _, largest = _hole(side, ratio)
        offset = torch.randint(0, largest + 1, [n], device=device)
        axes.append(offset / max(largest, 1))
    return torch.stack(axes, dim=1)


def apply_cutout(images: torch.Tensor, omega: torch.Tensor, ratio: float = 0.5) -> torch.Tensor:
    """Blank one rectangle, which may cross the border; omega [N, 2] in [0, 1]: rows, columns.

        y[n, c, i, j] = 0   where 0 <= i - a_n < h and 0 <= j - a'_n < h',  else x[n, c, i, j]
        a_n = o_n - floor(h / 2),  o_n = round(R omega_n),  h = floor(H ratio + 1/2),  R = H - (h mod 2)

    and a', o', h', R' with W for columns."""
    height, width = images.shape[2:]
    rows = _cut(height, omega[:, 0], ratio)  # [N, H]
    cols = _cut(width, omega[:, 1], ratio)  # [N, W]
    return images.masked_fill((rows.unsqueeze(2) & cols.unsqueeze(1)).unsqueeze(1), 0)


def _cut(side: int, omega: torch.Tensor, ratio: float) -> torch.Tensor:
    hole, largest = _hole(side, ratio)
    start = (largest * omega).round().long() - hole // 2  # [N]
    position = torch.arange(side, device=omega.device) - start.unsqueeze(1)  # [N, side]
    return (position >= 0) & (position < hole)


def _round_half_up(value: float) -> int:
    return int(value + 0.5)  # as in the authors' code; Python's round() goes to even
