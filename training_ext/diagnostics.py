"""Measures of D memorising its training images, and of G copying them, from logits and distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from training_ext.resize import area

SIDE = 32  # pixels, of compared images


@contextmanager
def evaluating(*modules: torch.nn.Module) -> Iterator[None]:
    """A context with modules in evaluation mode and without gradients. Afterwards submodules have their old modes."""
    modes = {part: part.training for module in modules for part in module.modules()}
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def batch_for(count: int, batch: int, group: int) -> int:
    """Return how many of `count` images to pass through D together: at most `batch`, in whole groups of `group`
    different images. With fewer images than a group needs, one group with repeated images."""
    return max(min(batch, count) // group, 1) * group


def full_batches(count: int, batch: int) -> Iterator[torch.Tensor]:
    """Yield indices [batch] over `count` items. The last batch is filled up with the first items, because the minibatch
    standard deviation takes groups of a fixed size. Use the first `count` results."""
    return (torch.arange(start, start + batch) % count for start in range(0, count, batch))


def scored(evaluate: Callable[[torch.Tensor], torch.Tensor], count: int, most: int, group: int) -> torch.Tensor:
    """Return logits [count] on the CPU. evaluate: from indices [n] to logits [n, 1], for at most `most` indices."""
    batches = full_batches(count, batch_for(count, most, group))
    return torch.cat([evaluate(index)[:, 0].float().cpu() for index in batches])[:count]


def r_t(train: torch.Tensor) -> torch.Tensor:
    """Return E[sign(D_train)], in [-1, 1], from logits [N] of training images: Karras et al. 2020, equation 1."""
    return train.sign().mean()


def r_v(train: torch.Tensor, held_out: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """Return (E[D_train] - E[D_val]) / (E[D_train] - E[D_gen]), from logits: Karras et al. 2020, equation 1.

    0: D scores unseen images like training images; 1: like generated ones. Not finite for denominator 0."""
    return (train.mean() - held_out.mean()) / (train.mean() - generated.mean())


def correct(logits: torch.Tensor, source: str) -> torch.Tensor:
    """Return 1 where D is right, else 0, in the shape of `logits`. Real images should have positive logits, generated
    ones negative logits."""
    return (logits < 0 if source == "generated" else logits > 0).float()


def summary(scores: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return all measures of logits [N] by source: `train`, `generated` and, if there are any, `held_out`.

    None stands for a measure that is undefined or not finite."""
    kinds = ("train", "held_out", "generated")
    return {
        "scores": {kind: number(scores[kind].mean()) if kind in scores else None for kind in kinds},
        "r_t": number(r_t(scores["train"])),
        "r_v": number(r_v(**scores)) if "held_out" in scores else None,
        "accuracy": {kind: number(correct(scores[kind], kind).mean()) if kind in scores else None for kind in kinds},
    }


def number(value: torch.Tensor) -> float | None:
    """Return a finite number, or None: JSON has no others."""
    return float(value) if math.isfinite(value) else None


def shrunk(images: torch.Tensor) -> torch.Tensor:
    """Shrink images [N, C, H, W] to vectors [N, F]: means over boxes of pixels, with sides of at most SIDE pixels."""
    side = images.shape[2]
    return (area(images, SIDE) if side > SIDE else images).flatten(1)


def nearest(queries: torch.Tensor, among: torch.Tensor, chunk: int = 4096) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distance of each query [N, F] to the nearest of [M, F], [N]: min_m sqrt(mean_f (q_nf - a_mf)^2), and m
    [N].

    |a|^2 - 2 q.a finds the nearest one, in chunks. Its distance is then computed directly, so that a copy has 0."""
    best = queries.new_full([len(queries)], math.inf)
    found = torch.zeros([len(queries)], dtype=torch.int64, device=queries.device)
    for start in range(0, len(among), chunk):
        others = among[start : start + chunk].to(queries)
        least, index = (others.square().sum(dim=1) - 2 * queries @ others.T).min(dim=1)
        found = torch.where(least < best, index + start, found)
        best = torch.minimum(least, best)
    found = found.to(among.device)
    return (queries - among[found].to(queries)).square().mean(dim=1).sqrt(), found
