"""Data instance priors: features C(x) of a frozen network for all images of a data set, computed once and cached."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.files.checksums import digest_of
from stylegan_plugins.files.downloads import cache_directory
from stylegan_plugins.host import devices
from stylegan_plugins.vision import backbones, run_features
from stylegan_plugins.vision.extractors import batches_of, extract
from stylegan_plugins.vision.networks import from_uint8

FLAG = "--disp-features"
TEXTS = ("fingerprint", "backbone", "weights", "digest")
VERSION = 1


@dataclass(frozen=True)
class Priors:
    """Priors of a data set: features [M, d], by image in the host's order; flipped: features of the horizontal flips,
    or None.

    fingerprint   of the images, None for a user's array without information on its images
    backbone      name of the network, None for a user's array
    weights       the file of its weights, if one was given; `digest` identifies its content
    used          indices [m] of the images that the run trains on; None: all"""

    features: np.ndarray
    flipped: np.ndarray | None
    fingerprint: str | None
    backbone: str | None
    weights: str | None = None
    digest: str | None = None
    used: np.ndarray | None = None

    @property
    def of_the_run(self) -> np.ndarray:
        """Return the features of images that the run trains on."""
        return self.features if self.used is None else self.features[self.used]


def compute(data: str, name: str, *, weights: str | None = None, flips: bool = False, flag: str = FLAG) -> Path:
    """Return the file of priors of a data set and a backbone, from the cache if nothing has changed since.

    name: of a backbone, or PLUGIN:RUN; weights: a file of weights, or None for the published ones; flips: whether to
    include horizontal flips; flag: the option to name in errors. Raises DataError or OptionError as `backbones.load`
    does."""
    of_run = run_features.named(name, flag)
    if of_run is not None:
        if weights is not None:
            raise OptionError(f"{flag}={name} is a network of a run, which needs no weights of a backbone.")
        weights = str(of_run[1].file)
        name = f"{of_run[0]}:{Path(weights).resolve()}"
    if weights is not None:
        if not Path(weights).is_file():
            raise DataError(f"{flag}={name}: there is no file of weights {weights}.")
        weights = str(Path(weights).resolve())
    fingerprint = datasets.fingerprint(data)
    short, kind = (name, backbones.known()[name].timm) if of_run is None else (of_run[0], f"run of {of_run[0]}")
    identity = f"{VERSION}/{fingerprint}/{kind}/{digest_of(weights)}/{flips}"
    file = cache_directory() / "priors" / f"{short}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    if file.exists():
        return file
    device = devices.device()
    backbone = load_network(name, weights, flag).to(device)
    names, images = datasets.read_images(data)

    def network(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        x = from_uint8(batch, device)
        features = {"features": backbone(x).float()}
        return {**features, "flipped": backbone(x.flip(3)).float()} if flips else features

    found = extract(network, batches_of(images), len(names), f"Priors: {short}")
    save(file, Priors(found["features"], found.get("flipped"), fingerprint, name, weights, digest_of(weights)))
    return file


def load_network(name: str, weights: str | None, flag: str) -> torch.nn.Module:
    """Return the network of priors, a backbone or PLUGIN:RUN. Raises DataError or OptionError."""
    of_run = run_features.named(name, flag)
    return backbones.load(name, weights, flag) if of_run is None else of_run[1].load()


def save(file: Path, priors: Priors) -> None:
    """Write a file of priors, whole or not at all. Raises DataError if it cannot be written."""
    arrays = {key: getattr(priors, key) for key in ("features", "flipped", "used") if getattr(priors, key) is not None}
    texts = {key: np.array(getattr(priors, key) or "") for key in TEXTS}
    with whole(file) as out:
        np.savez(out, **{**arrays, **texts})  # type: ignore[arg-type]


def load(file: str | Path, flag: str = FLAG) -> Priors:
    """Read a file of priors, or a user's array [M, d] of features, .npy or .npz with `features`.

    Raises DataError if it is neither."""
    try:
        found = np.load(file, allow_pickle=False)
        arrays = {"features": found} if isinstance(found, np.ndarray) else dict(found)
    except (OSError, ValueError, EOFError, *datasets.BROKEN) as error:
        raise DataError(f"{flag}: {file} cannot be read as .npy or .npz ({' '.join(str(error).split())}).") from error
    features = arrays.get("features")
    if features is None or features.ndim != 2 or features.dtype.kind not in "fiu" or 0 in features.shape:
        has = ", ".join(f"{key} {list(value.shape)}" for key, value in arrays.items()) or "nothing"
        raise DataError(f"{flag}: {file} must hold features, an array of [images, width]; it has {has}.")
    if not np.isfinite(features).all():
        raise DataError(f"{flag}: {file} has values that are not finite numbers.")
    flipped = arrays.get("flipped")
    if flipped is not None and flipped.shape != features.shape:
        raise DataError(f"{flag}: {file} has features {list(features.shape)}, but flipped {list(flipped.shape)}.")
    texts = {key: str(arrays[key]) or None for key in TEXTS if key in arrays}
    flipped = None if flipped is None else flipped.astype(np.float32)
    return Priors(features.astype(np.float32), flipped, **{**dict.fromkeys(TEXTS), **texts}, used=arrays.get("used"))


def check(priors: Priors, file: str | Path, data: str, flag: str = FLAG) -> str:
    """Return the fingerprint of the images in `data`. Raises DataError if the priors belong to other images."""
    names, _ = datasets.read_images(data)
    if len(names) != len(priors.features):
        raise DataError(f"{flag}: {file} has priors of {len(priors.features)} images, {data} has {len(names)}.")
    found = datasets.fingerprint(data)
    if priors.fingerprint not in (None, found):
        raise DataError(
            f"{flag}: {file} was made from other images than those in {data}, or these have changed since. Put the "
            "data set back as it was, or, for a new run, make priors again: stylegan-plugins priors."
        )
    return found


def file_for(data: str, features: str, *, weights: str | None, flips: bool, flag: str = FLAG) -> Path:
    """Return the file of priors for --disp-features: a backbone's, computed if it is not cached, or a checked file of
    the user. A user's array is copied to the cache together with the fingerprint of the images.

    Raises DataError or OptionError."""
    if features in backbones.known() or (not Path(features).is_file() and run_features.named(features, flag)):
        return compute(data, features, weights=weights, flips=flips, flag=flag)
    if not Path(features).is_file():
        raise OptionError(
            f"{flag}={features}: neither a file nor a backbone. Known: {', '.join(backbones.known())}, and "
            "contrad:RUN, for example."
        )
    if weights is not None:
        raise OptionError(f"{flag}={features} is a file of features, which needs no weights of a backbone.")
    given = load(features, flag)
    fingerprint = check(given, features, data, flag)
    if given.fingerprint is not None:
        return Path(features)
    identity = f"{VERSION}/{fingerprint}/{digest_of(features)}"
    file = cache_directory() / "priors" / f"own-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    save(file, dataclasses.replace(given, fingerprint=fingerprint))
    return file
