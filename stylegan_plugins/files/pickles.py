"""Read network pickles of the hosts without running anything in them.

A pickle is a program: loading one that a stranger made runs what the stranger wrote, and the hosts' own format carries
source code that the host executes. Here a pickle may call nothing but what `_ALLOWED` lists: it makes tensors, arrays
and plain containers, and notes classes by name. Networks come out as tensors and recorded arguments."""

from __future__ import annotations

import collections
import io
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_plugins.errors import DataError

ADVICE = "If you trust its origin, --trust-pickle of train.py loads it as the host would."


class UntrustedPickle(DataError):
    """A pickle refers to something that tensors and recorded arguments do not need."""


@dataclass(frozen=True)
class Network:
    """A network of a pickle: what is needed to make it anew from the host's own code.

    class_name, init_args, init_kwargs   of the host's class
    tensors      parameters and buffers by name; `parameters` names those that are trained
    source       the source code that was saved with it, never executed"""

    class_name: str
    init_args: tuple
    init_kwargs: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    parameters: frozenset[str]
    source: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What a pickle holds: networks by key (G, D, G_ema, augment_pipe), and everything else as plain data."""

    path: str
    networks: dict[str, Network]
    data: dict[str, Any]
    tensorflow: tuple[dict[str, Any], ...] = ()  # states of G, D, Gs, in a pickle of StyleGAN2's TensorFlow code

    def network(self, key: str) -> Network:
        """Raises DataError if the pickle has no such network."""
        if key not in self.networks:
            has = ", ".join(self.networks) or "none"
            raise DataError(f"{self.path} has no network {key}; it has: {has}.")
        return self.networks[key]


def read_pickle(path: str | Path) -> Snapshot:
    """Read a network pickle of a host (torch, of either family, or of a fork with the same format).

    Raises UntrustedPickle if it refers to anything else than tensors, plain containers and networks, and DataError if
    it is damaged or no network pickle."""
    name = str(path)
    try:
        with open(path, "rb") as file:
            data = _Reader(file, name).load()
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from error
    except _DAMAGE as error:
        why = " ".join(str(error).split())
        raise DataError(f"{name} is truncated, damaged, or no pickle ({type(error).__name__}: {why}).") from error
    try:
        return _snapshot(name, data)
    except (*_DAMAGE, RecursionError) as error:
        raise DataError(f"{name} is damaged: {' '.join(str(error).split()) or type(error).__name__}.") from error


def _snapshot(name: str, data: Any) -> Snapshot:
    if isinstance(data, tuple) and len(data) == 3 and all(isinstance(n, _TensorFlowNetwork) for n in data):
        return Snapshot(name, {}, {}, tuple(_states(network) for network in data))
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise DataError(f"{name} is no network pickle: it holds {type(data).__name__}, not networks by name.")
    networks = {key: _network(value) for key, value in data.items() if isinstance(value, _Noted)}
    plain = {key: _plain(value) for key, value in data.items() if key not in networks}
    return Snapshot(name, networks, plain)


# What reading damaged bytes raises, beside our own: unpickling has no base class for it.
_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError),
    *(RuntimeError, MemoryError, OverflowError, AssertionError, struct.error),
)
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


@dataclass
class _Noted:
    """An object whose class is noted and not used: a module of torch or a persistent object of a host."""

    class_name: str
    source: str = ""
    state: dict[str, Any] = field(default_factory=dict)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"{self.class_name} has a state that is no dictionary")
        self.state = state


class _TensorFlowNetwork(_Noted):
    """A network of the TensorFlow hosts: its state, which has NumPy arrays, and its source code as text."""

    class_name = "Network"
    state: dict[str, Any] = {}  # noqa: RUF012  (replaced, never changed)

    def __init__(self) -> None:
        pass


def _states(network: _Noted) -> dict[str, Any]:
    """Return the state of a TensorFlow network with those of its components, as plain dictionaries."""
    components = {
        name: _states(part)
        for name, part in (network.state.get("components") or {}).items()
        if isinstance(part, _Noted)
    }
    rest = {key: _plain(value) for key, value in network.state.items() if key != "components"}
    return {**rest, "components": components}


class _Call:
    """A function that a pickle may call; made anew for each pickle, which could put attributes on a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, name: str) -> None:
        super().__init__(file, encoding="latin1")  # pickles of Python 2, by TensorFlow hosts
        self._name = name
        self._known: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        key = (module, name)
        if key not in self._known:
            self._known[key] = self._find(module, name)
        return self._known[key]

    def persistent_load(self, pid: Any) -> Any:
        raise UntrustedPickle(f"{self._name} refers to something outside of itself ({pid!r}). {ADVICE}")

    def _find(self, module: str, name: str) -> Any:
        module = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        found = _ALLOWED.get(f"{module}.{name}")
        if found is not None:
            if not isinstance(found, type):
                return _Call(found)
            # A class of ours is made anew, too: BUILD may put attributes on it.
            return type(found.__name__, (found,), {}) if found.__module__ == __name__ else found
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if re.fullmatch(r"torch\.nn\.modules\.\w+", module) and name.isidentifier():
            # Made with class.__new__(class), and given its state; the class itself is never looked up.
            return type(name, (_Noted,), {"class_name": name, "state": {}, "__init__": _no_arguments})
        raise UntrustedPickle(f"{self._name} refers to {module}.{name}, which a network does not need. {ADVICE}")


