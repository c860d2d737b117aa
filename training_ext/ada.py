"""ADA (Karras et al. 2020, arXiv:2006.06676, section 3): its controller for any probability p, and a repetition of its
geometric transformations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from stylegan_plugins.host.randomness import RandomState, drawn_again, random_state

CHANNELS = 64  # moved at a time: the pipe pads and enlarges maps, which takes memory
# Transformations of the hosts' pipe that change values. The others move pixels, draw before these, and draw the same
# amount of numbers for any size.
VALUES = ("brightness", "contrast", "lumaflip", "hue", "saturation", "imgfilter", "noise", "cutout")


class AdaptiveProbability:
    """A controller of p. It raises p while the mean sign of logits of real images is above the target, and lowers p
    below it.

    p       a tensor [] that is changed in place; it starts at 0
    target  mean sign, in [-1, 1]
    kimg    thousands of images in which p can change by 1
    most    the largest p; None: no bound, as in the hosts"""

    def __init__(self, p: torch.Tensor, target: float, kimg: float, most: float | None = None) -> None:
        self.p = p.zero_()
        self.target, self.kimg, self.most = target, kimg, most
        self.signs = torch.zeros([2], dtype=torch.float64, device=p.device)  # their number, their sum

    def observe(self, logits: torch.Tensor) -> None:
        """Record the signs of logits of real images, [N, K]."""
        signs = logits.detach().sign().double()
        self.signs += torch.stack([torch.full_like(signs.sum(), signs.numel()), signs.sum()])

    def update(self, num_gpus: int, images: int | None = None) -> None:
        """Change p by the observations of all processes since the last change.

        images: the number of images since then, to which the change is proportional; None: the number of observed
        logits"""
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


@contextmanager
def noting_draws(pipe: torch.nn.Module | None) -> Iterator[list[RandomState]]:
    """A context with a list that gets the random state at the start of each call of a pipe."""
    states: list[RandomState] = []

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        states.append(random_state(inputs[0].device))

    if pipe is None:
        yield states
        return
    hook = pipe.register_forward_pre_hook(note)
    try:
        yield states
    finally:
        hook.remove()


def moves(pipe: Any, states: list[RandomState]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that moves maps [N, C, h, w] as the hosts' pipe moved images after the last of these random
    states, in relative coordinates (whole pixels where the pipe moves by whole pixels). Without states the function
    returns the maps unchanged. The random numbers of the run stay as they are."""
    if not states:
        return lambda maps: maps
    # A copy that only moves pixels and shares p. (copy.copy would rebuild the host's class from its source.)
    moving = object.__new__(type(pipe))
    moving.__dict__ = pipe.__dict__ | dict.fromkeys(VALUES, 0.0)

    def move(maps: torch.Tensor) -> torch.Tensor:
        parts = []
        for part in maps.split(CHANNELS, dim=1):
            with drawn_again(states[-1], maps.device):
                parts.append(moving(part))
        return torch.cat(parts, dim=1)

    return move
