"""Decoded images of a data set, in one file that all processes of a machine map into memory.

The file is in the cache, and its name contains the data's fingerprint. Data-loader workers and ranks share its pages in
memory. The system frees these pages first when memory runs short."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import os
import shutil
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import PIL
import psutil
import torch

from stylegan_plugins.cache import cache_directory
from stylegan_plugins.errors import DataError, tell
from stylegan_plugins.files import datasets
from stylegan_plugins.files.atomic import whole

MODES = ("auto", "off", "ram")
AS_HOST = "Each image is decoded whenever it is used."
RULES = 1  # version of the file's format; another number invalidates the cache
SHARE = {"auto": 0.25, "ram": 1.0}  # share of the free memory that images may take
TIMES = 10  # auto decodes all images before the first iteration if the run shows each at least this often
LEFT = 1 << 30  # bytes that stay free on the disk, for the run
LARGE = 64 << 20  # bytes from which the file is reported without --cache
DAYS = 30  # days that a file is kept after its last use
CORES = os.cpu_count() or 1
OF_HOST = ("_path", "_raw_idx", "_load_raw_image", "image_shape")  # attributes that a data set must have


class DecodedImages:
    """A replacement for a data set's `_load_raw_image`, which returns uint8 [C, H, W] from a file.

    rows [N]: raw indices of the images in the file, ascending. Other images are decoded."""

    def __init__(self, dataset: Any, file: Path, rows: np.ndarray) -> None:
        self.dataset, self.file, self.rows = dataset, file, rows
        self.shape = tuple(dataset.image_shape)
        self._pixels: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pixels": None}  # a worker maps the file itself

    def __call__(self, raw_idx: int) -> np.ndarray:
        row = int(np.searchsorted(self.rows, raw_idx))
        if row == len(self.rows) or self.rows[row] != raw_idx:
            return decode(self.dataset, raw_idx)
        if self._pixels is None:
            try:
                self._pixels = self.records()["pixels"]
            except datasets.BROKEN:  # the cache was emptied meanwhile
                return decode(self.dataset, raw_idx)
        return self._pixels[row].view(_Pixels)

    def records(self) -> np.ndarray:
        """Map the file into memory: `pixels` and `checksum` of each image. Raises one of datasets.BROKEN."""
        header = self.header()
        with open(self.file, "rb") as file:
            if file.read(len(header)) != header:
                raise ValueError(f"{self.file} has other images")
            found = np.memmap(file, self.dtype, "r", offset=len(header), shape=self.rows.shape)
        return found.view(np.ndarray)

    def header(self) -> bytes:
        """Return the header of the file, in NumPy's format (.npy)."""
        header = io.BytesIO()
        fields = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.rows.shape}
        np.lib.format.write_array_header_1_0(header, fields)
        return header.getvalue()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype([("pixels", np.uint8, self.shape), ("checksum", "<u8")])  # pixels start at multiples of 8

    def are_right(self) -> bool:
        """Return whether the checksums of the file are right, and its first and last image equal the data set's."""
        try:
            records = self.records()
        except datasets.BROKEN:
            return False
        intact = lambda part: all(zlib.crc32(record["pixels"]) == record["checksum"] for record in part)
        with ThreadPoolExecutor(CORES) as pool:
            if not all(pool.map(intact, np.array_split(records, CORES))):
                return False
        ends = ((0, self.rows[0]), (-1, self.rows[-1]))
        return all(np.array_equal(records["pixels"][row], decode(self.dataset, raw_idx)) for row, raw_idx in ends)


FLIP = (slice(None), slice(None), slice(None, None, -1))


class _Pixels(np.ndarray):
    """Pixels uint8 [C, H, W] whose horizontal flip, the host's `image[:, :, ::-1]`, is copied by torch. NumPy copies it
    byte by byte, which would take most of a loader's time. Other parts, and copies, are plain arrays."""

    def __getitem__(self, key: Any) -> Any:
        part = self.view(np.ndarray)[key]
        slices = type(key) is tuple and all(type(index) is slice for index in key)
        return part.view(_Pixels) if slices and key == FLIP and self.flags.c_contiguous else part

    def copy(self, order: Any = "C") -> np.ndarray:  # type: ignore[override]
        plain = self.view(np.ndarray)
        unflipped = plain[FLIP] if plain.ndim == 3 else plain
        flipped = unflipped.flags.c_contiguous and not plain.flags.c_contiguous
        if order != "C" or not flipped or plain.dtype != np.uint8:
            return plain.copy(order)
        _let_torch_read()
        return torch.from_numpy(unflipped).flip(2).numpy()


@functools.cache
def _let_torch_read() -> None:
    """Let torch give its warning about arrays that are read-only now, unheard: it gives it once in a process."""
    read_only = np.zeros(1, np.uint8)
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(read_only)


def decode(dataset: Any, raw_idx: int) -> np.ndarray:
    """Return an image as the data set's class decodes it, uint8 [C, H, W]."""
    return type(dataset)._load_raw_image(dataset, raw_idx)


