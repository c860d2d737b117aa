"""Files of `torch.save`, read without `torch.load`: zips, and the format of PyTorch before 1.6.

In both a pickle refers to the elements of its tensors by a key. In a zip the elements are members `data/KEY`. In the
older format they follow the pickle in the order of a list of keys."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import kinds
from stylegan_plugins.files.pickle_records import LEGACY, STORAGES, Reachable, StorageRecord, short
from stylegan_plugins.files.unpickling import Allowance, Clipped

LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of the magic number
MOST_DIRECTORY = 4 << 20  # bytes of a zip's directory; torch.save writes some 100 for each tensor
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Referring(Reachable):
    """The table of names that a pickle of torch.save may use, with types of storages, and storages by their keys."""

    advice = "In the program that wrote it, save state dicts: torch.save({'G_ema': G_ema.state_dict()}, FILE)."

    def __init__(self, name: str, allowance: Allowance, numbers: Callable[[str, int], bytes]) -> None:
        super().__init__(name, allowance)
        self.numbers = numbers
        self.storages: dict[str, StorageRecord] = {}

    def find(self, module: str, name: str) -> Any:
        return STORAGES[name] if module == "torch" and name in STORAGES else super().find(module, name)

    def refer(self, identifier: Any) -> StorageRecord:
        kind, dtype, key, _location, count, *view = short(identifier)
        if (
            kind != "storage"
            or not isinstance(dtype, torch.dtype)
            or not isinstance(key, str)
            or view not in ([], [None])
        ):
            raise pickle.UnpicklingError("a reference to something else than numbers")
        if not isinstance(key, str) or type(count) is not int or not 0 <= count < 1 << 48:
            raise pickle.UnpicklingError("a storage without a key, or of no length")
        if key not in self.storages:
            self.storages[key] = StorageRecord(dtype, memoryview(self.numbers(key, count * dtype.itemsize)), count)
        if (self.storages[key].dtype, self.storages[key].count) != (dtype, count):
            raise pickle.UnpicklingError("one storage of two types")
        return self.storages[key]


def read_zip(name: str, file: Clipped, allowance: Allowance) -> tuple[Reachable, Any]:
    """Return the content of a zip of torch.save, and its table of names. Raises DataError for another zip."""
    file.most = MOST_DIRECTORY
    archive = zipfile.ZipFile(file)
    file.most = None
    names = archive.namelist()
    root = min((member for member in names if f"/{member}".endswith("/data.pkl")), key=len, default=None)
    if root is None:
        kinds.refuse_zip(name, names)
    prefix = root[: -len("data.pkl")]
    if f"{prefix}constants.pkl" in names:
        raise DataError(
            f"{name} is a TorchScript program, which would be executed. Save its weights alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), OUT)."
        )

    def member(of: str, size: int | None = None) -> bytes:
        info = archive.getinfo(prefix + of)
        if size not in (None, info.file_size) or info.compress_type not in _METHODS:
            raise pickle.UnpicklingError(f"{of} of {info.file_size} bytes, which should have {size}")
        allowance.take(info.file_size)  # before memory is allocated
        with archive.open(info) as opened:
            content = opened.read(info.file_size)  # does not inflate more than this
        if len(content) != info.file_size:
            raise EOFError(f"{of} is cut off")
        return content

    if f"{prefix}byteorder" in names and member("byteorder") != b"little":
        raise pickle.UnpicklingError("numbers of a big-endian machine")
    table = _Referring(name, allowance, lambda key, size: member(f"data/{key}", size))
    return table, table.run(io.BytesIO(member("data.pkl")))


def read_legacy(name: str, file: Clipped, allowance: Allowance) -> tuple[Reachable, Any]:
    """Return the content of a file of torch.save before PyTorch 1.6, and its table of names."""

    def reserve(_key: str, size: int) -> bytes:
        allowance.take(size)
        return b""

    table = _Referring(name, allowance, reserve)
    if (table.run(file), table.run(file)) != LEGACY:
        raise pickle.UnpicklingError("another version of the format")
    table.run(file)  # properties of the machine that wrote it
    data, keys = table.run(file), table.run(file)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(table.storages):
        raise pickle.UnpicklingError("a list of storages that does not fit")
    for key in keys:
        storage = table.storages[key]
        count = int.from_bytes(file.read(8), "little")
        storage.data = memoryview(file.read(storage.count * storage.dtype.itemsize))
        if count != storage.count or len(storage.data) != count * storage.dtype.itemsize:
            raise EOFError("numbers are missing")
    return table, data
