"""Decoded images of a data set, in one file that all processes of a machine map into memory.

The file is in the cache, and its name has the data's fingerprint. The pages that were read are in memory once for all
data-loader workers and ranks, and are the first that the system gives up when memory runs short."""

from __future__ import annotations

import copy
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
RULES = 1  # of the file; another number makes the cache forget
SHARE = {"auto": 0.25, "ram": 1.0}  # of the free memory that images may take
TIMES = 10  # that a run shows each image, for which auto decodes all of them before the first iteration
LEFT = 1 << 30  # bytes that stay free on the disk, for the run
LARGE = 64 << 20  # bytes of which is told without --cache
DAYS = 30  # that a file is kept after its last use
CORES = os.cpu_count() or 1
OF_HOST = ("_path", "_raw_idx", "_load_raw_image", "image_shape")  # what a data set must have


class DecodedImages:
    """A function in place of a data set's `_load_raw_image`, which returns uint8 [C, H, W] from a file.

    rows [N]: raw indices of the images in the file, ascending. Others are decoded."""

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
            except datasets.BROKEN:  # somebody has emptied the cache
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
        """Return what the file begins with: it is one of NumPy (.npy)."""
        header = io.BytesIO()
        fields = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.rows.shape}
        np.lib.format.write_array_header_1_0(header, fields)
        return header.getvalue()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype([("pixels", np.uint8, self.shape), ("checksum", "<u8")])  # pixels at multiples of 8

    def are_right(self) -> bool:
        """Return whether the file has its checksums, and its first and last image are those of the data set."""
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
    """Pixels uint8 [C, H, W]. NumPy flips bytes one by one, which would take most of a loader's time: the copy of the
    host's `image[:, :, ::-1]` is torch's. Other parts, and copies, are plain arrays."""

    def __getitem__(self, key: Any) -> Any:
        part = self.view(np.ndarray)[key]
        slices = type(key) is tuple and all(type(index) is slice for index in key)
        return part.view(_Pixels) if slices and key == FLIP and self.flags.c_contiguous else part

    def copy(self, order: Any = "C") -> np.ndarray:  # type: ignore[override]
        plain = self.view(np.ndarray)
        unflipped = plain[FLIP] if plain.ndim == 3 else plain
        if order != "C" or plain.flags.c_contiguous or not unflipped.flags.c_contiguous:
            return plain.copy(order)
        with warnings.catch_warnings():  # torch cannot keep others from writing to the file's memory, and says so
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(unflipped).flip(2).numpy()


def decode(dataset: Any, raw_idx: int) -> np.ndarray:
    """Return what the class of a data set reads, uint8 [C, H, W]."""
    return type(dataset)._load_raw_image(dataset, raw_idx)


def use(dataset: Any, mode: str | None, shown: int, tells: bool = True) -> None:
    """Let a data set of the host read its images from memory, if they fit and it pays. They are the same, bit for bit.

    mode   off: never; ram: if they fit into the free memory; auto: if they fit into a quarter of it, and the run shows
           each image TIMES times or the file is there; None, not given: auto
    shown  images that the run still shows
    tells  whether this process says what it does; one of several does

    A file that cannot be made or read is no error: images are then decoded as the host does it."""
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
        os.utime(images.file)  # see _remove_old
    dataset._load_raw_image = images


def _place(dataset: Any, rows: np.ndarray) -> Path:
    """Return the file for these images of a data set, as this class reads them."""
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
    """Write the file, in one of the processes that want it. Raises DataError, or one of datasets.BROKEN."""
    file, first = images.file, images.rows[0]
    with filelock.FileLock(file.with_suffix(".lock")):
        if images.are_right():  # another process has made it meanwhile
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
    of_thread = threading.local()  # a data set with an open zip of its own, as a worker has it

    def one(raw_idx: int) -> np.ndarray:
        if not hasattr(of_thread, "dataset"):
            of_thread.dataset = copy.copy(dataset)
        return decode(of_thread.dataset, raw_idx)

    with ThreadPoolExecutor(CORES) as pool:
        for start in range(0, rows.size, 8 * CORES):
            yield from pool.map(one, rows[start : start + 8 * CORES])


def _remove_old(folder: Path) -> None:
    """Remove files that no run has used for some time, and what a killed process has left."""
    for file in folder.iterdir():
        with suppress(OSError):  # another process does the same
            if file.stat().st_mtime < time.time() - DAYS * 86400:
                file.unlink()


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