def use(dataset: Any, mode: str | None, shown: int, tells: bool = True) -> None:
    """Let a data set of the host read its images from memory, if they fit and this saves time. Images are the same, bit
    for bit.

    mode   off: never; ram: if they fit into the free memory; auto: if they fit into a quarter of it, and the run shows
           each image TIMES times or the file exists already; None, not given: auto
    shown  number of images that the run will still show
    tells  whether this process prints messages; only one of several does

    A file that cannot be made or read is not an error: the host then decodes images itself."""
    if mode == "off":
        return

    def say(text: str) -> None:
        if tells:
            tell(f"--cache={mode or 'auto'}: {text}")

    if not all(hasattr(dataset, name) for name in OF_HOST):
        if mode:
            say(f"{type(dataset).__name__} does not read images one by one from a folder or zip. {AS_HOST}")
        return
    try:
        _use(dataset, mode, shown, say)
    except (*datasets.BROKEN, MemoryError) as error:  # a DataError is a ValueError
        say(f"{' '.join(str(error).split())} {AS_HOST}")


def _use(dataset: Any, mode: str | None, shown: int, say: Callable[[str], None]) -> None:
    rows = np.unique(dataset._raw_idx)
    images = DecodedImages(dataset, _place(dataset, rows), rows)
    size = rows.size * images.dtype.itemsize
    if not (mode == "ram" or shown >= TIMES * rows.size or images.file.exists()):
        if mode:
            say(f"each image is used {shown / rows.size:.3g} times. {AS_HOST} --cache=ram decodes all of them first.")
        return
    limit = int(SHARE[mode or "auto"] * psutil.virtual_memory().available)
    if size > limit:
        raise DataError(f"{rows.size} images need {_mb(size)} of memory, and may take {_mb(limit)} of the free memory.")
    if not images.are_right():
        _check_room(images.file.parent, size)
        if mode or size >= LARGE:
            say(f"decoding {rows.size} images once, {_mb(size)}, into {images.file}")
        _make(images)
    elif mode or size >= LARGE:
        say(f"{rows.size} decoded images, {_mb(size)}, are read from {images.file}")
    with suppress(OSError):
        os.utime(images.file)  # marks its use, for _remove_old
    dataset._load_raw_image = images


def _place(dataset: Any, rows: np.ndarray) -> Path:
    """Return the path of the file for these images of a data set, as its class decodes them."""
    cls = type(dataset)
    identity = repr((RULES, PIL.__version__, cls.__module__, cls.__qualname__, dataset.image_shape)).encode()
    digest = hashlib.sha256(identity + rows.astype("<i8").tobytes()).hexdigest()[:16]
    return cache_directory() / "decoded" / f"{datasets.fingerprint(dataset._path)}-{digest}.npy"


def _check_room(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    free = max(shutil.disk_usage(folder).free - LEFT, 0)
    if size > free:
        raise DataError(f"{folder} needs {_mb(size)}, and {_mb(free)} are free for it.")


def _make(images: DecodedImages) -> None:
    """Write the file, in only one of the processes that need it. Raises DataError, or one of datasets.BROKEN."""
    file, first = images.file, images.rows[0]
    with filelock.FileLock(file.with_suffix(".lock")):
        if images.are_right():  # another process has written it meanwhile
            return
        if not np.array_equal(decode(images.dataset, first), decode(images.dataset, first)):
            raise DataError("this data set reads an image in another way each time.")
        _write(images)
        if _place(images.dataset, images.rows) != file:
            file.unlink()
            raise DataError(f"{images.dataset._path} changes while it is read.")


def _write(images: DecodedImages) -> None:
    with whole(images.file) as out:
        out.write(images.header())
        for image in _decoded(images.dataset, images.rows):
            if image.dtype != np.uint8 or image.shape != images.shape:
                raise DataError(f"this data set reads {image.dtype} {list(image.shape)}, not uint8 {[*images.shape]}.")
            record = np.empty([], images.dtype)
            record["pixels"] = image
            record["checksum"] = zlib.crc32(record["pixels"].data)
            out.write(record.tobytes())


def _decoded(dataset: Any, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield images of a data set, in order, decoded on all cores."""
    of_thread = threading.local()  # one data set per thread, as per worker: a zip handle cannot be shared

    def one(raw_idx: int) -> np.ndarray:
        if not hasattr(of_thread, "dataset"):
            of_thread.dataset = copy.copy(dataset)
        return decode(of_thread.dataset, raw_idx)

    with ThreadPoolExecutor(CORES) as pool:
        for start in range(0, rows.size, 8 * CORES):
            yield from pool.map(one, rows[start : start + 8 * CORES])


def _remove_old(folder: Path) -> None:
    """Remove files that no run has used for DAYS, and unfinished files of killed processes."""
    for file in folder.iterdir():
        with suppress(OSError):  # another process may remove it, too
            if file.stat().st_mtime < time.time() - DAYS * 86400:
                file.unlink()


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
