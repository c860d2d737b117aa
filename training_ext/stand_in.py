"""D's input as the host's own loss makes it: by its run_D, with a stand-in for D."""

from __future__ import annotations

from typing import Any

import torch

from stylegan_plugins.errors import PluginError


class _StandIn(torch.nn.Module):
    """Takes D's place in the host's run_D, and returns what D would have seen."""

    images: torch.Tensor | None = None

    def forward(self, images: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.images, self.kwargs = images, kwargs
        return images


def input_of_D(loss: Any, images: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, dict]:
    """Return what D of a host's loss would see of images [N, C, H, W] with labels [N, c_dim], after blur and ADA, and
    its further arguments. kwargs: those of run_D. Raises PluginError for a fork whose run_D does something else."""
    D, loss.D = loss.D, _StandIn()
    try:
        result, stand_in = loss.run_D(images, labels, **kwargs), loss.D
    finally:
        loss.D = D
    if stand_in.images is None or result is not stand_in.images:
        raise PluginError(
            "This host's loss has its own run_D, which returns more than D's logits or does not call D: "
            "plug-ins cannot work with it. Train without --plugin."
        )
    return result, stand_in.kwargs
