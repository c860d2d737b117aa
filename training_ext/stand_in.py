"""D's input from the host's own loss: a call of its run_D with a stand-in for D."""

from __future__ import annotations

from typing import Any

import torch

from stylegan_plugins.errors import PluginError


class _StandIn(torch.nn.Module):
    """A stand-in for D in the host's run_D, which returns D's input."""

    images: torch.Tensor | None = None

    def forward(self, images: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.images, self.kwargs = images, kwargs
        return images


def input_of_D(loss: Any, images: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, dict]:
    """Return D's input in a host's loss for images [N, C, H, W] with labels [N, c_dim], after blur and ADA, and D's
    further arguments. kwargs: arguments of run_D. Raises PluginError for a fork with a different run_D."""
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
