"""Spectral normalisation of the host's D: each layer has the largest singular value 1.

Miyato, Kataoka, Koyama, Yoshida: Spectral Normalization for Generative Adversarial Networks (ICLR 2018,
arXiv:1802.05957), equation (8) and algorithm 1. W [K, F] is the weight of a layer, a convolution's as K rows; u [K] and
v [F] approximate the singular vectors of its largest singular value sigma(W):

    W_SN = W / sigma(W),   sigma(W) ~ u^T W v
    v <- W^T u / ||W^T u||,   u <- W v / ||W v||,   once after each step of D

The hosts' layers have an equalised learning rate: they multiply their weight by a constant. So their weight is W_SN
divided by this constant. Gradients pass through sigma with u and v constant, as in the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import normalize

FIRST = 32  # iterations before the first step, to approximate the singular vectors of random weights


class SpectralNorm:
    """The replacement of W by W_SN in all layers of D, within the context `applied`. D itself keeps W, so parameters,
    optimiser, averages and snapshots are the same as without normalisation."""

    def __init__(self, D: torch.nn.Module) -> None:
        self.layers = {name: layer for name, layer in D.named_modules() if hasattr(layer, "weight_gain")}
        random = torch.Generator().manual_seed(0)  # separate, so that the run's random numbers stay the same
        self.u: dict[str, torch.Tensor] = {}
        self.v: dict[str, torch.Tensor] = {}
        for name, layer in self.layers.items():
            weight: Any = layer.weight
            self.u[name] = normalize(torch.randn([len(weight)], generator=random).to(weight.device), dim=0)
        self.update(FIRST)
        self._active = False

    @torch.no_grad()
    def update(self, iterations: int = 1) -> None:
        """Update u and v for the current W."""
        for name, layer in self.layers.items():
            W = layer.weight.flatten(1)
            for _ in range(iterations):
                self.v[name] = normalize(W.T @ self.u[name], dim=0)
                self.u[name] = normalize(W @ self.v[name], dim=0)

    def normalised(self, name: str) -> torch.Tensor:
        """Return W_SN divided by the layer's constant, in the shape of W."""
        layer: Any = self.layers[name]
        sigma = self.u[name] @ layer.weight.flatten(1) @ self.v[name]
        return layer.weight / (sigma * layer.weight_gain)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the layers have W_SN. At the end its gradients are added to the gradients of W.

        W_SN is a leaf within the context, so passes of D share no graph, and each can have a separate backward pass."""
        if self._active:
            yield
            return
        self._active = True
        places: list[tuple[dict[str, Any], Any, torch.Tensor, torch.Tensor]] = []
        try:
            for name, layer in self.layers.items():
                normalised = self.normalised(name)
                leaf = torch.nn.Parameter(normalised.detach(), requires_grad=normalised.requires_grad)
                # The weight of a frozen layer is a buffer.
                place: Any = layer._parameters if "weight" in layer._parameters else layer._buffers
                places.append((place, place["weight"], normalised, leaf))
                place["weight"] = leaf
            yield
        finally:
            for place, given, _, _ in places:
                place["weight"] = given
            self._active = False
        for _, _, normalised, own in places:
            if own.grad is not None:
                normalised.backward(own.grad)

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"u": dict(self.u), "v": dict(self.v)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        for mine, given in ((self.u, state["u"]), (self.v, state["v"])):
            for name, vector in mine.items():
                mine[name] = given[name].to(vector.device)


@torch.no_grad()
def fold(D: torch.nn.Module) -> torch.nn.Module:
    """Give D its normalised weights, for use without this module, and return D."""
    norm = SpectralNorm(D)
    norm.update(FIRST)
    for name, layer in norm.layers.items():
        layer.weight.copy_(norm.normalised(name))
    return D
