"""InsGen: D tells every image from every other, by features that do not depend on the augmentation.

Yang, Shen, Xu, Zhou, "Data-Efficient Instance Generation from Instance Discrimination" (NeurIPS 2021,
arXiv:2106.04566), with momentum contrast (He et al. 2020, arXiv:1911.05722). phi(x) [N, F] is D's last feature map
before its epilogue, averaged over pixels; h a head, phi', h' moving averages of D and of the head; T_1, T_2 two draws
of all augmentations; |.| the length; u_1 .. u_K the keys of earlier images, a queue:

    C(a, b) = E_n -log e^(q_n . k_n / tau) / (e^(q_n . k_n / tau) + sum_j e^(q_n . u_j / tau)),
              q = h(phi(a)) / |h(phi(a))|,  k = h'(phi'(b)) / |h'(phi'(b))|
    L_D += real_weight C_r(T_1 x, T_2 x) + generated_weight C_g(T_1 G(z), T_2 G(z + delta)),  delta ~ N(0, noise^2)
    L_G += g_weight C_g(T_1 G(z), T_2 G(z))

Real and generated images have a head and a queue each. Gradients reach D and the heads, or G, through q alone. The
queue of real images takes k, the queue of generated images takes h'(phi(T_1 G(z))) / |.|."""

from __future__ import annotations

import torch

WIDTH = 128  # number of components of a key


class InstanceHead(torch.nn.Module):
    """A head h / |h| from features of D to unit vectors: linear (F, F), ReLU, linear (F, 128), with PyTorch's own
    initialisation, as in the authors' code."""

    def __init__(self, features: int, width: int = WIDTH) -> None:
        super().__init__()
        self.first = torch.nn.Linear(features, features)
        self.last = torch.nn.Linear(features, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return vectors [N, K] of length 1. features: [N, F, H, W], averaged over pixels here, or [N, F]."""
        features = features.mean(dim=[2, 3]) if features.ndim == 4 else features
        return torch.nn.functional.normalize(self.last(self.first(features.to(self.first.weight.dtype)).relu()), dim=1)


def instance_logits(query: torch.Tensor, key: torch.Tensor, queue: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return cosines divided by tau, [N, 1 + K], of a query [N, W] with its key [N, W] first, then with a queue
    [K, W]. All are unit vectors."""
    return torch.cat([(query * key).sum(dim=1, keepdim=True), query @ queue.T], dim=1) / temperature


def instance_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return -log of the probability of the first logit, [N], from logits [N, 1 + K]."""
    return -logits.log_softmax(dim=1)[:, 0]


def first_queue(size: int, width: int = WIDTH) -> torch.Tensor:
    """Return random unit vectors, [size, width], as the first queue."""
    return torch.nn.functional.normalize(torch.randn([size, width]), dim=1)


def enqueued(queue: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return a queue [K, W], oldest first, in which keys [M, W] replace the oldest ones. If M > K, the last K count."""
    return torch.cat([queue, keys])[-len(queue) :]
