"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) as a distance of vectors, so that a search need not run on pairs."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from stylegan_plugins.errors import DataError, require
from stylegan_plugins.files import downloads
from stylegan_plugins.vision import backbones, extractors
from stylegan_plugins.vision.networks import from_uint8
from training_ext.resize import area

NAME = "lpips"
TRUNK = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"  # torchvision's AlexNet
SMALLEST, LARGEST = 32, 256  # sides of the network's input, in pixels; other images are resized


class Perceptual:
    """Features [n, F] of uint8 images [n, C, H, W], C 1 or 3. The squared Euclidean distance of two features is the
    LPIPS of the images, with AlexNet and the linear layers of the package lpips, version 0.1.

    LPIPS is a sum over layers l of the mean over pixels of sum_c w_lc (a_lc - b_lc)^2, with a and b of unit length over
    channels. So the features are a_lc sqrt(w_lc / pixels_l) of all layers: 640,000 for an image of 256x256.

    weights: a file of AlexNet's, None for torchvision's own. Raises DataError if they are not available or do not fit.
    """

    def __init__(self, weights: str | None, device: torch.device, flag: str = "--features") -> None:
        require("lpips", "metrics")
        import lpips

        if weights is not None and not Path(weights).is_file():
            raise DataError(f"{flag}={NAME}={weights}: there is no file of weights {weights}.")
        file = Path(weights) if weights else trunk_file(flag)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's warnings about names of arguments
            self.network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        trunk = self.network.net
        names = {f"features.{name.partition('.')[2]}": name for name in trunk.state_dict()}  # slice1.0.weight
        state = backbones.read_weights(file, f"{flag}={NAME}")
        expected = {name: trunk.state_dict()[mine] for name, mine in names.items()}
        wrong = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
        if wrong:
            raise DataError(f"{flag}={NAME}: {file} has the weights of another network: {wrong[0]} differs.")
        trunk.load_state_dict({mine: state[name] for name, mine in names.items()})
        self.network.eval().requires_grad_(False).to(device)
        self.device, self.normalised = device, lpips.normalize_tensor

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        x = from_uint8(images, self.device)
        side = min(max(x.shape[2], SMALLEST), LARGEST)
        if x.shape[2] > side:
            x = area(x, side)
        elif x.shape[2] < side:
            x = torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        levels = self.network.net(self.network.scaling_layer(x.expand(-1, 3, -1, -1)))
        weights = [layer.model[-1].weight for layer in self.network.lins]  # [1, C, 1, 1]
        parts = [
            (self.normalised(level) * (weight / level[0, 0].numel()).sqrt()).flatten(1)
            for level, weight in zip(levels, weights, strict=True)
        ]
        return torch.cat(parts, dim=1)


def trunk_file(flag: str) -> Path:
    """Return AlexNet's weights, from torch's hub folder or our cache, downloaded if they are in neither. Raises
    DataError."""
    folder = downloads.cache_directory() / "backbones"
    at_hand = Path(torch.hub.get_dir(), "checkpoints", Path(TRUNK).name)
    if at_hand.is_file():
        return at_hand
    return extractors.published_file(NAME, TRUNK, folder, flag, lambda: f", or give a file of them: {flag}={NAME}=FILE")
