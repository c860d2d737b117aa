"""GenCo: two further discriminators that differ from D, one by its weights, the other by its input.

Cui, Huang, Luo, Zhang, Zhan, Lu, "GenCo: Generative Co-training for Generative Adversarial Networks with Limited Data"
(AAAI 2022, arXiv:2110.01254). Each of the three has its own adversarial loss and R1, and G has the sum of all three.
WeCo's discriminator is pushed away from D in weight space; DaCo's sees images without some of their frequencies.

Symbols: N images [N, C, H, W]; B bands of frequencies, square rings from the lowest to the highest; m [N, B], 1 for a
band that stays. Terms of the loss are [N], the difference of weights [1]."""

from __future__ import annotations

import copy
from typing import Any

import torch


def another(D: torch.nn.Module) -> torch.nn.Module:
    """Return a discriminator with D's class and arguments and separate initial weights, all of them trained."""
    made: Any = D
    kwargs = copy.deepcopy(dict(made.init_kwargs))
    if kwargs.get("block_kwargs"):
        kwargs["block_kwargs"].pop("freeze_layers", None)  # D freezes pretrained layers, these are not pretrained
    device = next(D.parameters()).device
    return type(D)(*made.init_args, **kwargs).train().to(device)


def weight_similarity(D: torch.nn.Module, other: torch.nn.Module) -> torch.Tensor:
    """Return cos(W_D, W_2) + 1, [1], in [0, 2], with W all parameters of a network as one vector; no gradient to D.

    W does not contain frozen weights, which are buffers of D. It does not contain the mapping network of labels, whose
    learning rate is 1/100: its weights are 100 times as large, and would dominate W."""
    ours = {name: value for name, value in D.named_parameters() if not name.startswith("mapping.")}
    pairs = [(ours[name].detach(), theirs) for name, theirs in other.named_parameters() if name in ours]
    product = lambda left, right: torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum()
    fixed, moved = zip(*pairs, strict=True)
    cosine = product(fixed, moved) / (product(fixed, fixed) * product(moved, moved)).sqrt()
    return cosine.reshape(1) + 1


def sample_bands(n: int, bands: int, dropped: int, kept: int, device: torch.device | None = None) -> torch.Tensor:
    """Draw m [n, bands], bool: `kept` random bands for each image, but none of the `dropped` lowest."""
    order = torch.rand([n, bands - dropped], device=device).argsort(dim=1)
    return torch.cat([order.new_zeros([n, dropped], dtype=torch.bool), order < kept], dim=1)


def band_of(side: int, bands: int, device: torch.device | None = None) -> torch.Tensor:
    """Return the band of each frequency along one axis, in the order of torch.fft, [side]. The band of a row frequency
    and a column frequency is the larger of the two.

    Band b holds the places whose distance d from the nearer end is in [floor(H b / 2B), floor(H (b + 1) / 2B)). Some
    bands are empty if side / 2 is less than B. The middle of an odd side is in no band, which is `bands`."""
    place = torch.arange(side, device=device)
    distance = torch.minimum(place, side - 1 - place)
    band = (2 * bands * (distance + 1) + side - 1).div(side, rounding_mode="floor") - 1
    return band.clamp(max=bands)


def keep_bands(images: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Return Re F^-1( m_ring F x ), F the discrete Fourier transform over rows and columns; images [N, C, H, W],
    m [N, B].

    Places are counted from both ends, so frequency -1 is as near as 0, and a frequency and its conjugate may be in
    neighbouring rings. The real part equals a transform with the mean of their two masks, which needs only half of the
    frequencies."""
    height, width = images.shape[2:]
    rows, columns = (band_of(side, m.shape[1], images.device) for side in (height, width))
    ring = torch.maximum(rows[:, None], columns)
    stays = torch.cat([m, m.new_zeros([len(m), 1])], dim=1)[:, ring].to(images.dtype)  # [N, H, W]
    conjugate = stays.flip([1, 2]).roll([1, 1], [1, 2])
    mask = ((stays + conjugate) / 2)[:, None, :, : width // 2 + 1]
    return torch.fft.irfft2(torch.fft.rfft2(images) * mask, s=(height, width))
