"""Nearest images of a data set by distances with features too large to keep: pixel-wise L1, and LPIPS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from stylegan_plugins.errors import OptionError
from stylegan_plugins.files import datasets
from stylegan_plugins.vision import perceptual
from stylegan_plugins.vision.extractors import batches_of, extract
from stylegan_plugins.vision.perceptual import Perceptual

L1 = "l1"
MEMORY = 1 << 30  # bytes of features held at once: of samples, not of the data set
PIECE = 4096  # features of a vector summed at once
Features = Callable[[torch.Tensor], torch.Tensor]  # uint8 [n, C, H, W] -> [n, F]
Distances = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # [n, F], [m, F] -> [n, m]


def absolute(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return mean absolute differences [n, m]."""
    return torch.stack([torch.cdist(a, b, p=1) for a, b in _pieces(one, other)]).sum(dim=0) / one.shape[1]


def squared(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return squared Euclidean distances [n, m]. They are not computed from products, so a copy has 0."""
    how = "donot_use_mm_for_euclid_dist"
    return torch.stack([torch.cdist(a, b, compute_mode=how).square() for a, b in _pieces(one, other)]).sum(dim=0)


def _pieces(one: torch.Tensor, other: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield pieces of all vectors: cdist adds one number after another, and long sums lose digits."""
    return zip(one.split(PIECE, dim=1), other.split(PIECE, dim=1), strict=True)


def by_name(text: str, device: torch.device, flag: str = "--features") -> tuple[Features, Distances] | None:
    """Return features and distances of `l1`, `lpips` or `lpips=FILE`; None for any other name.

    Raises OptionError or DataError if weights are not available."""
    name, equals, file = (part.strip() for part in text.partition("="))
    if equals and (name == L1 or (name == perceptual.NAME and not file)):
        raise OptionError(f"{flag}={text}: give l1, lpips, or lpips=FILE with AlexNet's weights.")
    if name == L1:
        return lambda images: images.to(device).float().flatten(1) / 127.5, absolute
    return (Perceptual(file or None, device, flag), squared) if name == perceptual.NAME else None


class StreamedNeighbours:
    """The nearest images of a data set, which is read again for each search, one batch at a time.

    data    path of a folder or zip, as hosts take it
    label   label of the progress bar"""

    def __init__(self, data: str, features: Features, distances: Distances, label: str) -> None:
        self.data, self.features, self.distances, self.label = data, features, distances, label

    def nearest(self, images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return for each image, uint8 [H, W, C], the nearest image of the data set, and the distances [n]."""
        names, _ = datasets.read_images(self.data)
        least, found = [], []
        start = 0
        while start < len(images):
            first = self._of(images[start : start + 1])
            count = max(MEMORY // (first.shape[1] * first.element_size()), 1)
            distances, indices = self._search(self._of(images[start : start + count]), len(names))
            least.append(distances)
            found.append(indices)
            start += count
        chosen = [names[int(index)] for index in torch.cat(found)]
        shown = [image.transpose(1, 2, 0) for image in datasets.read_named(self.data, chosen)]
        return shown, torch.cat(least).numpy()

    def closest(self, image: np.ndarray, count: int) -> list[tuple[np.ndarray, float]]:
        """Return the `count` images of the data set nearest to an image, uint8 [H, W, C], with their distances, nearest
        first."""
        names, images = datasets.read_images(self.data)
        sample = self._of([image])
        distances_to = lambda batch: {"": self.distances(self.features(batch), sample)}
        distances = extract(distances_to, batches_of(images), len(names), self.label)[""][:, 0]
        order = np.argsort(distances, kind="stable")[:count]
        shown = datasets.read_named(self.data, [names[index] for index in order])
        return [(found.transpose(1, 2, 0), float(d)) for found, d in zip(shown, distances[order], strict=True)]

    def _of(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        with torch.no_grad():
            batches = batches_of(image.transpose(2, 0, 1) for image in images)
            return torch.cat([self.features(batch) for batch in batches])

    def _search(self, samples: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distances of samples [n, F] to the nearest images, and the images' indices, on the CPU."""
        _, images = datasets.read_images(self.data)
        best = samples.new_full([len(samples)], math.inf)
        found = torch.zeros([len(samples)], dtype=torch.int64, device=samples.device)
        seen = 0

        def compare(batch: torch.Tensor) -> dict[str, torch.Tensor]:
            nonlocal best, found, seen
            values, index = self.distances(samples, self.features(batch)).min(dim=1)
            found = torch.where(values < best, index + seen, found)
            best, seen = torch.minimum(values, best), seen + len(batch)
            return {"": torch.zeros([0])}

        extract(compare, batches_of(images), count, self.label)
        return best.cpu(), found.cpu()
