"""Conversion of one picture, as cameras, scanners and programs write it, to an image for the hosts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

import imagehash
import numpy as np
import PIL.Image
import PIL.ImageOps

from stylegan_plugins.files import datasets

with suppress(ImportError):  # HEIC of telephones; adds its endings to Pillow's
    import pillow_heif  # type: ignore[import-not-found, unused-ignore]

    pillow_heif.register_heif_opener()

FORMATS = (*datasets.FORMATS, "TIFF", "WEBP", "BMP", "DIB", "GIF", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA")
# Modes with one value per pixel, and their largest values: 16 bits, more bits, fractions.
DEEP = {"I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I;16N": 65535, "I": 65535, "F": 1}
GRAY = ("1", "L", "LA", "La", *DEEP)


@dataclass(frozen=True)
class Seen:
    """The properties of a picture: its shorter side, its mode, and the range of its values if it is deep."""

    side: int
    mode: str
    deep: bool
    low: float = 0
    high: float = 0


def look(file: IO[bytes]) -> Seen:
    """Read the header of a picture, or all of a deep picture. Raises one of datasets.BROKEN if it cannot be read."""
    with _open(file) as image:
        side, mode = min(image.size), image.mode
        if mode in DEEP:
            values = np.asarray(image)
            low, high = float(values.min()), float(values.max())
            if not np.isfinite([low, high]).all():
                raise ValueError("it has values that are not numbers")
            return Seen(side, mode, True, low, high)
        deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3)
        return Seen(side, mode, deep, 0, float(max(pair[1] for pair in _extrema(image))) if deep else 0)


def _open(file: IO[bytes]) -> PIL.Image.Image:
    return PIL.Image.open(file, formats=[kind for kind in FORMATS if kind in PIL.Image.OPEN])


def _extrema(image: PIL.Image.Image) -> Sequence[tuple[float, float]]:
    found: Any = image.getextrema()
    return [found] if isinstance(found[0], int | float) else found


@dataclass(frozen=True)
class Form:
    """The common form of all pictures in a data set.

    ranges   the values of deep pictures that become 0 and 255, by mode"""

    side: int
    gray: bool
    crop: str
    ranges: dict[str, tuple[float, float]]


@dataclass
class Made:
    """A picture of the data set: its bytes and ending, a perceptual hash, and notes about the changes made to it.

    failed   the reason if it could not be converted"""

    data: bytes = b""
    suffix: str = ".png"
    digest: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    failed: str = ""


def convert(data: bytes, form: Form) -> Made:
    """Return a picture in this form. Raises one of datasets.BROKEN if it cannot be read."""
    made = Made()
    with _open(io.BytesIO(data)) as opened_image:
        kind, size, mode = opened_image.format, opened_image.size, opened_image.mode
        as_it_is = kind in datasets.FORMATS and size == (form.side, form.side)
        as_it_is &= mode == ("L" if form.gray else "RGB")
        turned = opened_image.getexif().get(datasets.ORIENTATION, 1) in range(2, 9)
        if getattr(opened_image, "n_frames", 1) > 1:
            made.notes.append("with several frames or pages, of which the first is taken")
        if kind == "JPEG" and not turned:
            opened_image.draft(None, (2 * form.side, 2 * form.side))  # much faster, and still larger than needed
        opened_image.load()
        image = PIL.ImageOps.exif_transpose(opened_image) if turned else opened_image.copy()
    if turned:
        made.notes.append("turned as their EXIF data say")
    image = _flat(image, form, made.notes)
    if image.size != (form.side, form.side):
        image = _square(image, form)
    made.digest = imagehash.phash(image).hash.reshape(-1)
    if as_it_is and not turned:
        made.data, made.suffix = data, ".png" if kind == "PNG" else ".jpg"
    else:
        out = io.BytesIO()
        image.save(out, "PNG")
        made.data = out.getvalue()
    return made


def _flat(image: PIL.Image.Image, form: Form, notes: list[str]) -> PIL.Image.Image:
    """Return a picture in gray or RGB; transparent pixels become white."""
    if image.mode in DEEP:
        low, high = form.ranges[image.mode]
        values = (np.asarray(image, np.float64) - low) / (high - low)
        image = PIL.Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        notes.append("that are transparent, now on white")
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if form.gray else "RGB")


def _square(image: PIL.Image.Image, form: Form) -> PIL.Image.Image:
    size = (form.side, form.side)
    if form.crop == "center":
        return PIL.ImageOps.fit(image, size, PIL.Image.Resampling.LANCZOS)
    if form.crop == "pad":
        return PIL.ImageOps.pad(image, size, PIL.Image.Resampling.LANCZOS, color="white")
    return image.resize(size, PIL.Image.Resampling.LANCZOS)


def reason(error: BaseException) -> str:
    """Return the reason why a picture cannot be read."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "it is not a picture of a known kind"
    return f"{' '.join(str(error).split()) or type(error).__name__:.100}"
