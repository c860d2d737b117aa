"""Samples of several generators on one picture, each with its caption: what a table of a metric means to the eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from stylegan_plugins.analysis import sample
from stylegan_plugins.files import run_folders

GAP, TEXT = 16, 18  # pixels


def caption_of(run_or_pkl: Path) -> str:
    """Return the plug-ins of a run, or the name of a file."""
    options = run_folders.read_options(run_or_pkl) if run_or_pkl.is_dir() else None
    plugins = {} if options is None else options.get("plugins")
    active = plugins.get("active") if isinstance(plugins, dict) else None
    return run_or_pkl.name if options is None else ", ".join(map(str, active or [])) or "no plug-in"


def side_by_side(groups: Sequence[tuple[str, Sequence[np.ndarray]]], columns: int) -> PIL.Image.Image:
    """Return sheets of images [H, W, C], small ones enlarged, next to each other under their captions.

    columns: images in a row of each sheet"""
    sheets = [(caption, sample.enlarged(images, columns).convert("RGB")) for caption, images in groups]
    width = sum(sheet.width + GAP for _, sheet in sheets) - GAP
    height = TEXT + GAP + max(sheet.height for _, sheet in sheets)
    canvas = PIL.Image.new("RGB", (width, height), "white")
    pen, font, left = PIL.ImageDraw.Draw(canvas), PIL.ImageFont.load_default(TEXT), 0
    for caption, sheet in sheets:
        pen.text((left, TEXT // 4), _shortened(caption, sheet.width, font), fill="black", font=font)
        canvas.paste(sheet, (left, TEXT + GAP))
        left += sheet.width + GAP
    return canvas


def _shortened(text: str, width: int, font: PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont) -> str:
    """Return as much of a text as fits into so many pixels."""
    while text and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text
