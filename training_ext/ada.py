"""ADA's controller of a probability, for any p (Karras et al. 2020, arXiv:2006.06676, section 3)."""

from __future__ import annotations

import torch


class AdaptiveProbability:
    """p follows the mean sign of logits of real images: it rises while that is above the target, and falls below it.

    p       a tensor [] that is changed in place; it starts at 0
    target  mean sign, in [-1, 1]
    kimg    thousands of images in which p can change by 1
    most    the largest p; None: no bound, as in the hosts"""

    def __init__(self, p: torch.Tensor, target: float, kimg: float, most: float | None = None) -> None:
        self.p = p.zero_()
        self.target, self.kimg, self.most = target, kimg, most
        self.signs = torch.zeros([2], dtype=torch.float64, device=p.device)  # their number, their sum

    def observe(self, logits: torch.Tensor) -> None:
        """Take note of logits of real images, [N, K]."""
        signs = logits.detach().sign().double()
        self.signs += torch.stack([torch.full_like(signs.sum(), signs.numel()), signs.sum()])

    def update(self, num_gpus: int, images: int | None = None) -> None:
        """Change p by what was observed on all processes since the last change.

        images: the number of images in this time, by which p changes; None: that of the logits observed"""
        signs = self.signs.clone()
        if num_gpus > 1:
            torch.distributed.all_reduce(signs)
        if signs[0] == 0:
            return
        count = signs[0] if images is None else images
        step = torch.sign(signs[1] / signs[0] - self.target) * count / (self.kimg * 1000)
        self.p.copy_((self.p + step).clamp(min=0, max=self.most))
        self.signs.zero_()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"p": self.p, "signs": self.signs}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.p.copy_(state["p"])
        self.signs.copy_(state["signs"])
