"""The pictures of a report: excerpts of a run's sheets of samples, and images made with its generator."""

from __future__ import annotations

import base64
import functools
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from stylegan_plugins.files.datasets import BROKEN, FORMATS
from stylegan_plugins.files.run_folders import SNAPSHOT
from stylegan_plugins.host import devices
from stylegan_plugins.report.curves import number
from stylegan_plugins.report.history import Run

MOST_PICTURES = 6  # sheets of samples of a run, at most
MOST_BYTES = 80_000  # bytes of a picture, at most: a run stays under 1 MB
SHOWN = (8, 4)  # images shown of a sheet, across and down
SIDE = 128  # pixels of an image in a picture, at most
LEAST_SIDE, MOST_SIDE = 4, 4096  # pixels of an image that hosts make; another recorded side is ignored
MOST_PIXELS = 7 * 4 * 2048**2  # pixels of a sheet, at most: a sheet of images of 2048 pixels


@dataclass(frozen=True)
class Encoded:
    """An encoded image in the page. pixelated: it is so small that its pixels should be visible."""

    src: str
    width: int
    height: int
    pixelated: bool


@dataclass(frozen=True)
class Picture:
    image: Encoded
    alt: str
    caption: str


def sheets(run: Run, name: str, notes: list[str], newest: str | None = None) -> list[Picture]:
    """Return excerpts of a run's sheets: of photographs, then of samples. An unreadable sheet becomes a note.

    newest: text before the caption; only the newest samples are then shown. None: all"""
    count = min(len(run.sheets), MOST_PICTURES if newest is None else 1)
    last = len(run.sheets) - 1
    # Evenly spaced in time, the newest first, after the photographs.
    chosen = [run.sheets[round(last - index * last / max(count - 1, 1))] for index in range(count)]
    side = side_in(run)
    captions = [(file, "before training" if kimg is None else f"{kimg} kimg") for kimg, file in chosen]
    shown = [(file, f"Samples of {name}, {when}", when) for file, when in captions]
    if newest is not None:
        shown = [(file, alt, f"{newest}, {when}") for file, alt, when in shown]
    elif run.photographs is not None:
        shown.insert(0, (run.photographs, f"Photographs of {name}", "Photographs that it is trained on"))
    found = []
    for file, alt, caption in shown:
        try:
            stat = file.stat()
            image = _read(file.absolute(), stat.st_size, stat.st_mtime_ns, side)
        except BROKEN as error:
            notes.append(f"{file.name} cannot be read as an image and was left out ({' '.join(str(error).split())}).")
            continue
        found.append(Picture(image, alt, caption))
    return found


def side_in(run: Run) -> int | None:
    """Return the recorded side of one image of a run, in pixels; None if it is not recorded."""
    recorded = number(run.settings.get("training_set_kwargs.resolution"))
    return None if recorded is None else int(recorded)


@functools.lru_cache(maxsize=256)  # of up to 107 KB each: a page is written at each tick, and sheets do not change
def _read(file: Path, size: int, mtime: int, side: int | None) -> Encoded:
    """Return `opened` of a file, encoded, cached by size and time of the file. Raises one of BROKEN."""
    return _encoded(*opened(file, side))


def opened(file: Path, side: int | None) -> tuple[PIL.Image.Image, bool]:
    """Return `excerpt` of a file. side: recorded pixels of one image, None if not known. Raises one of BROKEN."""
    if not file.is_file():
        raise OSError("it is not a regular file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # the check below is stricter
        with PIL.Image.open(file, formats=FORMATS) as sheet:
            if sheet.width * sheet.height > MOST_PIXELS:
                raise ValueError(f"{sheet.width}x{sheet.height} pixels are more than a sheet has")
            return excerpt(sheet, side)


def side_of(size: tuple[int, int], recorded: int | None) -> int | None:
    """Return the side in pixels of one image in a sheet of the host; None if neither the recorded side nor the size of
    the sheet gives it.

    A sheet has as many images as fit in 7680x4320, 7x4 to 32x32 of them. Sheets of images of 256 and of 512 pixels have
    the same size. For it this returns 256: the excerpt then has 4x2 images of 512, none of them cut."""
    if recorded is not None and not LEAST_SIDE <= recorded <= MOST_SIDE:
        recorded = None
    for side in [recorded] if recorded else [8 << power for power in range(9)]:
        columns, rows = min(max(7680 // side, 7), 32), min(max(4320 // side, 4), 32)
        if size == (columns * side, rows * side) or (recorded and not (size[0] % side or size[1] % side)):
            return side
    return None


def excerpt(sheet: PIL.Image.Image, recorded: int | None) -> tuple[PIL.Image.Image, bool]:
    """Return the upper left part of a sheet, and whether its images are so small that their pixels should be seen."""
    side = side_of(sheet.size, recorded)
    if side is None:  # not a shape that hosts make: show all of it, smaller
        sheet.thumbnail((SHOWN[0] * SIDE, SHOWN[1] * SIDE))
        return _plain(sheet), False
    columns, rows = min(SHOWN[0], sheet.width // side), min(SHOWN[1], sheet.height // side)
    image = _plain(sheet.crop((0, 0, columns * side, rows * side)))
    if side > SIDE:
        image = image.resize((columns * SIDE, rows * SIDE), PIL.Image.Resampling.BOX)  # images do not mix
    return image, side <= 64


def _plain(image: PIL.Image.Image) -> PIL.Image.Image:
    return image.copy() if image.mode in ("L", "RGB") else image.convert("RGB")


def _encoded(image: PIL.Image.Image, pixelated: bool) -> Encoded:
    """Encode as WebP: lossless if it is small, else at a lower quality, and then at a smaller size."""
    ways: list[dict[str, Any]] = [{"quality": 90}, {"quality": 75}, {"quality": 50}]
    if image.width * image.height * len(image.getbands()) <= 2 * MOST_BYTES:
        ways.insert(0, {"lossless": True})
    for options in ways:
        data = io.BytesIO()
        image.save(data, "webp", method=2, **options)
        if data.tell() <= MOST_BYTES:
            source = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
            return Encoded(source, *image.size, pixelated)
    return _encoded(image.reduce(2), pixelated)


def generated(run: Run, name: str) -> list[Picture]:
    """Return samples of the newest snapshot, and walks between some of them in w. Raises UserError if it cannot."""
    from stylegan_plugins.analysis import pictures, sample  # and backbones; only a page with a generator needs them

    G, sampler, file = sample.load_generator(run.path, devices.device())
    columns, rows = SHOWN
    label = 0 if G.c_dim and sampler is None else None
    drawn = list(sample.latents(G, range(columns * rows), sampler=sampler, label=label))
    walks = [w for row in (0, 1) for w in pictures.between(drawn[row : row + 2], columns - 1, closed=False)]
    match = SNAPSHOT.fullmatch(file.name)
    whose = f"{int(match[1])} kimg" if match else file.name
    if label is not None:
        whose += ", class 0"
    made = []
    for ws, what in ((drawn, "Seeds 0 to 31"), (walks, "From seed 0 to 1, and from 1 to 2, in w")):
        images = [sample.render(G, w) for w in ws]
        image, small = excerpt(sample.grid(images, columns), images[0].shape[1])
        made.append(Picture(_encoded(image, small), f"{what}: images of {name}, {whose}", f"{what}, {whose}"))
    return made
