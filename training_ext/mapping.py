"""Labels as the mapping network of a host's G has embedded them, before it normalises them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def embed(G: Any, labels: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Embed labels [N, c_dim] with G's mapping network, before it normalises them: [N, E]."""
    with torch.no_grad():
        return G.mapping.embed(torch.as_tensor(labels, dtype=torch.float32, device=next(G.parameters()).device))


def map_embedded(G: Any, z: torch.Tensor, embedded: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """Return w of G(z | y) for labels that are embedded already: [N, z_dim], [N, E] -> [N, num_ws, w_dim]. kwargs are
    those of the host's mapping network, truncation_psi for example."""
    device = next(G.parameters()).device
    embedded = torch.as_tensor(embedded, dtype=torch.float32, device=device)
    handle = G.mapping.embed.register_forward_hook(lambda module, inputs, output: embedded)
    try:
        return G.mapping(z, torch.zeros([len(z), G.c_dim], device=device), **kwargs)
    finally:
        handle.remove()
