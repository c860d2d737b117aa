"""A ranking of backbones by how well a linear probe on their features tells real from generated images.

Kumari et al. 2022 (arXiv:2112.09130), section 3.3: the backbone with the highest accuracy of a linear classifier on
held-out images gives the discriminator that helps most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stylegan_plugins.errors import DataError, require
from stylegan_plugins.vision.extractors import batches_of, extract
from stylegan_plugins.vision.networks import Levels, from_uint8

MOST = 10_000  # real images, and as many generated ones
FEWEST = 8
SPLITS = 3
MEMORY = 2 << 30  # most bytes of generated images that are kept


@dataclass(frozen=True)
class ProbedBackbone:
    """Accuracies of a linear probe in [0, 1], mean and standard deviation over splits."""

    model: str
    features: int
    images: int  # real and generated
    accuracy: float
    deviation: float
    training: float


def pooled(levels: Levels, batches: Iterable[torch.Tensor], label: str, count: int) -> np.ndarray:
    """Return pooled features [M, F] of `count` uint8 images, in batches [n, C, H, W], not augmented."""
    device = levels.backbone.mean.device
    return extract(lambda images: {"": levels.pooled(from_uint8(images, device))}, batches, count, label)[""]


def real_batches(dataset: Any, count: int) -> Iterator[torch.Tensor]:
    """Yield `count` different images of a data set of the host, uint8 [n, C, H, W]."""
    order = np.random.RandomState(0).permutation(len(dataset))[:count]
    return batches_of(dataset[int(index)][0] for index in order)


def probe(real: np.ndarray, generated: np.ndarray) -> tuple[list[float], list[float]]:
    """Return accuracies on the held-out half and on the other half, for each split. real, generated: [M, F].

    The classifier is the authors': a logistic regression on raw features, C = 0.2."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_validate

    model = LogisticRegression(C=0.2, max_iter=5000)
    target = np.repeat([1, 0], [len(real), len(generated)])
    splits = StratifiedShuffleSplit(SPLITS, test_size=0.5, random_state=0)
    how: dict[str, Any] = dict(cv=splits, return_train_score=True, error_score="raise")
    found = cross_validate(model, np.concatenate([real, generated]), target, **how)
    return found["test_score"].tolist(), found["train_score"].tolist()


def rank(
    models: Mapping[str, Callable[[], Levels]],
    dataset: Any,
    generated: Callable[[int], Iterable[torch.Tensor]],
    most: int = MOST,
) -> list[ProbedBackbone]:
    """Return the rows of all models, best first. One network at a time is made, used and freed.

    models      functions that make the networks, by name
    dataset     the host's data set
    generated   from a number to batches with this number of images, uint8, always the same ones
    Raises DataError for fewer than 8 real images, or if scikit-learn is missing."""
    require("sklearn")
    count = min(len(dataset), most)
    if count < FEWEST:
        raise DataError(f"--data: {count} images are too few to choose a backbone by; it takes {FEWEST}.")
    rows = []
    small = count * math.prod(dataset.image_shape) < MEMORY
    kept = list(generated(count)) if small and models else None  # else generated again for each network
    for name, make in models.items():
        levels = make()
        real = pooled(levels, real_batches(dataset, count), f"{name}: real", count)
        made = pooled(levels, kept or generated(count), f"{name}: generated", count)
        del levels  # frees the memory before the next network
        held_out, training = probe(real, made)
        figures = map(float, (np.mean(held_out), np.std(held_out), np.mean(training)))
        rows.append(ProbedBackbone(name, real.shape[1], 2 * count, *figures))
    return sorted(rows, key=lambda row: -row.accuracy)
