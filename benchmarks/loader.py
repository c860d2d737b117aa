"""Measure images a second of the data loader: decoded in each epoch, as the host does it, against --cache.

    python benchmarks/loader.py --host HOST [--rounds 6] [--seconds 4] [--markdown FILE]

The data are synthetic: crops of photographs of scikit-image with noise, which makes PNG files as large as photographs.
Pillow writes the PNG files, as train.py does; at 1024 pixels there is also PNG without compression, as the hosts'
dataset_tool.py writes it. The loader is the host's: its data set with horizontal flips, its sampler, and batches of the
size that stylegan2-ada-pytorch's --cfg=auto takes. Workers are forks, which start at once; hosts spawn theirs. Each
round times each contestant once, in turns, with its workers started and warm. Beside images a second there is the
processor's time for an image, of all processes together, which depends less on other programs on the machine."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import psutil
import torch

from stylegan_plugins.files import decoded
from stylegan_plugins.run.memory import keep_freed_memory

CASES = ((256, 6), (512, 6), (1024, 6), (1024, 0))  # side, level of compression of PNG
IMAGES = {256: 256, 512: 96, 1024: 32}
BATCHES = {256: 16, 512: 8, 1024: 4}
NOISE = 2.0  # standard deviation, of 255
MOST_WORKERS = 2


def write_images(path: Path, side: int, level: int) -> None:
    import skimage.data

    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    random = np.random.RandomState(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(IMAGES[side]):
            photograph = photographs[index % 3]
            size = random.randint(150, 300)
            y, x = (random.randint(length - size) for length in photograph.shape[:2])
            crop = PIL.Image.fromarray(photograph[y : y + size, x : x + size]).resize((side, side), PIL.Image.LANCZOS)
            noisy = np.asarray(crop) + random.normal(0, NOISE, [side, side, 3])
            data = io.BytesIO()
            PIL.Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)).save(data, "png", compress_level=level)
            archive.writestr(f"{index:05d}.png", data.getvalue())


class Contestant:
    """A loader of the host, with its images decoded or from memory.

    workers: number of worker processes; cache: mode of --cache"""

    def __init__(self, data: Path, side: int, workers: int, cache: str) -> None:
        from torch_utils.misc import InfiniteSampler
        from training.dataset import ImageFolderDataset

        dataset = ImageFolderDataset(path=str(data), xflip=True)
        began = time.perf_counter()
        decoded.use(dataset, cache, shown=0, tells=False)
        assert ("_load_raw_image" in vars(dataset)) == (cache == "ram")
        self.setup = time.perf_counter() - began
        dataset.close()  # forks must not share an open zip
        self.batch = BATCHES[side]
        how: dict[str, Any] = dict(multiprocessing_context="fork", prefetch_factor=2) if workers else {}
        sampler = InfiniteSampler(dataset, seed=0)
        before = {child.pid for child in psutil.Process().children()}
        loader = torch.utils.data.DataLoader(dataset, self.batch, sampler=sampler, num_workers=workers, **how)
        self.batches: Iterator[Any] = iter(loader)
        next(self.batches)
        self.workers = [child for child in psutil.Process().children() if child.pid not in before]

    def measure(self, seconds: float) -> tuple[float, float]:
        """Return images a second, and the processor's ms for each."""
        for _ in range(2 * MOST_WORKERS + 1):  # those that workers fetched ahead
            next(self.batches)
        began, busy, images = time.perf_counter(), self.busy(), 0
        while (passed := time.perf_counter() - began) < seconds or images < 4 * self.batch:
            next(self.batches)
            images += self.batch
        return images / passed, (self.busy() - busy) / images * 1000

    def busy(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), *self.workers))


def measure(data: Path, side: int, workers: int, rounds: int, seconds: float) -> list[list[tuple[float, float]]]:
    """Return what `Contestant.measure` returns in each round, decoded and from memory."""
    if not workers:
        keep_freed_memory()  # as train.py does it, in this process alone
    contestants = [Contestant(data, side, workers, cache) for cache in ("off", "ram")]
    found: list[list[tuple[float, float]]] = [[], []]
    for number in range(rounds):
        for index in (0, 1) if number % 2 else (1, 0):
            found[index].append(contestants[index].measure(seconds))
    return found


def spread(values: list[float]) -> str:
    digits = 0 if max(values) >= 20 else 2
    median, low, high = (f"{value:,.{digits}f}" for value in (np.median(values), min(values), max(values)))
    return f"{median} ({low} to {high})"


@click.command()
@click.option("--host", type=click.Path(exists=True, file_okay=False), required=True)
@click.option("--rounds", default=6, show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Of each timing")
@click.option("--markdown", type=click.Path(dir_okay=False), help="Add the table to this file")
def main(host: str, rounds: int, seconds: float, markdown: str | None) -> None:
    """Time the data loader with images decoded and from memory."""
    sys.path.insert(0, host)
    from stylegan_plugins import bridge  # noqa: F401  repairs the host's sampler

    lines = [
        "| side | level | workers | decoded, images/s | from memory | ratio | decoded, ms each | from memory | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STYLEGAN_PLUGINS_CACHE"] = folder
        for side, level in CASES:
            data = Path(folder) / f"{side}-{level}.zip"
            write_images(data, side, level)
            time.sleep(3)  # until the fingerprint is kept, see datasets.SETTLED
            first, again = (Contestant(data, side, 0, "ram").setup for _ in range(2))
            size = next((Path(folder) / "decoded").glob("*.npy")).stat().st_size
            click.echo(
                f"{side}x{side}, {IMAGES[side]} images, {data.stat().st_size / 1e6:.0f} MB of PNG (level {level}): "
                f"{size / 1e6:.0f} MB decoded, made in {first:.2f} s, opened in {again:.2f} s"
            )
            for workers in range(MOST_WORKERS + 1):
                with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
                    found = process.submit(measure, data, side, workers, rounds, seconds).result()
                cells = []
                for off, ram in zip(*(zip(*rows, strict=True) for rows in found), strict=True):
                    one, other = (off, ram) if not cells else (ram, off)  # the processor's time: less is better
                    ratios = [a / b for a, b in zip(other, one, strict=True)]
                    cells += map(spread, (off, ram, ratios))
                lines.append(f"| {side} | {level} | {workers} | {' | '.join(cells)} |")
                click.echo(lines[-1])
            for file in (Path(folder) / "decoded").glob("*.npy"):
                file.unlink()
    if markdown:
        with open(markdown, "a", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
