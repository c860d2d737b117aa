"""Samples of several generators in one picture, each with a caption, to look at beside a table of metrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from stylegan_plugins.analysis import sample
from stylegan_plugins.analysis.loading import LoadedGenerator
from stylegan_plugins.files import datasets, run_folders

GAP, TEXT = 16, 18  # pixels
ACROSS = 3  # sheets in a row of the picture
COLUMNS = 8  # images in a row of a sheet
Font = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont


def caption_of(run_or_pkl: Path) -> str:
    """Return a caption: the plug-ins of a run, or the name of a file."""
    options = run_folders.read_options(run_or_pkl) if run_or_pkl.is_dir() else None
    plugins = {} if options is None else options.get("plugins")
    active = plugins.get("active") if isinstance(plugins, dict) else None
    return run_or_pkl.name if options is None else ", ".join(map(str, active or [])) or "no plug-in"


def of_networks(
    networks: Sequence[tuple[str, LoadedGenerator]],
    data: str | None,
    seeds: Sequence[int] = range(32),
    columns: int = COLUMNS,
    class_: str | None = None,
) -> PIL.Image.Image:
    """Return sheets of training images and of samples of each network, without truncation, from the same seeds.

    data      path of the training images; None leaves them out
    class_    class of the samples, for networks with classes; None: all of their classes in turn"""
    groups: list[tuple[str, list[np.ndarray]]] = []
    if data is not None:
        given = itertools.islice(datasets.read_images(data)[1], len(seeds))
        groups.append(("training images", [image.transpose(1, 2, 0) for image in given]))
    for caption, G in networks:
        classes = ([class_] if class_ is not None else G.classes) if G.classes else [None]
        labels = itertools.cycle(classes)
        made = [G.sample(seed, truncation=1.0, class_=next(labels), as_="array") for seed in seeds]
        groups.append((caption, made))
    return side_by_side(groups, columns)


def side_by_side(groups: Sequence[tuple[str, Sequence[np.ndarray]]], columns: int) -> PIL.Image.Image:
    """Return captioned sheets of images [H, W, C] next to each other, ACROSS in a row. Small images are enlarged.

    columns: images in a row of each sheet"""
    font = PIL.ImageFont.load_default(TEXT)
    blocks = [_captioned(caption, sample.enlarged(images, columns), font) for caption, images in groups]
    width, height = (max(block.size[axis] for block in blocks) + GAP for axis in (0, 1))
    rows = math.ceil(len(blocks) / ACROSS)
    across = math.ceil(len(blocks) / rows)  # four sheets are two rows of two
    canvas = PIL.Image.new("RGB", (across * width - GAP, rows * height - GAP), "white")
    for index, block in enumerate(blocks):
        canvas.paste(block, (index % across * width, index // across * height))
    return canvas


def _captioned(caption: str, sheet: PIL.Image.Image, font: Font) -> PIL.Image.Image:
    canvas = PIL.Image.new("RGB", (sheet.width, TEXT + GAP + sheet.height), "white")
    PIL.ImageDraw.Draw(canvas).text((0, TEXT // 4), _shortened(caption, sheet.width, font), fill="black", font=font)
    canvas.paste(sheet, (0, TEXT + GAP))
    return canvas


def _shortened(text: str, width: int, font: Font) -> str:
    """Return as much of a text as fits into `width` pixels."""
    while text and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text
