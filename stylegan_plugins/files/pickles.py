"""Read network pickles of the hosts without executing code from them.

A pickle is a program: loading a stranger's pickle executes the stranger's code, and the hosts' own format contains
source code that the host executes. Here a pickle may only call the names that `pickle_records.Reachable` lists. At the
end the records become tensors and arrays, each within its bytes. The result for a network is its tensors and recorded
arguments."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import foreign, kinds, portable, torch_files
from stylegan_plugins.files.pickle_records import (
    ADVICE,
    ArrayRecord,
    DTypeRecord,
    Noted,
    Reachable,
    Stranger,
    TensorRecord,
    Unknown,
    UntrustedPickle,
)
from stylegan_plugins.files.snapshots import Network, Snapshot
from stylegan_plugins.files.unpickling import Allowance, Clipped, Excess, Record


def read_pickle(path: str | Path) -> Snapshot:
    """Read a file of networks: a pickle of a host (torch, of either family, or of a fork with the same format), or a
    file of torch.save or safetensors with networks or their state dicts. Files of other programs are converted.

    Memory use is proportional to the file's size. Raises UntrustedPickle if the file refers to anything but tensors,
    plain containers and networks, or to more of them than networks have, and DataError if it is damaged or has no
    network."""
    name, head = str(path), b""
    try:
        with open(path, "rb", buffering=0) as raw:
            length = Path(path).stat().st_size
            file = Clipped(raw, length)
            head = file.peek(kinds.HEAD)[: kinds.HEAD]
            kinds.refuse_other_kinds(name, head)
            allowance = Allowance(4 * length + (16 << 20))
            if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < length:
                tensors, networks = portable.networks_in(file.read())
                return Snapshot(name, networks, {}) if networks else _snapshot(Reachable(name, allowance), tensors)
            return _snapshot(*_read(name, file, head, allowance))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from error
    except MemoryError as error:
        raise DataError(f"{name} needs more memory than there is; the file has {length >> 20} MiB.") from error
    except Excess as error:
        advice = "Use another file." if head.startswith((b"PK", torch_files.LEGACY_START)) else ADVICE
        raise UntrustedPickle(f"{name} asks for {error}, which a network does not need. {advice}") from error
    except _DAMAGE as error:
        kinds.refuse_text(name, head)
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{name} is truncated, damaged, or no network ({type(error).__name__}: {why}).") from error


# Errors for damaged bytes, beside our own: unpickling has no base class for them.
_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(RuntimeError, OverflowError, AssertionError, struct.error, zipfile.BadZipFile, zlib.error, SafetensorError),
)


def _read(name: str, file: Clipped, head: bytes, allowance: Allowance) -> tuple[Reachable, Any]:
    """Return the content of a file, as records, and the table of names that it was read with."""
    if head.startswith(b"PK\3\4"):
        return torch_files.read_zip(name, file, allowance)
    if head.startswith(torch_files.LEGACY_START):
        return torch_files.read_legacy(name, file, allowance)
    table = Reachable(name, allowance)
    return table, table.run(file)


class _Strange(Exception):
    """A value contains an object of an unknown class."""


def _snapshot(table: Reachable, data: Any) -> Snapshot:
    out = _Out(table.allowance)
    if isinstance(data, tuple) and len(data) == 3 and all(isinstance(n, Noted) and n.tensorflow for n in data):
        return Snapshot(table.name, {}, {}, tuple(out.states(network) for network in data))
    if isinstance(data, Noted | Stranger):  # a network alone
        of = data.class_name if isinstance(data, Noted) else data.name
        data = {"D" if "iscriminator" in of else "G_ema": data}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise DataError(f"{table.name} is not a network pickle: it holds {type(data).__name__}, not networks by name.")
    networks, plain, left = {}, {}, dict[str, str]()
    for key, value in data.items():
        try:
            if isinstance(value, Noted):
                networks[key] = out.network(value)
            else:
                plain[key] = out.plain(value)
        except _Strange as strange:
            left[key] = str(strange)
    notes = [f"{table.name}: {key} refers to {name}, which no host has; it is left out." for key, name in left.items()]
    if not networks:
        found = foreign.networks_of(table.name, plain)
        networks, notes = found.networks, [*notes, *found.notes]
    if not networks and left:
        key, name = left.popitem()
        raise UntrustedPickle(
            f"{table.name} has no network that is known here: {key} refers to {name}. In the program that wrote it, "
            "save state dicts: torch.save({'G_ema': G_ema.state_dict()}, FILE)."
        )
    return Snapshot(table.name, networks, plain, notes=tuple(notes))


@dataclass
class _Out:
    """A converter from records to plain data. An object with several references is made, and counted, several times."""

    allowance: Allowance

    def network(self, noted: Noted) -> Network:
        tensors = list(self.tensors(noted))
        args = self.plain(noted.state.get("_init_args", ()))
        if not isinstance(args, list | tuple):
            raise pickle.UnpicklingError("arguments of a network that are not a list")
        return Network(
            class_name=noted.class_name,
            init_args=tuple(args),
            init_kwargs=self.plain(self.part(noted, "_init_kwargs")),
            tensors={name: value for name, value, _ in tensors},
            parameters=frozenset(name for name, _, trained in tensors if trained),
            source=noted.source,
        )

    def part(self, noted: Noted, key: str) -> dict[str, Any]:
        """Return a dictionary in the state of a module, by names; an empty one if the state has none."""
        found = noted.state.get(key) or {}
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise pickle.UnpicklingError(f"{key} of a {noted.class_name} is not a dictionary of names")
        self.allowance.step(len(found))
        return found

    def tensors(self, noted: Noted, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor, bool]]:
        """Yield (name, tensor, whether it is a parameter) of a module and its submodules, with torch's names."""
        depth = self.allowance.enter(depth)
        temporary = noted.state.get("_non_persistent_buffers_set") or set()
        if not isinstance(temporary, set):
            raise pickle.UnpicklingError("names of buffers that are not a set")
        for kind in ("_parameters", "_buffers"):
            for name, value in self.part(noted, kind).items():
                self.known(value)
                if isinstance(value, TensorRecord) and name not in temporary:
                    self.allowance.take(len(prefix) + len(name))
                    yield prefix + name, self.plain(value), kind == "_parameters"
        for name, module in self.part(noted, "_modules").items():
            self.known(module)
            if isinstance(module, Noted):
                self.allowance.take(len(prefix) + len(name))
                yield from self.tensors(module, f"{prefix}{name}.", depth)

    def known(self, value: Any) -> None:
        """Raise _Strange for a record of an unknown class."""
        if isinstance(value, Stranger | Unknown):
            raise _Strange(value.name)

    def states(self, network: Noted, depth: int = 0) -> dict[str, Any]:
        """Return the state of a TensorFlow network, with the states of its components, as plain dictionaries."""
        depth = self.allowance.enter(depth)
        parts = {
            name: self.states(part, depth)
            for name, part in self.part(network, "components").items()
            if isinstance(part, Noted)
        }
        rest = {key: self.plain(value) for key, value in network.state.items() if key != "components"}
        return {**rest, "components": parts}

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Convert to Python's own containers, tensors and arrays; a recorded class becomes its name."""
        depth = self.allowance.enter(depth)
        self.known(value)
        if isinstance(value, torch.Tensor):  # of safetensors
            return value
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
