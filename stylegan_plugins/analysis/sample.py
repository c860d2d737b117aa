"""Images of a trained generator without its data set. Labels then come from a `Sampler`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

from stylegan_plugins.analysis.onnx_networks import OnnxNetwork
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets, run_folders
from stylegan_plugins.host.networks import load_network
from stylegan_plugins.manager import recorded
from training_ext.labels import map_embedded

MOST_SEEDS = 100_000
BATCH = 8  # the last digits of metrics depend on it
SEED = 0  # seed of the images of metrics
SMALLEST_SHOWN = 64  # pixels to which small images on a sheet are enlarged, by whole factors
TRUNCATION = 0.7  # psi, the default of all commands and of the Python API


@dataclass(frozen=True)
class Sampler:
    """A source of embedded labels, [E], as G's mapping network has them before it normalises them.

    name     one word
    draw     (G, a numpy RandomState) -> [E]
    like     (G, image [1, C, H, W] in [-1, 1]) -> [E]: labels of a given image; raises DataError if it cannot
    classes  whether labels are one-hot classes, so that a user can ask for a class by number
    of       identity of the draws besides G, if it changes during a run: a part of the identity of metric results"""

    name: str
    draw: Callable[[Any, np.random.RandomState], torch.Tensor]
    like: Callable[[Any, torch.Tensor], torch.Tensor]
    classes: bool = False
    of: str = ""


def sampler_of(run_dir: Path) -> Sampler | None:
    """Return the sampler of the plug-ins that a run was trained with; None if they have none, or there is no run.

    Raises DataError or PluginError if the run is damaged, or a plug-in is missing."""
    args = run_folders.read_options(run_dir)
    if args is None:
        return None
    hook = "register_sampler"
    return recorded(with_hook(args.get("plugins", {}), hook)).only(hook, run_dir=run_dir)


def with_hook(record: Mapping[str, Any], hook: str) -> dict[str, Any]:
    """Return a record without the plug-ins in files that lacked a hook when the run began: they may have changed since,
    or be gone."""
    files = record.get("files", {})
    has = lambda name: (hooks := files.get(name, {}).get("hooks")) is None or hook in hooks
    having = lambda values: {name: value for name, value in values.items() if has(name)}
    active = [name for name in record.get("active", []) if has(name)]
    return {**record, "active": active, "options": having(record.get("options", {})), "files": having(files)}


def seeds_of(text: str, fewest: int = 1) -> list[int]:
    """Read `0-15,20` as [0, ..., 15, 20]. Raises OptionError, also for fewer seeds than `fewest`."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise OptionError(f"--seeds={text}: {part!r} is neither a number nor a range like 0-15.")
        these = range(int(match[1]), int(match[2] or match[1]) + 1)
        if len(seeds) + len(these) > MOST_SEEDS:
            raise OptionError(f"--seeds={text}: more than {MOST_SEEDS} images.")
        seeds += these
    if len(seeds) < fewest:
        raise OptionError(f"--seeds={text}: {fewest} or more are needed.")
    return seeds


