"""A trained generator, from a run or a shared file, for commands, the Python API and `explore`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch

from stylegan_plugins.analysis import sample as sampling
from stylegan_plugins.analysis.pictures import between
from stylegan_plugins.analysis.sample import TRUNCATION, Sampler
from stylegan_plugins.errors import OptionError
from stylegan_plugins.files import run_folders
from stylegan_plugins.host import devices, find
from training_ext.labels import map_embedded

Array = torch.Tensor | np.ndarray
Seeds = int | str | Iterable[int]
Label = int | str | None  # a class by number or name


def load(path: str | Path, host: str | Path | None = None, device: str = "auto") -> LoadedGenerator:
    """Load the generator (G_ema) of a run or of a shared file. Nothing in the file is executed.

    path    run directory (its newest snapshot), snapshot, or an export of `stylegan-plugins export`: the folder, or its
            .pkl, .safetensors or .onnx
    host    folder of NVIDIA's code; None: the run's host, or the one used last. ONNX needs none
    device  auto, cpu or cuda; ONNX runs on the CPU

    Raises DataError, HostError or OptionError."""
    devices.choose(device)
    path = Path(path)
    if not run_folders.is_onnx(path):
        find.choose_host(None if host is None else Path(host), path)
    return loaded(path)


def loaded(path: Path) -> LoadedGenerator:
    """Load a generator with the host and the device that are in use."""
    network, sampler, file = sampling.load_generator(path, devices.device())
    names = network.about.classes if file.suffix == ".onnx" else run_folders.class_names(file)
    return LoadedGenerator(network, sampler, file, names if sampler is None else ())


@dataclass(frozen=True)
class LoadedGenerator:
    """A trained generator.

    network  of a host (torch.nn.Module), or run by onnxruntime
    sampler  source of labels, if a plug-in gave them (disp); otherwise None
    file     file that it was loaded from
    names    names of its classes, if they have any"""

    network: Any
    sampler: Sampler | None
    file: Path
    names: tuple[str, ...] = ()

    @property
    def resolution(self) -> int:
        """Side of its images in pixels."""
        return self.network.img_resolution

    @property
    def channels(self) -> int:
        """1 for gray images, 3 for RGB."""
        return self.network.img_channels

    @property
    def z_dim(self) -> int:
        """Size of z."""
        return self.network.z_dim

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes, or their numbers; empty without classes."""
        count = self.network.c_dim if self.sampler is None else 0
        return self.names if len(self.names) == count else tuple(map(str, range(count)))

    def number_of(self, label: Label) -> int | None:
        """Return the number of a class. Raises DataError for an unknown name."""
        return label if label is None or isinstance(label, int) else run_folders.class_number(self.names, label)

    def __call__(self, z: Array, c: Array | Label = None, truncation: float = TRUNCATION) -> torch.Tensor:
        """Return images [N, C, H, W] in [-1, 1] of z [N, z_dim], with constant noise. Arguments as for `mapping`."""
        return self.synthesis(self.mapping(z, c, truncation))

    @torch.no_grad()
    def mapping(self, z: Array, c: Array | Label = None, truncation: float = TRUNCATION) -> torch.Tensor:
        """Return w [N, num_ws, w_dim] of z [N, z_dim].

        c           one class for all, by number or name, or labels [N, classes]; None without classes. With labels of a
                    plug-in: embedded labels [N, E]; None draws them, the k-th with seed k
        truncation  psi: 1 is none, 0 the mean image

        Raises OptionError if a shape or a class does not fit."""
        device = next(self.network.parameters()).device
        z = torch.as_tensor(z).to(device)
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise OptionError(f"z: expected shape [N, {self.z_dim}], got {list(z.shape)}.")
        if self.sampler is not None and self.network.c_dim:
            if c is None:
                drawn = [sampling.label_of(self.sampler, self.network, k) for k in range(len(z))]
                c = torch.stack(drawn)
            if isinstance(c, int | str):
                raise OptionError(f"c={c}: this generator has features of images in the place of classes.")
            return map_embedded(self.network, z, torch.as_tensor(c), truncation_psi=truncation)
        if c is None or isinstance(c, int | str):
            labels = sampling.one_hot(self.network, self.number_of(c))
            labels = labels.expand(len(z), -1)
        else:
            labels = torch.as_tensor(c, dtype=torch.float32, device=device)
        if list(labels.shape) != [len(z), self.network.c_dim]:
            raise OptionError(f"c: expected shape {[len(z), self.network.c_dim]}, got {list(labels.shape)}.")
        return self.network.mapping(z, labels, truncation_psi=truncation)

    @torch.no_grad()
    def synthesis(self, w: Array) -> torch.Tensor:
        """Return images [N, C, H, W] in [-1, 1] of w [N, num_ws, w_dim], with constant noise."""
        device = next(self.network.parameters()).device
        return self.network.synthesis(torch.as_tensor(w).to(device), noise_mode="const").float()

    def latents(
        self, seeds: Seeds, *, truncation: float = TRUNCATION, class_: Label = None, like: Any = None
    ) -> Iterator[torch.Tensor]:
        """Yield w [1, num_ws, w_dim] of each seed. Arguments and errors as for `sample`."""
        given = None if like is None else sampling.read_image(like, self.network)
        return sampling.latents(
            self.network,
            numbers_of(seeds),
            sampler=self.sampler,
            truncation=truncation,
            like=given,
            label=self.number_of(class_),
        )

    def sample(
        self,
        seeds: Seeds,
        *,
        truncation: float = TRUNCATION,
        class_: Label = None,
        like: str | Path | PIL.Image.Image | None = None,
        as_: Literal["pil", "array", "tensor", "sheet"] = "pil",
    ) -> Any:
        """Return the images that `stylegan-plugins sample` makes of these seeds: a list, or one image for one number.

        seeds       a number, numbers, or text such as 0-15,20
        truncation  psi: 1 is none, 0 the mean image
        class_      number or name of a class, for a generator with classes
        like        a picture or its file: make variants of it, with a generator that was trained with disp
        as_         pil: PIL images; array: uint8 [H, W, C]; tensor: float [C, H, W] in [-1, 1]; sheet: all in one PIL
                    image

        Raises OptionError or DataError."""
        if as_ not in ("pil", "array", "tensor", "sheet"):
            raise OptionError(f"as_={as_}: expected pil, array, tensor or sheet.")
        ws = self.latents(seeds, truncation=truncation, class_=class_, like=like)
        if as_ == "tensor":
            tensors = [self.synthesis(w)[0] for w in ws]
            return tensors[0] if isinstance(seeds, int) else tensors
        arrays = [sampling.render(self.network, w) for w in ws]
        if as_ == "sheet":
            return sampling.sheet(arrays)
        images = arrays if as_ == "array" else [sampling.picture_of(array) for array in arrays]
        return images[0] if isinstance(seeds, int) else images

    def interpolate(
        self,
        seeds: Seeds,
        *,
        frames: int = 24,
        loop: bool = False,
        truncation: float = TRUNCATION,
        class_: Label = None,
        labels_only: bool = False,
        like: Sequence[str | Path | PIL.Image.Image] = (),
    ) -> list[PIL.Image.Image]:
        """Return images on the way from seed to seed, `frames` from one seed to the next. loop: back to the first seed.

        labels_only  for a generator that was trained with disp: keep the z of the first seed, and move from the labels
                     of one seed to the labels of the next; otherwise move in w
        like         pictures or their files: use their labels instead of the seeds' labels, so only labels change"""
        ends, draw = self.walk(numbers_of(seeds), truncation, class_, labels_only, like)
        if len(ends) < 2:
            what = f"like={like}" if like else f"seeds={seeds}"
            raise OptionError(f"{what}: 2 or more are needed.")
        return [sampling.picture_of(draw(point)) for point in between(ends, frames, loop)]

    def walk(
        self,
        seeds: Sequence[int],
        truncation: float = TRUNCATION,
        class_: Label = None,
        labels_only: bool = False,
        like: Sequence[str | Path | PIL.Image.Image] = (),
    ) -> tuple[list[torch.Tensor], Callable[[torch.Tensor], np.ndarray]]:
        """Return the ends of a walk, and a function that draws a point on it, uint8 [H, W, C]. Arguments as for
        `interpolate`."""
        if labels_only or like:
            given = [sampling.read_image(picture, self.network) for picture in like]
            ends, to_w = sampling.label_walk(self.network, seeds, given, self.sampler, truncation)
            return ends, lambda end: sampling.render(self.network, to_w(end))
        ws = self.latents(seeds, truncation=truncation, class_=class_)
        return list(ws), partial(sampling.render, self.network)


def numbers_of(seeds: Seeds) -> Sequence[int]:
    """Read seeds as numbers. Raises OptionError."""
    if isinstance(seeds, str):
        return sampling.seeds_of(seeds)
    numbers = [seeds] if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not numbers or not all(0 <= number < 1 << 32 for number in numbers):
        raise OptionError(f"seeds={seeds}: expected one or more numbers from 0 to {(1 << 32) - 1}.")
    return numbers
