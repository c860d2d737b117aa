"""The names that a network pickle may use: records of tensors, arrays and modules, and plain containers.

Nothing here is a tensor, an array or a class of torch or NumPy until all of a pickle is read. A pickle may change the
state of every object that it makes, and a changed tensor or array could reach foreign memory."""

from __future__ import annotations

import functools
import io
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import unpickling
from stylegan_plugins.files.unpickling import Allowance, Global, Record

ADVICE = "If you trust its origin, --trust-pickle of train.py loads it as the host would."
MOST_AXES = 16


class UntrustedPickle(DataError):
    """A pickle refers to names that tensors and recorded arguments do not need, or to more objects than they need."""


_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in dict(
        Double=torch.float64, Float=torch.float32, Half=torch.float16, BFloat16=torch.bfloat16, Long=torch.int64,
        Int=torch.int32, Short=torch.int16, Char=torch.int8, Byte=torch.uint8, Bool=torch.bool,
    ).items()
}  # fmt: skip
LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # how torch.save begins: a magic number and a version


# --- Records: the objects of a pickle while it is read. ---


class Noted(Record):
    """An object whose class is recorded but not used: a module of torch or a persistent object of a host."""

    def __init__(self, class_name: str, source: str = "", tensorflow: bool = False) -> None:
        self.class_name, self.source, self.tensorflow = class_name, source, tensorflow
        self.state: dict[str, Any] = {}

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"{self.class_name} has a state that is not a dictionary")
        self.state = state


class Stranger(Record):
    """A reference to an unknown name, or an object of an unknown class. It stays a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, state: Any) -> None:
        pass


class StorageRecord(Record):
    """The `count` elements of tensors, as a part of the file's own bytes."""

    def __init__(self, dtype: torch.dtype, data: memoryview, count: int) -> None:
        self.dtype, self.data, self.count = dtype, data, count

    @functools.cached_property
    def flat(self) -> torch.Tensor:
        if not len(self.data):
            return torch.empty([0], dtype=self.dtype)
        if self.dtype == torch.bool:  # a byte must be 0 or 1
            return torch.frombuffer(bytearray(self.data), dtype=torch.uint8) != 0
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype)


