"""Read network pickles of the hosts without running anything in them.

A pickle is a program: loading one that a stranger made runs what the stranger wrote, and the hosts' own format carries
source code that the host executes. Here a pickle may call nothing but what `records.Reachable` lists. In the end
tensors and arrays are made of the records, each within its bytes. Networks come out as tensors and recorded
arguments."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.pickle_records import (
    ADVICE,
    ArrayRecord,
    DTypeRecord,
    Noted,
    Reachable,
    TensorRecord,
    UntrustedPickle,
)
from stylegan_plugins.files.unpickling import Allowance, Clipped, Excess, Record


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

    It takes memory in proportion to the file. Raises UntrustedPickle if it refers to anything else than tensors, plain
    containers and networks, or to more of them than networks have, and DataError if it is damaged or no network
    pickle."""
    name = str(path)
    try:
        with open(path, "rb", buffering=0) as raw:
            length = Path(path).stat().st_size
            table = Reachable(name, Allowance(4 * length + (16 << 20)))
            return _snapshot(table, table.run(Clipped(raw, length)))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from error
    except MemoryError as error:
        raise DataError(f"{name} needs more memory than there is; the file has {length >> 20} MiB.") from error
    except Excess as error:
        raise UntrustedPickle(f"{name} asks for {error}, which a network does not need. {ADVICE}") from error
    except _DAMAGE as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{name} is truncated, damaged, or no pickle ({type(error).__name__}: {why}).") from error


# What reading damaged bytes raises, beside our own: unpickling has no base class for it.
_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(RuntimeError, OverflowError, AssertionError, struct.error),
)


def _snapshot(table: Reachable, data: Any) -> Snapshot:
    out = _Out(table.allowance)
    if isinstance(data, tuple) and len(data) == 3 and all(isinstance(n, Noted) and n.tensorflow for n in data):
        return Snapshot(table.name, {}, {}, tuple(out.states(network) for network in data))
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise DataError(f"{table.name} is no network pickle: it holds {type(data).__name__}, not networks by name.")
    networks = {key: out.network(value) for key, value in data.items() if isinstance(value, Noted)}
    return Snapshot(table.name, networks, {k: out.plain(value) for k, value in data.items() if k not in networks})


@dataclass
class _Out:
    """Makes plain data of records. What is referred to many times is made, and counted, as often."""

    allowance: Allowance

    def network(self, noted: Noted) -> Network:
        tensors = list(self.tensors(noted))
        args = self.plain(noted.state.get("_init_args", ()))
        if not isinstance(args, list | tuple):
            raise pickle.UnpicklingError("arguments of a network that are no list")
        return Network(
            class_name=noted.class_name,
            init_args=tuple(args),
            init_kwargs=self.plain(self.part(noted, "_init_kwargs")),
            tensors={name: value for name, value, _ in tensors},
            parameters=frozenset(name for name, _, trained in tensors if trained),
            source=noted.source,
        )

    def part(self, noted: Noted, key: str) -> dict[str, Any]:
        """Return a dictionary of names in the state of a module; an empty one for none."""
        found = noted.state.get(key) or {}
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise pickle.UnpicklingError(f"{key} of a {noted.class_name} is no dictionary of names")
        self.allowance.step(len(found))
        return found

    def tensors(self, noted: Noted, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor, bool]]:
        """Yield (name, tensor, whether it is a parameter) of a module and all in it, named as torch names them."""
        depth = self.allowance.enter(depth)
        temporary = noted.state.get("_non_persistent_buffers_set") or set()
        if not isinstance(temporary, set):
            raise pickle.UnpicklingError("names of buffers that are no set")
        for kind in ("_parameters", "_buffers"):
            for name, value in self.part(noted, kind).items():
                if isinstance(value, TensorRecord) and name not in temporary:
                    self.allowance.take(len(prefix) + len(name))
                    yield prefix + name, self.plain(value), kind == "_parameters"
        for name, module in self.part(noted, "_modules").items():
            if isinstance(module, Noted):
                self.allowance.take(len(prefix) + len(name))
                yield from self.tensors(module, f"{prefix}{name}.", depth)

    def states(self, network: Noted, depth: int = 0) -> dict[str, Any]:
        """Return the state of a TensorFlow network with those of its components, as plain dictionaries."""
        depth = self.allowance.enter(depth)
        parts = {
            name: self.states(part, depth)
            for name, part in self.part(network, "components").items()
            if isinstance(part, Noted)
        }
        rest = {key: self.plain(value) for key, value in network.state.items() if key != "components"}
        return {**rest, "components": parts}

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Convert to Python's own containers, tensors and arrays; a class that was noted becomes its name."""
        depth = self.allowance.enter(depth)
        if isinstance(value, dict):
            return {key: self.plain(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.plain(item, depth) for item in value)
        if isinstance(value, TensorRecord):
            self.allowance.take(value.bytes)
            return value.made()
        if isinstance(value, ArrayRecord):
            self.allowance.take(len(value.state[-1]))
            return value.made()
        if isinstance(value, DTypeRecord):
            return value.dtype
        if isinstance(value, Noted):
            return f"<{value.class_name}>"
        return f"<{type(value).__name__}>" if isinstance(value, Record) else value
