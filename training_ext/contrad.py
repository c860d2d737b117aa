"""ContraD: D's features are learned by contrast, of two views of each real image and of all generated ones.

Jeong, Shin, "Training GANs with Stronger Augmentations via Contrastive Discriminator" (ICLR 2021, arXiv:2103.09742).

Symbols: N images; v projections [N, K] of unit length; s(a, b) = <a, b> / tau. Terms are [N]: the mean over the batch
is left to the caller. With several processes the arguments hold the projections of all (training_ext.distributed).
"""

from __future__ import annotations

import torch


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """SimCLR's loss (Chen et al. 2020, arXiv:2002.05709, equation 1), per image, as the mean of its two views:

        l(a, b) = -log( exp s(a, b) / sum_{v != a} exp s(a, v) ),    l_n = ( l(v1_n, v2_n) + l(v2_n, v1_n) ) / 2

    the sum over all 2N views but a itself. first, second: [N, K] of unit length. Returns [N]. ContraD's L_con+ is its
    mean, for h_r. log(2N - 1) where all views are alike.
    """
    n = _check(temperature, first, second)
    views = torch.cat([first, second])
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * n, device=views.device).roll(n)
    return torch.nn.functional.cross_entropy(logits, partner, reduction="none").unflatten(0, (2, n)).mean(dim=0)


def supcon_generated(
    first: torch.Tensor, second: torch.Tensor, generated: torch.Tensor, temperature: float
) -> torch.Tensor:
    """ContraD's L_con- (section 3.1): the supervised contrastive loss (Khosla et al. 2020) of generated images alone,

        l_i = -1/(N-1) sum_{j != i} log( exp s(f_i, f_j) / sum_{v != f_i} exp s(f_i, v) )

    the inner sum over the N - 1 other generated images and the 2N real views. first, second, generated: [N, K] of unit
    length, projected by h_f; the real views have gradient, too, as in the authors' code. Returns [N]; N must be 2 or
    more. log(3N - 1) where all are alike.
    """
    n = _check(temperature, first, second, generated)
    if n < 2:
        raise ValueError("generated: must hold 2 images or more: the positives of one are the others.")
    logits = generated @ torch.cat([generated, first, second]).T / temperature
    itself = torch.eye(n, 3 * n, dtype=torch.bool, device=logits.device)
    logs = logits.masked_fill(itself, -torch.inf).log_softmax(dim=1)
    return -logs[:, :n].masked_fill(itself[:, :n], 0).sum(dim=1) / (n - 1)


def _check(temperature: float, *projections: torch.Tensor) -> int:
    if not temperature > 0:
        raise ValueError(f"temperature: must be > 0, got {temperature!r}.")
    shapes = [list(value.shape) for value in projections]
    if any(len(shape) != 2 or shape != shapes[0] for shape in shapes):
        raise ValueError(f"projections: must all be [N, K], got {' and '.join(map(str, shapes))}.")
    return shapes[0][0]


class TwoLayerHead(torch.nn.Sequential):
    """h(x) = W2 lrelu(W1 x + b1) + b2 with slope 0.1, x [N, F] -> [N, K]: ContraD's heads (Jeong and Shin 2021,
    arXiv:2103.09742). Plain linear layers, as in the authors' StyleGAN2 discriminator, with torch's initialisation.
    """

    def __init__(self, features: int, hidden: int, out: int) -> None:
        super().__init__(torch.nn.Linear(features, hidden), torch.nn.LeakyReLU(0.1), torch.nn.Linear(hidden, out))


def heads(features: int, hidden: int, projection: int) -> torch.nn.ModuleDict:
    """Return h_r and h_f, which project real and generated images, and h_d, which makes the logits."""
    widths = {"real": projection, "generated": projection, "logits": 1}
    return torch.nn.ModuleDict({name: TwoLayerHead(features, hidden, out) for name, out in widths.items()})