class TensorRecord(Record):
    """A tensor that lies within its storage and uses no element twice."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_unused: Any) -> None:
        if not isinstance(storage, StorageRecord):
            raise pickle.UnpicklingError("a tensor without a storage")
        if not isinstance(size, tuple) or not isinstance(stride, tuple) or not len(size) == len(stride) <= MOST_AXES:
            raise pickle.UnpicklingError("a tensor without a shape")
        if not all(type(number) is int and 0 <= number < 1 << 48 for number in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor of an impossible shape")
        there, count = storage.count, 1
        for length in size:
            count *= length
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if count and (last >= there or count > there):
            raise pickle.UnpicklingError(f"a tensor of {size} in a storage of {there} numbers")
        self.storage, self.place, self.bytes = storage, (size, stride, offset), count * storage.dtype.itemsize

    def made(self) -> torch.Tensor:
        size, stride, offset = self.place
        if not self.bytes:
            return torch.empty(size, dtype=self.storage.dtype)
        return self.storage.flat.as_strided(size, stride, offset)


def _parameter(data: Any = None, *_unused: Any) -> Any:
    return data


def _typed_tensor(_function: Any, _type: Any, args: Any, _state: Any = None) -> Any:
    """Return the tensor of a parameter with further attributes, which are dropped."""
    return args[0] if short(args) and isinstance(args[0], TensorRecord) else TensorRecord(*args)


def short(values: Any) -> tuple:
    """Return a tuple that costs nothing to unpack. Raises UnpicklingError for anything else."""
    if not isinstance(values, tuple) or len(values) > MOST_AXES:
        raise pickle.UnpicklingError(f"a state or arguments that are a {type(values).__name__}")
    return values


class DTypeRecord(Record):
    """A replacement for numpy.dtype, because NumPy does not check the state of a pickled one."""

    def __init__(self, kind: Any, *_unused: Any) -> None:
        if not isinstance(kind, str) or not re.fullmatch(r"[?biufcSUa]\d{0,3}", kind):
            raise pickle.UnpicklingError("numbers of no known type")
        self.dtype = np.dtype(kind)

    def build(self, state: Any) -> None:
        _version, order, subarray, names, fields, *_rest = short(state)
        if order not in ("<", ">", "=", "|") or (subarray, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("an array of structures")
        self.dtype = self.dtype.newbyteorder(order)


class ArrayRecord(Record):
    """A replacement for numpy.ndarray, for the same reason: a shape, a type and bytes."""

    def __init__(self, *_unused: Any) -> None:
        self.state: tuple = (1, (0,), DTypeRecord("f4"), False, b"")

    def build(self, state: Any) -> None:
        _version, shape, kind, _fortran, data = short(state)
        if not isinstance(kind, DTypeRecord) or not isinstance(data, bytes | bytearray | str):
            raise pickle.UnpicklingError("an array of Python objects")
        if not isinstance(shape, tuple) or len(shape) > MOST_AXES:
            raise pickle.UnpicklingError("an array without a shape")
        self.state = state

    def made(self) -> np.ndarray:
        _version, shape, kind, fortran, data = self.state
        content = data.encode("latin1") if isinstance(data, str) else data  # str: pickles of Python 2
        return np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C").copy()


# --- Functions and classes that a pickle may call. ---


class Unknown(Global):
    """An unknown name."""


def _numbers(values: tuple) -> tuple:
    """Return values that are numbers or None. Raises UnpicklingError for other values, which may have any size."""
    if not all(value is None or isinstance(value, int | float) for value in values):
        raise pickle.UnpicklingError("an argument that is not a number")
    return values


class Reachable:
    """The table of all names that a pickle may use. It contains only objects of this package.

    Objects of unknown classes become their names, so that networks beside them can be read. A call of an unknown
    function is refused."""

    advice = ADVICE

    def __init__(self, name: str, allowance: Allowance) -> None:
        self.name, self.allowance = name, allowance
        self.functions: dict[str, Callable] = {
            "argparse.Namespace": dict,  # without its attributes
            "collections.OrderedDict": self.dictionary,
            "builtins.set": lambda items=(): set(self.keys(items)),
            "builtins.frozenset": lambda items=(): frozenset(self.keys(items)),
            "builtins.bytearray": lambda *args: bytearray(self.bytes(*args)),
            "builtins.bytes": self.bytes,
            "builtins.complex": lambda *args: complex(*_numbers(args)),
            "builtins.slice": lambda *args: slice(*_numbers(args)),
            "dnnlib.tflib.network.Network": lambda: Noted("Network", tensorflow=True),
            "dnnlib.util.EasyDict": self.dictionary,
            "dnnlib.EasyDict": self.dictionary,
            "torch.Size": self.size,
            "torch.device": self.device,
            "torch_utils.persistence._reconstruct_persistent_obj": self.persistent,
            "torch.storage._load_from_bytes": self.storage,
            "torch._utils._rebuild_tensor_v2": TensorRecord,
            "torch._utils._rebuild_tensor": TensorRecord,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._tensor._rebuild_from_type_v2": _typed_tensor,
            "torch.nn.parameter.Parameter": _parameter,
            "torch.Tensor": _parameter,
            "numpy.ndarray": ArrayRecord,
            "numpy.dtype": DTypeRecord,
            "numpy.core.multiarray._reconstruct": ArrayRecord,
            "numpy.core.multiarray.scalar": self.number,
            "_codecs.encode": self.bytes,
        }

    def run(self, file: Any) -> Any:
        return unpickling.run(file, self.find, self.refer, self.allowance)

    def find(self, module: str, name: str) -> Any:
        module = module[:200].replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        name = name[:200]
        full = f"{module}.{name}"
        if full in self.functions:
            return Global(full, self.functions[full])
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if re.fullmatch(r"torch\.nn\.modules\.\w+", module) and name.isidentifier():
            return Global(full, lambda: Noted(name))  # the class is never looked up

        def refuse(*_args: Any) -> None:
            raise UntrustedPickle(f"{self.name} refers to {full}, which a network does not need. {self.advice}")

        return Unknown(full, refuse, lambda *_args: Stranger(full))

    def refer(self, _identifier: Any) -> Any:
        raise DataError(
            f"{self.name} is a part of an unpacked file of torch.save: its numbers are in other files. Pack its folder "
            "again, and give the zip: python -m zipfile -c NETWORK.pt FOLDER."
        )

    def keys(self, items: Any) -> Iterator[Any]:
        if not isinstance(items, list | tuple | set | frozenset):
            raise pickle.UnpicklingError(f"a set of a {type(items).__name__}")
        self.allowance.step(len(items))
        return map(unpickling.checked_key, items)

    def dictionary(self, items: Any = ()) -> dict:
        if not isinstance(items, list | tuple | dict):
            raise pickle.UnpicklingError(f"a dictionary of a {type(items).__name__}")
        self.allowance.step(len(items))
        pairs = items.items() if isinstance(items, dict) else items
        return {unpickling.checked_key(key): value for key, value in pairs}

    def bytes(self, text: Any = "", encoding: str = "latin1") -> bytes:
        """Return bytes, which protocol 2 writes as text and an encoding. A number, as in bytes(8), is refused."""
        if not isinstance(text, str | bytes | bytearray):
            raise pickle.UnpicklingError(f"bytes of a {type(text).__name__}")
        self.allowance.take(len(text))
        known = {"latin1": "latin1", "latin-1": "latin1"} if isinstance(encoding, str) else {}
        return text.encode(known.get(encoding, "ascii")) if isinstance(text, str) else bytes(text)

    def size(self, lengths: Any) -> tuple:
        if not isinstance(lengths, tuple):
            raise pickle.UnpicklingError("a size that is not a tuple")
        return lengths

    def device(self, kind: Any, index: Any = None) -> torch.device:
        if not isinstance(kind, str):
            raise pickle.UnpicklingError("a device without a name")
        return torch.device(kind) if index is None else torch.device(kind, *_numbers((index,)))

    def persistent(self, meta: Any) -> Noted:
        """Record a persistent object of a host by name; its source is kept as text."""
        name, source = (meta.get("class_name"), meta.get("module_src", "")) if isinstance(meta, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(source, str):
            raise pickle.UnpicklingError("a persistent object without a class name")
        noted = Noted(name, source)
        noted.build(meta.get("state"))
        return noted

    def number(self, kind: Any, data: Any) -> Any:
        if not isinstance(kind, DTypeRecord) or not isinstance(data, bytes | str) or kind.dtype.itemsize > len(data):
            raise pickle.UnpicklingError("a number of no known type")
        self.allowance.take(kind.dtype.itemsize)
        data = data[: kind.dtype.itemsize]
        return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, kind.dtype)[0]

    def storage(self, data: Any) -> StorageRecord:
        """Read torch's format of a tensor's elements: pickles within the pickle, a count, and the elements."""
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError("a tensor's storage is not bytes")
        if data[:2] == b"PK":
            raise UntrustedPickle(f"A tensor of {self.name} hides a file, which a network does not need. {ADVICE}")
        file = io.BytesIO(data)  # shares the bytes
        parts = functools.partial(unpickling.run, file, self.find_storage, lambda identifier: identifier)
        if (parts(self.allowance), parts(self.allowance)) != LEGACY:
            raise pickle.UnpicklingError("a tensor's storage has another format")
        parts(self.allowance)  # properties of the machine that wrote it
        kind, dtype, key, _location, count, *_view = parts(self.allowance)
        if kind != "storage" or not isinstance(dtype, torch.dtype) or parts(self.allowance) != [key]:
            raise pickle.UnpicklingError("a tensor's storage holds something else")
        start = file.tell() + 8  # the count again
        content = memoryview(data)[start:]
        if type(count) is not int or len(content) != count * dtype.itemsize:
            raise pickle.UnpicklingError(
                f"a tensor's storage of {len(content)} bytes, which should have another length"
            )
        return StorageRecord(dtype, content, count)

    def find_storage(self, module: str, name: str) -> torch.dtype:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise UntrustedPickle(f"A tensor hides a reference to {module[:200]}.{name[:200]}. {ADVICE}")
