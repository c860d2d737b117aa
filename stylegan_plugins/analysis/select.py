"""`stylegan-plugins select`: frozen networks, ranked by how well a linear probe on them tells real from generated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from stylegan_plugins.analysis import markdown, sample
from stylegan_plugins.errors import DataError, require
from stylegan_plugins.files import datasets
from stylegan_plugins.files.atomic import write_json
from stylegan_plugins.host import find
from stylegan_plugins.vision.backbones import models_of
from stylegan_plugins.vision.networks import Levels
from stylegan_plugins.vision.ranking import ProbedBackbone, rank

DEFAULT = "clip,dino,dinov2,vgg,swin,efficientnet_lite0"


def run(
    path: Path,
    data: str | None,
    models: str | None,
    most: int,
    outdir: Path | None,
    device: torch.device,
    report: Callable,
) -> str:
    """Return the table of `stylegan-plugins select`. Write plot and JSON beside the pickle or to `outdir`.

    models: backbones, with commas; None: all of DEFAULT whose weights are available. report: called with a line on each
    other one."""
    require("matplotlib")
    require("sklearn")
    data, dataset = find.open_dataset(data, path)
    chosen = models_of(DEFAULT if models is None else models, "--models")
    G, sampler, pickle = sample.load_generator(path, device)
    generator = sample.Generator(G, sampler, dataset)
    found: dict[str, Callable[[], Levels]] = {}
    for model in chosen:
        try:
            model.load("--models")  # load all of them before the long work
        except DataError as error:
            if models is not None:
                raise
            report(f"Left out: {error}")
            continue
        found[str(model)] = lambda model=model: model.load("--models").to(device)  # type: ignore[misc]
    if not found:
        raise DataError("--models: no backbone's weights are available; see above.")
    folder = outdir or pickle.parent
    datasets.check_output(folder)
    rows = rank(found, dataset, generator.images, most)
    name = f"{folder / f'select-{pickle.stem}'}"
    write_json(Path(f"{name}.json"), {"pickle": str(pickle), "data": data, "rows": [vars(row) for row in rows]})
    plot(rows, Path(f"{name}.png"), f"Real or generated? {pickle.name}")
    cells = [(r.model, r.features, f"{r.accuracy:.3f} ± {r.deviation:.3f}", f"{r.training:.3f}") for r in rows]
    table = markdown.table(["backbone", "features", "accuracy", "on the images fitted to"], cells)
    return f"{table}\n\n{name}.png\n{name}.json"


def plot(rows: list[ProbedBackbone], path: Path, title: str) -> None:
    """Plot a bar for each backbone, the best one on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [f"{name}\n{Path(file).name}".strip() for name, _, file in (row.model.partition("=") for row in rows)][::-1]
    bars = axes.barh(names, [row.accuracy for row in rows][::-1], xerr=[row.deviation for row in rows][::-1])
    axes.bar_label(bars, [f"{row.accuracy:.3f}" for row in rows][::-1], label_type="center", color="white")
    axes.axvline(0.5, color="0.4", linestyle=":")
    axes.set(xlim=(0, 1), xlabel="accuracy on held-out images, chance is 0.5", title=title)
    figure.savefig(path, dpi=110)
