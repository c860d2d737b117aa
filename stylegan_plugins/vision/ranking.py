"""Which backbone tells real from generated images best: a linear probe for each.

Kumari et al. 2022 (arXiv:2112.09130), section 3.3: the backbone whose features, read by a linear classifier, tell real
from generated images with the highest accuracy on held-out ones is the one whose discriminator helps most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_plugins.analysis import markdown
from stylegan_plugins.errors import DataError, require
from stylegan_plugins.files import datasets
from stylegan_plugins.files.atomic import write_json
from stylegan_plugins.vision.backbones import models_of
from stylegan_plugins.vision.extractors import batches_of, extract
from stylegan_plugins.vision.networks import Levels, from_uint8

MOST = 10_000  # real images, and as many generated ones
FEWEST = 8
SPLITS = 3
MEMORY = 2 << 30  # bytes of generated images that are held
DEFAULT = "clip,dino,dinov2,vgg,swin,efficientnet_lite0"


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
    """Return accuracies on the half that is held out and on the other, for each split. real, generated: [M, F].

    The classifier is the authors': a logistic regression on raw features, C = 0.2."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    values = np.concatenate([real, generated])
    target = np.repeat([1, 0], [len(real), len(generated)])
    held_out, training = [], []
    for train, test in StratifiedShuffleSplit(SPLITS, test_size=0.5, random_state=0).split(values, target):
        fitted = LogisticRegression(C=0.2, max_iter=5000).fit(values[train], target[train])
        held_out.append(float(fitted.score(values[test], target[test])))
        training.append(float(fitted.score(values[train], target[train])))
    return held_out, training


def rank(
    models: Mapping[str, Callable[[], Levels]],
    dataset: Any,
    generated: Callable[[int], Iterable[torch.Tensor]],
    most: int = MOST,
) -> list[ProbedBackbone]:
    """Return the rows of all models, best first. One network at a time is made, used and freed.

    models      names, and what makes their networks
    dataset     the host's; generated: from a number to batches of so many images, uint8, always the same ones
    Raises DataError for fewer than 8 real images, or if scikit-learn is missing."""
    require("sklearn")
    count = min(len(dataset), most)
    if count < FEWEST:
        raise DataError(f"--data: {count} images are too few to choose a backbone by; it takes {FEWEST}.")
    rows = []
    small = count * math.prod(dataset.image_shape) < MEMORY
    kept = list(generated(count)) if small else None  # or made anew for each network
    for name, make in models.items():
        levels = make()
        real = pooled(levels, real_batches(dataset, count), f"{name}: real", count)
        made = pooled(levels, kept or generated(count), f"{name}: generated", count)
        del levels  # before the next comes
        held_out, training = probe(real, made)
        figures = map(float, (np.mean(held_out), np.std(held_out), np.mean(training)))
        rows.append(ProbedBackbone(name, real.shape[1], 2 * count, *figures))
    return sorted(rows, key=lambda row: -row.accuracy)


def run(
    path: Path, data: str, models: str | None, most: int, outdir: Path | None, device: torch.device, report: Callable
) -> str:
    """Return the table of `stylegan-plugins select`. Plot and JSON are written beside the pickle or to `outdir`.

    models: None for all of DEFAULT whose weights can be had; report is told of the others."""
    from stylegan_plugins.analysis import sample
    from stylegan_plugins.host import find

    require("matplotlib")
    require("sklearn")
    _, dataset = find.open_dataset(data)
    chosen = models_of(DEFAULT if models is None else models, "--models")
    G, sampler, pickle = sample.load_generator(path, device)
    generator = sample.Generator(G, sampler, dataset)
    found: dict[str, Callable[[], Levels]] = {}
    for model in chosen:
        try:
            model.load("--models")  # all of them, before any of the long work
        except DataError as error:
            if models is not None:
                raise
            report(f"Left out: {error}")
            continue
        found[str(model)] = lambda model=model: model.load("--models").to(device)  # type: ignore[misc]
    if not found:
        raise DataError("--models: no backbone's weights can be had; see above.")
    folder = outdir or pickle.parent
    datasets.check_output(folder)
    rows = rank(found, dataset, generator.images, most)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{folder / f'select-{pickle.stem}'}"
    plot(rows, Path(f"{name}.png"), f"Real or generated? {pickle.name}")
    record = {"pickle": str(pickle), "data": data, "rows": [vars(row) for row in rows]}
    write_json(Path(f"{name}.json"), record)
    return f"{as_markdown(rows)}\n\n{name}.png\n{name}.json"


def as_markdown(rows: list[ProbedBackbone]) -> str:
    """Return the rows as a table."""
    cells = [(r.model, r.features, f"{r.accuracy:.3f} ± {r.deviation:.3f}", f"{r.training:.3f}") for r in rows]
    return markdown.table(["backbone", "features", "accuracy", "on the images fitted to"], cells)


def plot(rows: list[ProbedBackbone], path: Path, title: str) -> None:
    """Plot a bar for each backbone, the best on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [f"{name}\n{Path(file).name}".strip() for name, _, file in (row.model.partition("=") for row in rows)][::-1]
    bars = axes.barh(names, [row.accuracy for row in rows][::-1], xerr=[row.deviation for row in rows][::-1])
    axes.bar_label(bars, [f"{row.accuracy:.3f}" for row in rows][::-1], label_type="center", color="white")
    axes.axvline(0.5, color="0.4", linestyle=":")
    axes.set(xlim=(0, 1), xlabel="accuracy on held-out images, chance is 0.5", title=title)
    figure.savefig(path, dpi=110)
