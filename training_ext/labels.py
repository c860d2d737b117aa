"""Replacement labels for a data set of the host: vectors, one for each image.

The data set keeps the host's class. The loop, metrics and workers of the data loader get these labels when they make a
data set of these images, as if dataset.json had them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Labels:
    """Labels of a data set: values [M, d] float32, by image in the host's order (sorted names); flipped: labels of the
    horizontal flips, or None if flips have the labels of their images."""

    values: np.ndarray
    flipped: np.ndarray | None = None


_BY_PATH = "_stylegan_plugins_labels"  # on the host's class, since its loop makes data sets by class name


def use_labels(cls: Any, path: str, labels: Labels) -> None:
    """Give data sets of a host's class with this path these labels, if they have use_labels, in this process."""
    if _BY_PATH not in vars(cls):
        setattr(cls, _BY_PATH, {})
        load_raw_labels, get_label = cls._load_raw_labels, cls.get_label

        def of(dataset: Any) -> Labels | None:
            return getattr(cls, _BY_PATH).get(os.path.realpath(dataset._path))

        def _load_raw_labels(self: Any) -> np.ndarray | None:
            found = of(self)
            return load_raw_labels(self) if found is None else found.values

        def _get_label(self: Any, idx: int) -> np.ndarray:
            found = of(self)
            if found is None or found.flipped is None or not self._use_labels or not self._xflip[idx]:
                return get_label(self, idx)
            return found.flipped[self._raw_idx[idx]].copy()

        cls._load_raw_labels, cls.get_label = _load_raw_labels, _get_label
    getattr(cls, _BY_PATH)[os.path.realpath(path)] = labels


def begin_worker(then: Any, labels: Labels, worker: int) -> None:
    """Give labels to the data set in a worker process of a data loader, and call `then`. Used as worker_init_fn."""
    info = torch.utils.data.get_worker_info()
    assert info is not None  # we are in one
    use_labels(type(info.dataset), info.dataset._path, labels)  # type: ignore[attr-defined]
    then(worker)


def matched(hidden: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """Return the scalar product of features [N, F] and embedded labels [N, F], divided by sqrt(F), [N, 1]. Labels are
    normalised to unit second moment, as in the hosts' D."""
    embedded = embedded * (embedded.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    return (hidden * embedded).sum(dim=1, keepdim=True) / math.sqrt(hidden.shape[1])


# Labels as G's mapping network embeds them, before it normalises them. ---------------------------


def embed(G: Any, labels: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Embed labels [N, c_dim] with G's mapping network, before it normalises them: [N, E]."""
    with torch.no_grad():
        return G.mapping.embed(torch.as_tensor(labels, dtype=torch.float32, device=next(G.parameters()).device))


def map_embedded(G: Any, z: torch.Tensor, embedded: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """Return w of G(z | y) for embedded labels: [N, z_dim], [N, E] -> [N, num_ws, w_dim]. kwargs: arguments of the
    host's mapping network, such as truncation_psi."""
    device = next(G.parameters()).device
    embedded = torch.as_tensor(embedded, dtype=torch.float32, device=device)
    handle = G.mapping.embed.register_forward_hook(lambda module, inputs, output: embedded)
    try:
        return G.mapping(z, torch.zeros([len(z), G.c_dim], device=device), **kwargs)
    finally:
        handle.remove()
