"""Low-pass filtering with a binomial kernel before subsampling.

Zhang 2019, Making Convolutional Networks Shift-Invariant Again (arXiv:1904.11486)."""

from __future__ import annotations

import torch

TAPS = (1.0, 3.0, 3.0, 1.0)


class BlurPool(torch.nn.Module):
    """Filter each channel with k k^T / 64, k = (1, 3, 3, 1), at every `stride`-th pixel: [N, C, H, W] -> [N, C, h, w].

    padding      pixels on the left, right, top and bottom
    mode         of the padding, as of torch.nn.functional.pad
    persistent   whether the kernel is in the state dict, as `filt` [C, 1, 4, 4]"""

    filt: torch.Tensor

    def __init__(
        self,
        channels: int,
        padding: tuple[int, int, int, int],
        mode: str = "constant",
        stride: int = 1,
        persistent: bool = False,
    ) -> None:
        super().__init__()
        self.padding, self.mode, self.stride = padding, mode, stride
        taps = torch.tensor(TAPS)
        kernel = taps[:, None] * taps / taps.sum() ** 2
        self.register_buffer("filt", kernel.repeat(channels, 1, 1, 1), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.pad(x, self.padding, mode=self.mode)
        return torch.nn.functional.conv2d(x, self.filt, stride=self.stride, groups=len(self.filt))