def _no_arguments(self: _Noted) -> None:
    """Modules are pickled by state alone."""


class _Dict(dict):
    """In place of the hosts' EasyDict."""


def _persistent(meta: Any) -> _Noted:
    """Note a persistent object of a host by name; its source is kept as text."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise pickle.UnpicklingError("a persistent object without a class name")
    noted = _Noted(meta["class_name"], str(meta.get("module_src", "")))
    noted.__setstate__(meta.get("state"))
    return noted


def _storage(data: Any) -> torch.storage.TypedStorage | torch.UntypedStorage:
    """Read a storage, which is a pickle within the pickle, with torch's restricted reader."""
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise
        raise UntrustedPickle(f"A tensor hides a reference to {refused.group(1)}. {ADVICE}") from error
    if not isinstance(loaded, torch.storage.TypedStorage | torch.UntypedStorage):
        raise pickle.UnpicklingError(f"a tensor's storage holds {type(loaded).__name__}")
    return loaded


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *_unused: Any) -> torch.Tensor:
    """Rebuild a tensor as torch does, and refuse one that reaches beyond its storage."""
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(number) is int and number >= 0 for number in numbers):
        raise pickle.UnpicklingError(f"a tensor of offset {offset}, size {size}, stride {stride}")
    memory = storage._untyped_storage  # its public name warns that it will be removed
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    flat = torch.empty([0], dtype=storage.dtype)
    if 0 not in size and (last + 1) * flat.element_size() > memory.nbytes():
        raise pickle.UnpicklingError(f"a tensor of {size} in a storage of {memory.nbytes()} bytes")
    return flat.set_(memory, offset, size, stride)  # type: ignore[call-overload]


def _parameter(data: torch.Tensor, *_unused: Any) -> torch.Tensor:
    return data


def _typed_tensor(_function: Any, _type: Any, args: tuple, _state: Any = None) -> torch.Tensor:
    """Rebuild a parameter that has further attributes, which are left out."""
    return args[0] if len(args) and isinstance(args[0], torch.Tensor) else _tensor(*args)


class _DType:
    """In place of numpy.dtype, whose own __setstate__ trusts what it is given."""

    def __init__(self, kind: Any, *_unused: Any) -> None:
        if not isinstance(kind, str) or not re.fullmatch(r"[?biufcSUa]\d*", kind):
            raise pickle.UnpicklingError(f"numbers of type {kind!r}")
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: Any) -> None:
        _version, order, subarray, names, fields, *_rest = state
        if order not in ("<", ">", "=", "|") or (subarray, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("an array of structures")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """In place of numpy.ndarray, likewise: a shape, a type and bytes."""

    def __init__(self, *_unused: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, data = state
        if not isinstance(kind, _DType) or not isinstance(data, bytes | bytearray | str):
            raise pickle.UnpicklingError("an array of Python objects")
        content = data.encode("latin1") if isinstance(data, str) else bytes(data)  # str: pickles of Python 2
        flat = np.frombuffer(content, kind.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C").copy()


def _number(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _DType) or not isinstance(data, bytes | str):
        raise pickle.UnpicklingError("a number of no known type")
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, kind.dtype)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _empty_bytes() -> bytes:
    """Return empty bytes, which are a call in protocol 2; others go through _codecs.encode."""
    return b""


# All that a pickle can reach, by the name that it gives; what is not a plain container or torch's own type is ours.
_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.bytearray": bytearray,
    "builtins.bytes": _empty_bytes,
    "builtins.complex": complex,
    "builtins.slice": slice,
    "dnnlib.tflib.network.Network": _TensorFlowNetwork,
    "dnnlib.util.EasyDict": _Dict,
    "dnnlib.EasyDict": _Dict,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._tensor._rebuild_from_type_v2": _typed_tensor,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Tensor": _parameter,
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _number,
    "_codecs.encode": _encode,
}


def _network(noted: _Noted) -> Network:
    tensors = list(_tensors(noted, ""))
    return Network(
        class_name=noted.class_name,
        init_args=tuple(_plain(noted.state.get("_init_args", ()))),
        init_kwargs=dict(_plain(noted.state.get("_init_kwargs", {}))),
        tensors={name: value for name, value, _ in tensors},
        parameters=frozenset(name for name, _, trained in tensors if trained),
        source=noted.source,
    )


def _tensors(noted: _Noted, prefix: str) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Yield (name, tensor, whether it is a parameter) of a module and all modules in it, named as torch names them."""
    temporary = noted.state.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, value in (noted.state.get(kind) or {}).items():
            if isinstance(value, torch.Tensor) and name not in temporary:
                yield prefix + name, value, kind == "_parameters"
    for name, module in (noted.state.get("_modules") or {}).items():
        if isinstance(module, _Noted):
            yield from _tensors(module, f"{prefix}{name}.")


def _plain(value: Any) -> Any:
    """Convert to Python's own containers; objects whose class was noted become their class's name."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value) if type(value) in (list, tuple) else value
    if isinstance(value, _Noted):
        return f"<{value.class_name}>"
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _DType):
        return value.dtype
    return value
