"""Behind the controls of `stylegan-plugins explore`: samples, directions in w, walks, nearest training images."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from stylegan_plugins.analysis import pictures, sample
from stylegan_plugins.analysis.loading import LoadedGenerator
from stylegan_plugins.analysis.pictures import Near, Video
from stylegan_plugins.errors import OptionError

DIRECTIONS = 6  # directions that have a slider
DRAWN = 2048  # w drawn to compute the principal components
FARTHEST = 3.0  # standard deviations along a direction
BATCH = 64  # z that the mapping network takes at a time
SMALLEST = 384  # side of a picture on the page
NEAREST = 4


class Explorer:
    """A generator, and directions in its latent space.

    folder  folder of pictures, removed with the process"""

    def __init__(self, generator: LoadedGenerator, near: Near | None) -> None:
        self.generator = generator
        self.near = near
        self._directories = tempfile.TemporaryDirectory(prefix="stylegan-plugins-")
        self.folder = Path(self._directories.name)
        self._directions: dict[str | None, tuple[torch.Tensor, torch.Tensor]] = {}

    def directions(self, label: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return principal components of w, [K, w_dim] of length 1, and standard deviations along them, [K], largest
        first (GANSpace, Haerkoenen et al. 2020, arXiv:2004.02546). label: a class; None without classes."""
        if label not in self._directions:
            G = self.generator
            z = torch.from_numpy(np.random.RandomState(0).randn(DRAWN, G.z_dim))
            w = torch.cat([G.mapping(part, label, truncation=1)[:, 0] for part in z.split(BATCH)]).double()
            values, vectors = torch.linalg.eigh(torch.cov(w.T))  # ascending
            components = vectors.T.flip(0)[:DIRECTIONS]
            signs = components.gather(1, components.abs().argmax(1, keepdim=True)).sign()  # else a library's choice
            deviations = values.flip(0)[:DIRECTIONS].clamp(min=0).sqrt()
            self._directions[label] = (components * signs).float(), deviations.float()
        return self._directions[label]

    def moved(
        self, w: torch.Tensor, amounts: Sequence[float], layers: tuple[int, int], label: str | None = None
    ) -> torch.Tensor:
        """Return w [1, num_ws, w_dim] moved along directions by `amounts` standard deviations. layers: first and last
        layer to move, from 0, the coarsest."""
        components, deviations = self.directions(label)
        by = torch.tensor([*amounts, *[0.0] * (len(components) - len(amounts))]).to(components)
        step = (by * deviations) @ components
        result = w.clone()
        result[:, min(layers) : max(layers) + 1] += step.to(w)
        return result

    def latent(
        self,
        seed: int,
        truncation: float,
        label: str | None = None,
        like: PIL.Image.Image | None = None,
        amounts: Sequence[float] = (),
        layers: tuple[int, int] = (0, 1 << 10),
    ) -> torch.Tensor:
        """Return w [1, num_ws, w_dim] of a seed, moved along directions. Raises OptionError or DataError."""
        (w,) = self.generator.latents(seed, truncation=truncation, class_=label, like=like)
        return self.moved(w, amounts, layers, label) if any(amounts) else w

    def picture(self, w: torch.Tensor) -> PIL.Image.Image:
        """Return the image of w [1, num_ws, w_dim]."""
        return sample.picture_of(sample.render(self.generator.network, w))

    def shown(self, image: PIL.Image.Image) -> PIL.Image.Image:
        """Return an image enlarged for a page."""
        times = max(-(-SMALLEST // image.width), 1)
        return image.resize((image.width * times, image.height * times), PIL.Image.Resampling.BICUBIC)

    def walk(self, ws: Sequence[torch.Tensor], frames: int, loop: bool) -> list[Path]:
        """Write a walk through w as strip, GIF and, with imageio-ffmpeg, MP4. Raises OptionError for fewer than 2 w."""
        if len(ws) < 2:
            raise OptionError("Keep 2 or more samples first: a walk goes from one to the next.")
        fps = 24
        video = Video.of(self.generator.resolution, len(ws), fps=fps, frames=frames, seconds=None, loop=loop, size=None)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        draw = partial(sample.render, self.generator.network)
        return pictures.interpolation(draw, ws, folder, video=video, columns=2, near=None)

    def nearest(self, image: PIL.Image.Image) -> list[tuple[PIL.Image.Image, float]]:
        """Return the training images nearest to an image, with their distances. Raises OptionError without a data
        set."""
        if self.near is None:
            raise OptionError("The data set is not known, or not there any more. Start explore with --data.")
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        return [(sample.picture_of(found), distance) for found, distance in self.near.closest(pixels, NEAREST)]
