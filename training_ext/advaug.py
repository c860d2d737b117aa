"""AdvAug: the features of D and of G are also shown with a small perturbation against the network in training.

Chen, Cheng, Gan, Liu, Wang, "Data-Efficient GAN Training Beyond (Just) Augmentations: A Lottery Ticket Perspective"
(NeurIPS 2021, arXiv:2103.00397), the second of its two parts. f are the inputs of D's last linear layer, h the output
of G's first layer, D(f) and D(G(h)) the resulting logits, s the share of the perturbed loss, 1/2 in the paper:

    L_D = (1 - s) L_D(D(f_r), D(f_g)) + s L_D(D(f_r + delta_r), D(f_g + delta_g))
    L_G = (1 - s) L_G(D(G(h))) + s L_G(D(G(h + delta_h)))
    delta = gamma sign(gradient)

This is one step of projected gradient ascent without projection. delta is a constant: gradients reach f and h, but not
delta. With 'loss' the gradient is the gradient of the loss of the network in training, so that delta is the worst case.
With 'score', as in the authors' code, it is the gradient of D's logit, for real and generated images and for G."""

from __future__ import annotations

import math

import torch

ATTACKS = ("loss", "score")


def perturbation(
    features: torch.Tensor, losses: torch.Tensor, logits: torch.Tensor, gamma: float, attack: str
) -> torch.Tensor:
    """Return delta = gamma sign(d sum / d features), of the shape of the features, without gradient.

    losses, logits: [N, K], computed from the features, with a graph, which is kept
    attack: the value that delta increases, 'loss' or 'score' (logits)"""
    rising = losses if attack == "loss" else logits
    (gradient,) = torch.autograd.grad(rising.sum(), [features], retain_graph=True)
    return gamma * gradient.sign()


def last_layer(features: torch.Tensor, layer: torch.nn.Module, embedding: torch.Tensor | None) -> torch.Tensor:
    """Return D's logits [N, 1] from the inputs of its last linear layer [N, F], as in the hosts' D.

    embedding: [N, E] of the labels, None for a D without labels. With labels the layer gives [N, E], and the logit is
    the scalar product divided by sqrt(E)"""
    outputs = layer(features)
    if embedding is None:
        return outputs
    return (outputs * embedding).sum(dim=1, keepdim=True) * (1 / math.sqrt(embedding.shape[1]))


def excess(perturbed: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Return L(perturbed) - L(clean) of losses [N, K], [N]. L(clean) plus s times this is the weighted average."""
    return (perturbed - clean).flatten(1).mean(dim=1)
