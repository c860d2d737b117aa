"""Pictures of a generator: interpolations with the nearest training images, and sheets of samples, the worst first."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import torch

from stylegan_plugins.analysis import sample, streamed
from stylegan_plugins.analysis.streamed import StreamedNeighbours
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets, prepare
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.host import find
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.extractors import batches_of, extract
from stylegan_plugins.vision.networks import from_uint8
from training_ext.diagnostics import nearest, shrunk

PIXELS = "pixels"
SMALLEST = 256  # side of a video; players show videos in their own size
FASTEST = 20  # milliseconds of a frame of a GIF; browsers show shorter frames for 100
Describe = Callable[[torch.Tensor], torch.Tensor]  # uint8 [n, C, H, W] -> features [n, F]


def features_by(name: str, device: torch.device) -> Describe:
    """Return the function whose features compare images: pooled features of a backbone, NAME or NAME=FILE of its
    weights, or `pixels`, the pixel values of the image at 32x32 or less.

    Raises OptionError or DataError like `backbones.load`."""
    if name == PIXELS:
        return pixels
    name, _, file = map(str.strip, name.partition("="))
    backbone = backbones.load(name, file or None).to(device)
    return lambda images: backbone(from_uint8(images, device))


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Return pixel values [n, F], scaled so that a distance is the root mean square difference of values in [-1, 1]."""
    values = shrunk(images.float() / 127.5)
    return values / values.shape[1] ** 0.5


