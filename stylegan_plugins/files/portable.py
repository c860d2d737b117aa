"""Networks as safetensors, with their architecture in the metadata and without code. `stylegan-plugins export` writes
G_ema into a folder, and G_ema and D with --out=FILE.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from stylegan_plugins.errors import DataError
from stylegan_plugins.files import json_lines
from stylegan_plugins.files.snapshots import Network

KEY = "stylegan_plugins"  # of our entry in the metadata of safetensors and ONNX files
FILE = "G_ema.safetensors"
BESIDE = "D"  # the network that may be beside G_ema; its tensors are D/NAME


@dataclass(frozen=True)
class Description:
    """The metadata of a shared generator.

    family   family of the host that trained it
    classes  names of its classes in the order of their numbers; empty if they have none"""

    family: str
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Description:
        """Return a description from metadata, which may be a stranger's."""
        names = found.get("classes")
        return cls(str(found.get("family", "")), tuple(map(str, names)) if isinstance(names, list) else ())


def dump(network: Network, about: Description, D: Network | None = None) -> bytes:
    """Return a generator and its description as a file of safetensors. D: a discriminator beside it."""
    described = {"family": about.family, "classes": list(about.classes), **_description(network)}
    tensors = _copied(network, "")
    if D is not None:
        described[BESIDE] = _description(D)
        tensors |= _copied(D, f"{BESIDE}/")
    return save(tensors, {"format": "pt", KEY: json.dumps(described, default=_plain)})


def _description(network: Network) -> dict[str, Any]:
    return {
        **{"class_name": network.class_name, "init_args": list(network.init_args), "init_kwargs": network.init_kwargs},
        "buffers": sorted(network.tensors.keys() - network.parameters),
    }


def _copied(network: Network, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value.detach().cpu().contiguous().clone() for name, value in network.tensors.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise DataError(f"The generator was made with an argument that JSON cannot hold ({type(value).__name__}).")


def networks_in(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Network]]:
    """Return the tensors of a file of safetensors, and the networks that it describes: G_ema, or G_ema and D.

    Raises SafetensorError or ValueError for a damaged file."""
    tensors = load(content)  # it checks the header against the length of the data
    described = _described(content)
    if described is None:
        return tensors, {}
    networks = {"G_ema": described}
    if (beside := described.get(BESIDE)) is not None:
        networks[BESIDE] = beside
    found = {}
    for key, one in networks.items():
        mine = {name: value for name, value in tensors.items() if name.startswith(f"{BESIDE}/") == (key == BESIDE)}
        found[key] = _network(one, {name.removeprefix(f"{BESIDE}/"): value for name, value in mine.items()})
    return tensors, found


def _network(described: Any, tensors: dict[str, torch.Tensor]) -> Network:
    """Return a network from its description. Raises ValueError for an invalid description."""
    of = described.get if isinstance(described, dict) else lambda key: None
    name, kwargs, args, buffers = (of(key) for key in ("class_name", "init_kwargs", "init_args", "buffers"))
    if not (
        isinstance(name, str) and isinstance(kwargs, dict) and isinstance(args, list) and isinstance(buffers, list)
    ):
        raise ValueError(f"its metadata {KEY} is not what `stylegan-plugins export` writes")
    return Network(name, tuple(args), kwargs, tensors, frozenset(tensors.keys() - set(map(str, buffers))))


def description_of(file: Path) -> Description | None:
    """Return the description in a file of safetensors; None without such a file, or without a description."""
    try:
        with open(file, "rb") as opened:
            length = opened.read(8)
            header = opened.read(min(int.from_bytes(length, "little"), json_lines.MOST_LETTERS))
        found = _described(length + header)
    except (OSError, ValueError):
        return None
    return None if found is None else Description.of(found)


def _described(content: bytes) -> dict[str, Any] | None:
    length = int.from_bytes(content[:8], "little")
    metadata = json_lines.parse(content[8 : 8 + length].decode()).get("__metadata__")
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    return json_lines.parse(text) if isinstance(text, str) else None
