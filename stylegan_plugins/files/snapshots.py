"""The content of a file of networks, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stylegan_plugins.errors import DataError

MOST_NAMES = 8  # in a message


@dataclass(frozen=True)
class Network:
    """A network of a file, with all data for rebuilding it from the host's own code.

    class_name, init_args, init_kwargs   of the host's class
    tensors      parameters and buffers by name; `parameters`: names of the trained ones
    source       the source code that was saved with it, never executed"""

    class_name: str
    init_args: tuple
    init_kwargs: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    parameters: frozenset[str]
    source: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The content of a file: networks by key (G, D, G_ema, augment_pipe), and everything else as plain data.

    tensorflow   states of G, D, Gs, in a pickle of StyleGAN2's TensorFlow code
    notes        messages for the user about omitted, converted or assumed values"""

    path: str
    networks: dict[str, Network]
    data: dict[str, Any]
    tensorflow: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def network(self, key: str) -> Network:
        """Return a network by key. Raises DataError if the file does not have it."""
        if not self.networks:
            keys = ", ".join(key[:50] for key in list(self.data)[:MOST_NAMES])
            raise DataError(
                f"{self.path} has no network of a known kind; it has: {keys or 'nothing'}. "
                "docs/reference/foreign.md lists the networks of other programs that are read."
            )
        if key not in self.networks:
            raise DataError(f"{self.path} has no network {key}; it has: {', '.join(self.networks)}.")
        return self.networks[key]
