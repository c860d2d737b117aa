"""bCR: D judges an image as it judges the same image flipped and shifted, be it real or generated.

Zhao, Singh, Lee, Zhang, Odena, Zhang: Improved Consistency Regularization for GANs (AAAI 2021, arXiv:2002.04724).

    L_D += real_weight E (D(x) - D(T(x)))^2 + generated_weight E (D(G(z)) - D(T(G(z))))^2
    T(x)[i, j] = x[i + dy, +-(j + dx)],    dx, dy uniform in -s..s pixels, the border reflected

with both weights 10 (the paper), and a flip in half of the images. Gradients reach D through both logits; G's step is
left alone. x is what the critic judges, after ADA and all augmentations, so that T alone makes the difference; D's
minibatch-stddev groups have the same images in both batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_plugins import Images, Session, Step, Term, View, hookimpl, option

PAPER = "Zhao et al. 2021, Improved Consistency Regularization for GANs, arXiv:2002.04724"


@dataclass(frozen=True)
class BCROptions:
    real_weight: float = option(10.0, "weight of the term of real images, 0 = off", minimum=0)
    generated_weight: float = option(10.0, "weight of the term of generated images, 0 = off", minimum=0)
    shift: float = option(0.125, "largest shift, in image sides", minimum=0, maximum=0.5)


OPTIONS = BCROptions


@hookimpl
def setup(session: Session, options: BCROptions) -> Method:
    return Method(options)


class Method:
    def __init__(self, options: BCROptions) -> None:
        self.shift = options.shift
        view = View("bcr", self.moved, judged=True)
        self.terms = [
            Term("bcr_real", "D", consistency, options.real_weight, on="real", views=[view]),
            Term("bcr_generated", "D", consistency, options.generated_weight, on="generated", views=[view]),
        ]

    def moved(self, images: Images) -> torch.Tensor:
        """Return T of what the critic judges, [N, C, H, W]."""
        flip, offset = draw(images.shown, self.shift)
        return move(images.shown, flip, offset)


def consistency(step: Step) -> torch.Tensor:
    """Return (D(x) - D(T(x)))^2, [N]."""
    return (step.one.logits - step.one.views["bcr"].logits).square().flatten(1).mean(dim=1)


def draw(images: torch.Tensor, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw which images are flipped, bool [N], and dy and dx in pixels, [N, 2]; shift: the largest, in image sides."""
    count, device, largest = len(images), images.device, round(shift * images.shape[-1])
    flip = torch.rand([count], device=device) < 0.5
    return flip, torch.randint(-largest, largest + 1, [count, 2], device=device)


def move(images: torch.Tensor, flip: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Return images [N, C, H, W], those with `flip` [N] mirrored, then shifted by `offset` [N, 2] in pixels."""
    size = images.shape[-1]
    places = torch.arange(size, device=images.device) + offset.unsqueeze(2)
    rows, columns = (size - 1 - (size - 1 - places.abs()).abs()).unbind(dim=1)  # reflected at 0 and at size - 1
    columns = torch.where(flip.unsqueeze(1), size - 1 - columns, columns)
    items = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[items, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
