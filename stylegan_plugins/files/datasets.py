"""Look at a data set before anything is written: the host would die on a bad one with a traceback, half-way."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import stat
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

MODES = {"L": 1, "RGB": 3}
WHOLE, WHOLE_BYTES = 5000, 1 << 30  # the first images are read to their last byte; of the others the header alone
RULES = 1  # of the scan; another number makes the cache forget
SETTLED = 2.0  # seconds: some file systems have no finer times, so a younger file may change and keep its time
FORMATS = ("PNG", "JPEG")  # of images that are opened: Pillow hands others to programs, as PostScript to Ghostscript
ADVICE = "Make the data set with the host's dataset_tool.py."

# What Pillow's decoders and zipfile raise on broken files: neither has a base class for it.
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError, OverflowError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, PIL.Image.DecompressionBombError),
)


def check_dataset(path: str | Path) -> tuple[int, int, int]:
    """Check every image of a folder or zip that the host's ImageFolderDataset would read.

    Returns the number of images, their side in pixels, and their channels (1 or 3). The cache keeps them while size and
    time of all files stay as they are.
    Raises DataError, naming the file, if the archive is broken, a file is no image, or images are not square, not a
    power of two in size, not all of one size, or neither gray nor RGB."""
    images, side, channels = _cached(Path(path), _scan)
    return images, side, channels


def _scan(path: Path) -> tuple[int, int, int]:
    with _opened(path) as (names, open_file):
        images = image_names(names)
        if not images:
            raise DataError(f"--data: there are no images in {path}. {ADVICE}")
        size, (width, height, mode) = _inspect(path, images[0], open_file, whole=True)
        first = width, height, mode
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
            read, this = _inspect(path, name, open_file, whole=index < WHOLE and size < WHOLE_BYTES)
            size += read
            if this != first:
                raise DataError(
                    f"--data: images in {path} differ: {images[0]} is {_describe(first)}, {name} is {_describe(this)}. "
                    f"{ADVICE}"
                )
        if "dataset.json" in names:
            _check_labels(path, images, open_file)
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
    with _opened(Path(path)) as (_, open_file):
        for name in names:
            with open_file(name) as file, PIL.Image.open(io.BytesIO(file.read()), formats=FORMATS) as image:
                pixels = np.array(image)
            yield pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def fingerprint(path: str | Path) -> str:
    """Hash the names and contents of all images. For a zip, contents are known by the archive's checksums. The cache
    keeps the hash while size and time of all files stay as they are."""
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
        digest.update(f"{name}\0{checksum}\0{size}\0".encode())
    return digest.hexdigest()[:16]


def labels_fingerprint(path: str | Path) -> str:
    """Return a hash of a data set's dataset.json; "" if it has none."""
    with _opened(Path(path)) as (names, open_file):
        if "dataset.json" not in names:
            return ""
        with open_file("dataset.json") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]


def _cached(path: Path, compute: Callable[[Path], Any]) -> Any:
    """Return what a function returns for a data set, from the cache if no file has changed since."""
    try:
        stats = _files(path) if path.is_dir() else {"": path.stat()}
    except OSError:
        return compute(path)  # it says what is wrong
    relevant = set(image_names(stats)) | {"", "dataset.json"}
    times = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats.items() if name in relevant]
    identity = hashlib.sha256(repr((RULES, PIL.__version__, sorted(times))).encode()).hexdigest()
    place = hashlib.sha256(os.path.abspath(path).encode(errors="surrogateescape")).hexdigest()[:16]
    file = cache_directory() / "datasets" / f"{place}-{compute.__name__.strip('_')}.json"
    try:
        known = json.loads(file.read_text())
        if known["identity"] == identity:
            return known["value"]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # none, or a damaged one
    began = time.time()
    value = compute(path)
    if all(max(mtime, ctime) / 1e9 < began - SETTLED for _, _, mtime, ctime, _ in times):
        with suppress(DataError):  # a cache that cannot be written
            write_json(file, {"path": str(path), "identity": identity, "value": value})
    return value


def _files(folder: Path) -> dict[str, os.stat_result]:
    """Return the files below a folder, by their path in it."""
    found = {}
    for top, _, names in os.walk(folder):
        for file in (os.path.join(top, name) for name in names):
            stats = os.stat(file) if os.path.exists(file) else os.lstat(file)  # the host opens a broken link, too
            if stat.S_ISREG(stats.st_mode) or stat.S_ISLNK(stats.st_mode):
                found[os.path.relpath(file, folder)] = stats
    return found


@contextmanager
def _opened(path: Path) -> Iterator[tuple[set[str], Callable[[str], Any]]]:
    """Give the names of the files in a folder or zip, and a function that opens one to read."""
    if path.is_dir():
        yield set(_files(path)), lambda name: open(path / name, "rb")  # noqa: SIM115  the caller closes it
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
        yield {name for name in archive.namelist() if not name.endswith("/")}, archive.open


def _inspect(path: Path, name: str, open_file: Callable[[str], Any], whole: bool) -> tuple[int, tuple[int, int, str]]:
    """Return the bytes that were read to check all of an image, and its width, height and color mode."""
    try:
        with open_file(name) as file:
            data = file.read() if whole else b""
            with PIL.Image.open(io.BytesIO(data) if whole else file, formats=FORMATS) as image:
                found = image.width, image.height, image.mode
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


def _describe(image: tuple[int, int, str]) -> str:
    return f"{image[0]}x{image[1]} {image[2]}"


def _check_labels(path: Path, images: list[str], open_file: Callable[[str], Any]) -> None:
    try:
        with open_file("dataset.json") as file:
            labels = json.load(file)["labels"]
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
