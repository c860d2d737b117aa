"""Small data sets of real photographs."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image


def write_zip(path: Path, images: list[np.ndarray], labels: list | None = None) -> Path:
    """Write a data set in the layout of the hosts' dataset_tool.py: uint8 images [H, W] or [H, W, 3]."""
    names = [f"00000/img{index:08d}.png" for index in range(len(images))]
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in zip(names, images, strict=True):
            data = io.BytesIO()
            PIL.Image.fromarray(image).save(data, "png")
            archive.writestr(name, data.getvalue())
        if labels is not None:
            archive.writestr("dataset.json", json.dumps({"labels": list(map(list, zip(names, labels, strict=True)))}))
    return path


def color_crops(count: int, side: int = 32, seed: int = 0) -> list[np.ndarray]:
    """Return random crops of color photographs, uint8 [side, side, 3]."""
    import skimage.data

    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    random = np.random.RandomState(seed)
    crops = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        size = random.randint(side, 4 * side)
        y, x = (random.randint(length - size) for length in photograph.shape[:2])
        crop = PIL.Image.fromarray(photograph[y : y + size, x : x + size]).resize((side, side), PIL.Image.LANCZOS)
        crops.append(np.asarray(crop))
    return crops


def gray_faces(count: int, side: int = 32) -> list[np.ndarray]:
    """Return gray faces, uint8 [side, side]."""
    import skimage.data

    faces = [(face * 255).astype(np.uint8) for face in skimage.data.lfw_subset()[:count]]
    return [np.asarray(PIL.Image.fromarray(face).resize((side, side))) for face in faces]
