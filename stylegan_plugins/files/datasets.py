"""Checks of a data set before anything is written. The host would end with a traceback on a bad one, half-way."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.atomic import write_json
from stylegan_plugins.files.downloads import cache_directory
from stylegan_plugins.files.sources import is_clutter, open_zip, walk

MODES = {"L": 1, "RGB": 3}
LABELS = "dataset.json"
LARGEST = 3e38  # the largest label: labels are float32
ORIENTATION = 0x0112  # the tag of EXIF
AGAIN = "Give the pictures to train.py again, which prepares them."
WHOLE, WHOLE_BYTES = 5000, 1 << 30  # the first images are read completely, the headers of others alone
RULES = 2  # version of the scan's rules; another number invalidates the cache
SETTLED = 2.0  # seconds: file times may be this coarse, so a younger file may change and keep its time
FORMATS = ("PNG", "JPEG")  # allowed formats: Pillow passes others to programs, such as PostScript to Ghostscript

# Errors of Pillow's decoders and of zipfile on broken files: neither has a base class for them.
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError, OverflowError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, PIL.Image.DecompressionBombError),
)


def check_dataset(path: str | Path) -> tuple[int, int, int]:
    """Check every image of a folder or zip that the host's ImageFolderDataset would read.

    Returns the number of images, their side in pixels, and their channels (1 or 3). The cache keeps them until the size
    or time of a file changes.
    Raises DataError, naming the file, where the hosts would fail: for a broken archive, a file that cannot be read, and
    labels that the hosts would misread. Images must be square, with a power of two as side, all of one size, gray or
    RGB, and not rotated by EXIF."""
    images, side, channels = _cached(Path(path), _scan)
    return images, side, channels


def _scan(path: Path) -> tuple[int, int, int]:
    with _opened(path) as (names, open_file):
        images = image_names(names)
        if not images:
            raise DataError(f"--data: there are no images in {path}. Give a folder or zip of pictures.")
        if path.is_dir() and len(image_names(walk(path))) > len(images):
            raise DataError(f"--data: {path} has links to folders, which hosts do not follow. {AGAIN}")
        size, first = 0, None
        for index, name in enumerate(images):
            read, this = _inspect(path, name, open_file, whole=index < WHOLE and size < WHOLE_BYTES)
            size += read
            width, height, mode = this
            if mode not in MODES or width != height or width < 8 or width & (width - 1) or this != (first or this):
                raise DataError(
                    f"--data: {name} in {path} is {width}x{height} {mode}; hosts train on square images of a power of "
                    f"two, 8 pixels or more, all gray (L) or all RGB, and of one size. {AGAIN}"
                )
            if is_clutter(name):
                raise DataError(f"--data: {name} in {path} is a hidden or system file. Take it out.")
            first = this
        if LABELS in names and not _labels_fit(images, open_file):
            raise DataError(f"--data: {LABELS} in {path} is not as hosts read it. {AGAIN}")
        assert first is not None
    return len(images), first[0], MODES[first[2]]


def image_names(names: Iterable[str]) -> list[str]:
    """Return the files that the host's ImageFolderDataset takes for images, in its order."""
    PIL.Image.init()
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in PIL.Image.EXTENSION)


def read_images(path: str | Path) -> tuple[list[str], Iterator[np.ndarray]]:
    """Return the names of all images, and an iterator over their pixels as the host reads them, uint8 [C, H, W]."""
    with _opened(Path(path)) as (files, _):
        names = image_names(files)
    return names, read_named(path, names)


def read_named(path: str | Path, names: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield the pixels of images of these names, as the host reads them, uint8 [C, H, W]."""
    with _opened(Path(path)) as (_, open_file):
        for name in names:
            with open_file(name) as file, PIL.Image.open(io.BytesIO(file.read()), formats=FORMATS) as image:
                pixels = np.array(image)
            yield pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def fingerprint(path: str | Path) -> str:
    """Return a hash of the names and contents of all images. The contents of a zip are identified by the archive's
    checksums. The cache keeps the hash until the size or time of a file changes."""
    return _cached(Path(path), _fingerprint)


def _fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    if path.is_dir():
        contents = {}
        for name in image_names(_files(path)):
            data = (path / name).read_bytes()
            contents[name] = zlib.crc32(data), len(data)
    else:
        with zipfile.ZipFile(path) as archive:
            contents = {entry.filename: (entry.CRC, entry.file_size) for entry in archive.infolist()}
    for name in image_names(contents):
        checksum, size = contents[name]
        digest.update(f"{name}\0{checksum}\0{size}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def labels_fingerprint(path: str | Path) -> str:
    """Return a hash of a data set's dataset.json; "" if it has none."""
    with _opened(Path(path)) as (names, open_file):
        if LABELS not in names:
            return ""
        with open_file(LABELS) as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]