class Neighbours:
    """The nearest images of a data set, by the Euclidean distance of features."""

    def __init__(self, data: str, features: Describe, label: str) -> None:
        self.data = data
        self.features = features
        self.names, images = datasets.read_images(data)
        self.known = self._of(images, len(self.names), label)

    def _of(self, images: Iterable[np.ndarray], count: int, label: str | None = None) -> torch.Tensor:
        """Return features [n, F] of uint8 images [C, H, W], on the CPU."""
        network = lambda batch: {"": self.features(batch).float()}
        return torch.from_numpy(extract(network, batches_of(images), count, label)[""])

    def nearest(self, images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return for each image, uint8 [H, W, C], the nearest image of the data set, and the distances [n]."""
        features = self._of((image.transpose(2, 0, 1) for image in images), len(images))
        means, indices = nearest(features, self.known)
        names = [self.names[int(index)] for index in indices]
        shown = [image.transpose(1, 2, 0) for image in datasets.read_named(self.data, names)]
        return shown, (means * self.known.shape[1] ** 0.5).numpy()

    def closest(self, image: np.ndarray, count: int) -> list[tuple[np.ndarray, float]]:
        """Return the `count` images of the data set nearest to an image, uint8 [H, W, C], with their distances, nearest
        first."""
        features = self._of([image.transpose(2, 0, 1)], 1)
        distances = torch.cdist(features, self.known)[0]
        values, indices = distances.topk(min(count, len(distances)), largest=False)
        names = [self.names[int(index)] for index in indices]
        shown = [found.transpose(1, 2, 0) for found in datasets.read_named(self.data, names)]
        return list(zip(shown, values.tolist(), strict=True))


Near = Neighbours | StreamedNeighbours


def between(ends: Sequence[torch.Tensor], steps: int, closed: bool) -> list[torch.Tensor]:
    """Return `steps` evenly spaced points from each end to the next, without the next end. closed: also from the last
    end to the first; otherwise the last end is added."""
    pairs = itertools.pairwise([*ends, ends[0]] if closed else ends)
    made = [torch.lerp(a, b, k / steps) for a, b in pairs for k in range(steps)]
    return made if closed else [*made, ends[-1]]


@dataclass(frozen=True)
class Video:
    """Settings of interpolation.mp4 and .gif.

    fps     frames in a second
    frames  frames from one seed to the next
    loop    return to the first seed at the end
    side    width and height of the MP4 in pixels, an even number"""

    fps: int
    frames: int
    loop: bool
    side: int

    @classmethod
    def of(
        cls, resolution: int, seeds: int, *, fps: int, frames: int, seconds: float | None, loop: bool, size: int | None
    ) -> Video:
        """Read options of `interpolate`. seconds: length of the whole video; None: `frames` sets it. size: side in
        pixels; None: the images' side, enlarged to 256 or more. Raises OptionError."""
        if size is not None and size % 2:
            raise OptionError(f"--size={size}: H.264 needs an even number.")
        if seconds is not None:
            frames = max(round(seconds * fps / (seeds if loop else seeds - 1)), 1)
        return cls(fps, frames, loop, size or resolution * max(-(-SMALLEST // resolution), 1))


def interpolation(
    draw: Callable[[torch.Tensor], np.ndarray],
    ends: Sequence[torch.Tensor],
    outdir: Path,
    *,
    video: Video,
    columns: int,
    near: Near | None,
) -> list[Path]:
    """Write interpolation.mp4 and .gif, which go from end to end. Also write interpolation.png, a strip of `columns`
    frames from the first to the last, with the nearest image of the data set under each.

    draw   a point on the way -> its image, uint8 [H, W, C]
    ends   points to visit, for example w of seeds"""
    outdir.mkdir(parents=True, exist_ok=True)
    moving = between(ends, video.frames, closed=video.loop)
    with click.progressbar(moving, label="Frames", file=sys.stderr) as bar:
        shown = [sample.picture_of(draw(point)) for point in bar]
    movie, animation, strip = (outdir / f"interpolation.{ending}" for ending in ("mp4", "gif", "png"))
    written = [strip, animation]
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        click.echo(f"Without {movie.name}: pip install 'stylegan-plugins[share]'.", err=True)
    else:
        write_video(shown, movie, video)
        written.append(movie)
    pause = max(1000 // video.fps, FASTEST)
    repeats: dict[str, Any] = {"loop": 0} if video.loop else {}  # without it, a GIF plays once
    shown[0].save(animation, save_all=True, append_images=shown[1:], duration=pause, **repeats)
    path = between(ends, video.frames, closed=False)
    row = [draw(path[round(k * (len(path) - 1) / (columns - 1))]) for k in range(columns)]
    sample.enlarged(row if near is None else [*row, *near.nearest(row)[0]], columns).save(strip)
    return written


def write_video(shown: Iterable[PIL.Image.Image], file: Path, video: Video) -> None:
    """Write images of one size as an MP4 that browsers play: H.264, yuv420p, the index in front. Raises DataError."""
    import imageio_ffmpeg

    with whole(file) as out:
        writer = imageio_ffmpeg.write_frames(
            out.name,
            (video.side, video.side),
            fps=video.fps,
            quality=8,
            macro_block_size=2,
            output_params=["-f", "mp4", "-movflags", "+faststart"],
        )
        writer.send(None)
        try:
            for image in shown:
                scaled = image.convert("RGB").resize((video.side, video.side), PIL.Image.Resampling.BICUBIC)
                writer.send(scaled.tobytes())
        finally:
            writer.close()


def sheets(
    made: dict[str, list[np.ndarray]], outdir: Path, *, near: Near | None, pairs: int
) -> tuple[list[Path], np.ndarray | None]:
    """Write sheet-<name>.png for each list of samples, and two sheets of the first list's samples, each above its
    nearest image of the data set. Return the files and the distances of the first list.

    sheet-worst.png has the `pairs` samples farthest from the data set, farthest first. sheet-nearest.png has the
    nearest samples first: copies of training images would be there."""
    outdir.mkdir(parents=True, exist_ok=True)
    files = []
    for name, images in made.items():
        files.append(outdir / f"sheet-{name}.png")
        sample.sheet(images).save(files[-1])
    if near is None:
        return files, None
    samples = next(iter(made.values()))
    found, distances = near.nearest(samples)
    order = np.argsort(-distances, kind="stable")
    columns = min(8, len(samples), pairs)
    for name, ranked in (("worst", order), ("nearest", order[::-1])):
        rows = ranked[: min(pairs, len(samples)) // columns * columns].reshape(-1, columns)
        files.append(outdir / f"sheet-{name}.png")
        sample.enlarged([images[i] for row in rows for images in (samples, found) for i in row], columns).save(
            files[-1]
        )
    return files, distances


def neighbours(run_dir: Path, G: Any, device: torch.device, data: str | None, features: str) -> Near | None:
    """Return the nearest images of `data`, or of the run's own data set. If there is no data set, print a line that
    says so and return None. features: `l1`, `lpips`, `lpips=FILE`, or as for `features_by`.

    Raises DataError if the images do not fit G, OptionError or DataError if the features are not available."""
    path = data or find.own_data(run_dir)
    if path is None:
        click.echo("Without nearest images: the run's data set is not there; name one with --data.", err=True)
        return None
    local = prepare.usable(path, prepare.How.of_run(run_dir))
    _, side, channels = datasets.check_dataset(local)
    if [side, channels] != [G.img_resolution, G.img_channels]:
        raise DataError(
            f"--data: images in {path} have {side} pixels and {channels} channels, the generator makes "
            f"{G.img_resolution} and {G.img_channels}."
        )
    label = f"Images: {features}"
    large = streamed.by_name(features, device)
    return (
        StreamedNeighbours(local, *large, label) if large else Neighbours(local, features_by(features, device), label)
    )