def read_image(file: str | Path | PIL.Image.Image, G: Any) -> torch.Tensor:
    """Read a picture as an image of the data set, [1, C, H, W]: upright, its middle square, at G's resolution and
    colors, with white for transparent pixels. Raises DataError."""
    opens = lambda: file.copy() if isinstance(file, PIL.Image.Image) else PIL.Image.open(file, formats=datasets.FORMATS)
    try:
        with opens() as opened:
            picture = PIL.ImageOps.exif_transpose(opened).convert("RGBA")
    except PIL.UnidentifiedImageError as error:
        raise DataError(f"--like: {file} is neither PNG nor JPEG. Convert it.") from error
    except datasets.BROKEN as error:
        raise DataError(f"--like: {file} cannot be read as an image ({' '.join(str(error).split())}).") from error
    white = PIL.Image.new("RGBA", picture.size, "white")
    image = PIL.Image.alpha_composite(white, picture).convert("L" if G.img_channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize(
        (G.img_resolution, G.img_resolution), PIL.Image.Resampling.LANCZOS, (left, top, left + side, top + side)
    )
    pixels = torch.from_numpy(np.array(image)).reshape(G.img_resolution, G.img_resolution, -1)
    return pixels.permute(2, 0, 1)[None].to(next(G.parameters()).device).float() / 127.5 - 1


def images(G: Any, seeds: Iterable[int], **how: Any) -> list[np.ndarray]:
    """Return one image for each seed, uint8 [H, W, C]. Arguments and errors as for `latents`."""
    return [render(G, ws) for ws in latents(G, seeds, **how)]


@torch.no_grad()
def latents(
    G: Any,
    seeds: Iterable[int],
    *,
    sampler: Sampler | None,
    truncation: float = 1.0,
    like: torch.Tensor | None = None,
    label: int | None = None,
) -> Iterator[torch.Tensor]:
    """Yield w for each seed, [1, num_ws, w_dim]. z is as in the hosts' scripts; w depends on its seed alone.

    like: [1, C, H, W]; label: a class, for a G that has classes. Raises OptionError if one of them does not suit G."""
    if G.c_dim and sampler is not None and not (sampler.classes and label is not None):
        if label is not None:
            raise OptionError(f"--class={label}: this generator has features of images in the place of classes.")
        given = None if like is None else sampler.like(G, like)
        for seed in seeds:
            embedded = label_of(sampler, G, seed) if given is None else given
            yield map_embedded(G, z_of(G, seed), embedded[None], truncation_psi=truncation)
        return
    if like is not None:
        raise without_features("--like")
    c = one_hot(G, label)
    for seed in seeds:
        yield G.mapping(z_of(G, seed), c, truncation_psi=truncation)


def label_walk(
    G: Any, seeds: Sequence[int], pictures: Sequence[torch.Tensor], sampler: Sampler | None, truncation: float
) -> tuple[list[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """Return the ends of a walk through the labels of a sampler, each [E], and a function from a point on it to w.

    z stays that of the first seed. pictures: [1, C, H, W] each; their labels are the ends. Empty: labels drawn for the
    seeds are the ends. Raises OptionError without a sampler."""
    if not G.c_dim or sampler is None:
        raise without_features("--like" if pictures else "--labels-only")
    z = z_of(G, seeds[0])
    if pictures:
        ends = [sampler.like(G, picture) for picture in pictures]
    else:
        ends = [label_of(sampler, G, seed) for seed in seeds]
    return ends, torch.no_grad()(lambda end: map_embedded(G, z, end[None], truncation_psi=truncation))


def label_of(sampler: Sampler, G: Any, seed: int) -> torch.Tensor:
    """Return the embedded label drawn for a seed, [E]."""
    return sampler.draw(G, np.random.RandomState([seed, 1]))


def z_of(G: Any, seed: int) -> torch.Tensor:
    """Return z of a seed as the hosts' scripts draw it, [1, z_dim]."""
    return torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim)).to(next(G.parameters()).device)


def without_features(flag: str) -> OptionError:
    return OptionError(
        f"{flag}: this generator was not trained on features of images (--plugin=disp), or its pickle does not lie in "
        "the directory of its run."
    )


def one_hot(G: Any, label: int | None) -> torch.Tensor:
    """Return a class in the form that G takes, [1, c_dim]. Raises OptionError if G has no such class, or needs a class
    and `label` is None."""
    if G.c_dim and (label is None or not 0 <= label < G.c_dim):
        raise OptionError(
            f"--class: this generator has {G.c_dim} classes; give one of 0 to {G.c_dim - 1}. If a plug-in gave it "
            "its labels, the pickle must lie in the directory of its run."
        )
    if not G.c_dim and label is not None:
        raise OptionError(f"--class={label}: this generator has no classes.")
    c = torch.zeros([1, G.c_dim], device=next(G.parameters()).device)
    if label is not None:
        c[:, label] = 1
    return c


@torch.no_grad()
def render(G: Any, ws: torch.Tensor) -> np.ndarray:
    """Return the image of w [1, num_ws, w_dim], uint8 [H, W, C], with constant noise."""
    return pixels_of(G.synthesis(ws, noise_mode="const"))[0]


def pixels_of(images: torch.Tensor) -> np.ndarray:
    """Return images [N, C, H, W] in [-1, 1] as uint8 [N, H, W, C], rounded as in the hosts' scripts."""
    return (images.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu().numpy()


def sheet(made: Sequence[np.ndarray]) -> PIL.Image.Image:
    """Put all images [H, W, C] on one sheet, about twice as wide as high. Small images are enlarged."""
    return enlarged(made, min(len(made), max(1, round(math.sqrt(2 * len(made))))))


def enlarged(made: Sequence[np.ndarray], columns: int) -> PIL.Image.Image:
    """Put images together as `grid` does. Images below 64 pixels are enlarged by whole factors to at most 64."""
    times = max(SMALLEST_SHOWN // made[0].shape[1], 1)
    return grid([image.repeat(times, axis=0).repeat(times, axis=1) for image in made], columns)


def grid(made: Sequence[np.ndarray], columns: int) -> PIL.Image.Image:
    """Put images [H, W, C] of one size together, row by row. Empty places of the last row are black."""
    height, width, channels = made[0].shape
    rows = -(-len(made) // columns)
    places = np.zeros([rows * columns, height, width, channels], dtype=np.uint8)
    places[: len(made)] = made
    lines = places.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return picture_of(lines.reshape(rows * height, columns * width, channels))


def picture_of(image: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def load_generator(path: Path, device: torch.device) -> tuple[Any, Sampler | None, Path]:
    """Return G_ema of a run or pickle, or of a generator shared as ONNX; its sampler, or None; and the file."""
    file = run_folders.newest_pickle(path)
    if file.suffix == ".onnx":
        return OnnxNetwork(file), None, file
    return load_network(file, "G_ema").to(device), sampler_of(file.parent), file


@dataclass(frozen=True)
class Generator:
    """G_ema with the source of its labels: a sampler, or the data set of the host.

    Raises DataError if images of G and the data set differ in size or color, or the data set lacks the labels of G."""

    G: Any
    sampler: Sampler | None
    dataset: Any

    def __post_init__(self) -> None:
        makes = [self.G.img_channels, self.G.img_resolution, self.G.img_resolution]
        if list(self.dataset.image_shape) != makes:
            raise DataError(
                f"--data: images in {self.dataset.name} are {list(self.dataset.image_shape)}, the generator makes "
                f"{makes} (channels, height, width)."
            )
        if self.G.c_dim and self.sampler is None and self.dataset.label_dim != self.G.c_dim:
            raise DataError(
                f"--data: the generator has {self.G.c_dim} classes, the data {self.dataset.label_dim}. Give the data "
                "set with its dataset.json."
            )

    @torch.no_grad()
    def images(self, count: int, share: tuple[int, int] = (0, 1)) -> Iterator[torch.Tensor]:
        """Yield `count` images in batches, uint8 [n, C, H, W], the same ones each time, without truncation, with random
        noise. Torch's random numbers stay as they are.

        share   (k, n): yield only the batches k, k + n, k + 2n, ...; their images do not depend on the share"""
        G, sampler = self.G, self.sampler
        device = next(G.parameters()).device
        random = np.random.RandomState(SEED)
        for start in range(0, count, BATCH):
            n = min(BATCH, count - start)
            z = torch.from_numpy(random.randn(n, G.z_dim)).to(device)
            if G.c_dim and sampler is not None:
                ws = map_embedded(G, z, torch.stack([sampler.draw(G, random) for _ in range(n)]))
            else:
                drawn = np.zeros([n, 0], np.float32)
                if G.c_dim:
                    indices = random.randint(len(self.dataset), size=n)
                    drawn = np.stack([self.dataset.get_label(index) for index in indices])
                ws = G.mapping(z, torch.from_numpy(drawn).to(device))
            if start // BATCH % share[1] != share[0]:
                continue
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(SEED + start)
                images = G.synthesis(ws)
            yield (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