def _cached(path: Path, compute: Callable[[Path], Any]) -> Any:
    """Return a function's result for a data set, from the cache if no file has changed since."""
    try:
        stats = _files(path) if path.is_dir() else {"": path.stat()}
    except OSError:
        return compute(path)  # raises the error
    relevant = set(image_names(stats)) | {"", LABELS}
    times = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats.items() if name in relevant]
    identity = hashlib.sha256(repr((RULES, PIL.__version__, sorted(times))).encode()).hexdigest()
    place = hashlib.sha256(os.path.abspath(path).encode(errors="surrogateescape")).hexdigest()[:16]
    file = cache_directory() / "datasets" / f"{place}-{compute.__name__.strip('_')}.json"
    try:
        known = json.loads(file.read_text())
        if known["identity"] == identity:
            return known["value"]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # no cached result, or a damaged one
    began = time.time()
    value = compute(path)
    if all(max(mtime, ctime) / 1e9 < began - SETTLED for _, _, mtime, ctime, _ in times):
        with suppress(DataError):  # a cache that cannot be written
            write_json(file, {"path": str(path), "identity": identity, "value": value})
    return value


def _files(folder: Path) -> dict[str, os.stat_result]:
    """Return the files below a folder that the host sees, by their path in the folder."""
    return walk(folder, links=False)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[set[str], Callable[[str], Any]]]:
    """A context with the names of the files in a folder or zip, and a function that opens one for reading."""
    if path.is_dir():
        yield set(_files(path)), lambda name: open(path / name, "rb")  # noqa: SIM115  the caller closes it
        return
    with open_zip(path) as archive:
        if path.suffix.lower() != ".zip":
            raise DataError(f"--data: the name of {path} does not end in .zip, as hosts expect it. Rename it.")
        yield {name for name in archive.namelist() if not name.endswith("/")}, archive.open


def _inspect(path: Path, name: str, open_file: Callable[[str], Any], whole: bool) -> tuple[int, tuple[int, int, str]]:
    """Return the number of bytes read for a check of the whole image, and its width, height and color mode."""
    try:
        with open_file(name) as file:
            data = file.read() if whole else b""
            with PIL.Image.open(io.BytesIO(data) if whole else file, formats=FORMATS) as image:
                found = image.width, image.height, image.mode
                if "exif" in image.info and image.getexif().get(ORIENTATION, 1) in range(2, 9):
                    raise ValueError("it lies on its side, as its EXIF data say")
                if whole and image.format == "PNG":
                    image.verify()  # checksums, without decoding
                elif whole:
                    image.load()
                return len(data), found
    except BROKEN as error:
        why = (
            "it is neither PNG nor JPEG"
            if isinstance(error, PIL.UnidentifiedImageError)
            else " ".join(str(error).split())
        )
        raise DataError(
            f"--data: {name} in {path} cannot be read as an image ({why}). Take it out, or replace it."
        ) from error


def _labels_fit(images: list[str], open_file: Callable[[str], Any]) -> bool:
    """Return whether the host reads labels correctly: one for each image, and all class numbers, or all lists of finite
    numbers with the same length."""
    try:
        with open_file(LABELS) as file:
            rows = json.load(file)["labels"]
        if rows is None:
            return True
        labels = {name: label for name, label in rows}
        repeated = len(labels) < len(rows) and any(labels[name] != label for name, label in rows)
        values = np.array([labels[name.replace("\\", "/")] for name in images])
    except BROKEN:
        return False
    if repeated or values.dtype.kind not in "iuf" or values.size == 0 or not (np.abs(values) < LARGEST).all():
        return False
    return values.ndim == 2 or (values.ndim == 1 and bool(((values >= 0) & (values == np.floor(values))).all()))


def check_output(outdir: str | Path) -> None:
    """Raise DataError if no run directory can be made in `outdir`. Writes nothing."""
    path = Path(outdir).absolute()
    while not os.path.exists(path):  # Path.exists raises below a folder without permission
        path = path.parent
    if not path.is_dir():
        raise DataError(f"--outdir: {path} is a file; give a folder.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataError(f"--outdir: {path} is not writable; give another folder.")
