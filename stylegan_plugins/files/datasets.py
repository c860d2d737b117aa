"""Look at a data set before anything is written: the host would die on a bad one with a traceback, half-way."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image

from stylegan_plugins.errors import DataError

MODES = {"L": 1, "RGB": 3}
FORMATS = ("PNG", "JPEG")  # of images that are opened: Pillow hands others to programs, as PostScript to Ghostscript
WHOLE = 5000  # so many images are read to their last byte; of the others size and color mode alone are looked at
ADVICE = "Make the data set with the host's dataset_tool.py."

# What Pillow's decoders and zipfile raise on broken files: neither has a base class for it.
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError, OverflowError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, PIL.Image.DecompressionBombError),
)


def check_dataset(path: str | Path) -> tuple[int, int, int]:
    """Check every image of a folder or zip that the host's ImageFolderDataset would read.

    Returns the number of images, their side in pixels, and their channels (1 or 3).
    Raises DataError, naming the file, if the archive is broken, a file is no image, or images are not square, not a
    power of two in size, not all of one size, or neither gray nor RGB."""
    path = Path(path)
    with _opened(path) as (names, read):
        images = image_names(names)
        if not images:
            raise DataError(f"--data: there are no images in {path}. {ADVICE}")
        first = width, height, mode = _inspect(path, images[0], read, whole=True)
        if mode not in MODES:
            raise DataError(
                f"--data: {images[0]} in {path} has color mode {mode}; hosts train on gray (L) or RGB. {ADVICE}"
            )
        if width != height or width < 8 or width & (width - 1):
            raise DataError(
                f"--data: {images[0]} in {path} is {_describe(first)}; hosts train on square images of a power of two, "
                f"8 pixels or more. {ADVICE}"
            )
        for index, name in enumerate(images[1:], 1):
            this = _inspect(path, name, read, whole=index < WHOLE)
            if this != first:
                raise DataError(
                    f"--data: images in {path} differ: {images[0]} is {_describe(first)}, {name} is {_describe(this)}. "
                    f"{ADVICE}"
                )
        if "dataset.json" in names:
            _check_labels(path, images, read)
    return len(images), width, MODES[mode]


def image_names(names: Iterable[str]) -> list[str]:
    """Return the files that the host's ImageFolderDataset takes for images, in its order."""
    PIL.Image.init()
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in PIL.Image.EXTENSION)


def read_images(path: str | Path) -> tuple[list[str], Iterator[np.ndarray]]:
    """Return the names and, one by one, the pixels of all images as the host reads them, uint8 [C, H, W]."""
    with _opened(Path(path)) as (files, _):
        names = image_names(files)
    return names, read_named(path, names)


def read_named(path: str | Path, names: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield the pixels of images of these names, as the host reads them, uint8 [C, H, W]."""
    with _opened(Path(path)) as (_, read):
        for name in names:
            with PIL.Image.open(io.BytesIO(read(name)), formats=FORMATS) as image:
                pixels = np.array(image)
            yield pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def fingerprint(path: str | Path) -> str:
    """Hash the names and contents of all images. For a zip, contents are known by the archive's checksums."""
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        with _opened(path) as (files, read):
            contents = {name: (zlib.crc32(data := read(name)), len(data)) for name in image_names(files)}
    else:
        with zipfile.ZipFile(path) as archive:
            contents = {entry.filename: (entry.CRC, entry.file_size) for entry in archive.infolist()}
    for name in image_names(contents):
        checksum, size = contents[name]
        digest.update(f"{name}\0{checksum}\0{size}\0".encode())
    return digest.hexdigest()[:16]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[set[str], Callable[[str], bytes]]]:
    """Give the names of the files in a folder or zip, and a function that reads one."""
    if path.is_dir():
        names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
        yield names, lambda name: (path / name).read_bytes()
        return
    if not path.exists():
        raise DataError(f"--data: {path} does not exist.")
    if path.suffix.lower() != ".zip":
        raise DataError(f"--data: {path} is neither a folder nor a zip. {ADVICE}")
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN as error:
        raise DataError(f"--data: {path} cannot be read as a zip ({error}); it may be truncated. {ADVICE}") from error
    with archive:
        yield {name for name in archive.namelist() if not name.endswith("/")}, archive.read


def _inspect(path: Path, name: str, read: Callable[[str], bytes], whole: bool) -> tuple[int, int, str]:
    try:
        with PIL.Image.open(io.BytesIO(read(name)), formats=FORMATS) as image:
            found = image.width, image.height, image.mode
            if whole and image.format == "PNG":
                image.verify()  # checksums, without decoding
            elif whole:
                image.load()
            return found
    except BROKEN as error:
        why = (
            "it is neither PNG nor JPEG"
            if isinstance(error, PIL.UnidentifiedImageError)
            else " ".join(str(error).split())
        )
        raise DataError(
            f"--data: {name} in {path} cannot be read as an image ({why}). Take it out, or replace it."
        ) from error


def _describe(image: tuple[int, int, str]) -> str:
    return f"{image[0]}x{image[1]} {image[2]}"


def _check_labels(path: Path, images: list[str], read: Callable[[str], bytes]) -> None:
    try:
        labels = json.loads(read("dataset.json"))["labels"]
        if labels is None:
            return
        labelled = {name: label for name, label in labels}
    except BROKEN as error:
        raise DataError(
            f'--data: dataset.json in {path} is not {{"labels": [[file, label], ...]}} ({error!r}). {ADVICE}'
        ) from error
    names = [name.replace("\\", "/") for name in images]
    missing = [name for name in names if name not in labelled]
    if missing:
        raise DataError(
            f"--data: dataset.json in {path} has labels, but none for {missing[0]} ({len(missing)} missing). {ADVICE}"
        )
    try:
        values = np.array([labelled[name] for name in names], dtype=np.float32)
        fit = values.ndim == 2 or (values.ndim == 1 and (values >= 0).all() and (values == np.floor(values)).all())
    except (TypeError, ValueError):
        fit = False
    if not fit:
        raise DataError(
            f"--data: labels in dataset.json in {path} must all be class numbers 0, 1, 2, ..., or all be lists of as "
            f"many numbers; {names[0]} has {json.dumps(labelled[names[0]])}. {ADVICE}"
        )


def check_output(outdir: str | Path) -> None:
    """Raise DataError if no run directory can be made in `outdir`. Makes nothing."""
    path = Path(outdir).absolute()
    while not os.path.exists(path):  # Path.exists raises below a folder that may not be entered
        path = path.parent
    if not path.is_dir():
        raise DataError(f"--outdir: {path} is a file; give a folder.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataError(f"--outdir: {path} is not writable; give another folder.")
