"""Images by Langevin dynamics in latent space, and the linear classifier that chooses their class."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from stylegan_plugins.analysis import probe, sample
from stylegan_plugins.errors import DataError
from stylegan_plugins.files import datasets
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.files.checksums import digest_of
from stylegan_plugins.host import find
from training_ext.ddls import Langevin
from training_ext.linear_evaluation import Encoder, Protocol

Logits = Callable[[torch.Tensor], torch.Tensor]  # from features [N, F] to [N]
RANGE = 2.0  # of pixel values


def classifier_of(
    pickle: Path, D: Any, data: str | None, protocol: Protocol, max_images: int, label: int
) -> torch.nn.Linear:
    """Return a linear classifier of D's features: the one kept beside the pickle, or one trained on labelled images.

    Raises DataError if the images do not have this class, or do not fit D."""
    path, dataset = find.open_dataset(data, pickle)
    if 0 < dataset.label_dim <= label:
        raise DataError(f"--class={label}: the images have {dataset.label_dim} classes, from 0.")
    about = (digest_of(pickle), datasets.fingerprint(path), datasets.labels_fingerprint(path), protocol, max_images)
    kept = pickle.parent / f"linear-{hashlib.sha256(repr(about).encode()).hexdigest()[:12]}.npz"
    device = next(D.parameters()).device
    if kept.exists():
        with np.load(kept, allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in ("weight", "bias")}
        classes, width = state["weight"].shape
        found = torch.nn.Linear(width, classes, device=device).requires_grad_(False)
        found.load_state_dict(state)
        return found
    found = probe.linear_classifier(D, probe.load_images(path, dataset, D, max_images), protocol, seed=0)
    try:
        with whole(kept) as out:
            np.savez(out, weight=found.weight.cpu().numpy(), bias=found.bias.cpu().numpy())
    except DataError as error:  # the run of somebody else: the classifier is trained again each time
        click.echo(f"The classifier is not kept: {error}", err=True)
    return found


def images(
    G: Any, encoder: Encoder, logits: Logits, seeds: Sequence[int], how: Langevin
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the image of each seed before the first step and after the last step, uint8 [H, W, C].

    Each seed draws its own random numbers. Images that are sampled together share D's minibatch-stddev groups."""
    device = next(G.parameters()).device
    for start in range(0, len(seeds), probe.BATCH):
        together = seeds[start : start + probe.BATCH]
        random = [torch.Generator().manual_seed(seed) for seed in together]

        def draw(like: torch.Tensor, random: list[torch.Generator] = random) -> torch.Tensor:
            return torch.stack([torch.randn(like.shape[1:], generator=one) for one in random]).to(like)

        def shown(z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            ws = G.mapping(z, z.new_zeros([len(z), G.c_dim]))
            return G.synthesis(ws, noise_mode="const").float() + RANGE * how.eps * u

        z = torch.stack([torch.from_numpy(np.random.RandomState(seed).randn(G.z_dim)) for seed in together])
        z = z.float().to(device)
        u = draw(torch.zeros([len(z), G.img_channels, G.img_resolution, G.img_resolution], device=device))
        before = shown(z, torch.zeros_like(u))
        label = f"Images {start} to {start + len(z) - 1}, steps"
        with click.progressbar(length=how.steps, label=label, file=sys.stderr) as bar:

            def score(z: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
                bar.update(1)
                return logits(encoder(shown(z, u)))

            z, u = how.sample(score, z, u, draw)
        yield from zip(sample.pixels_of(before), sample.pixels_of(shown(z, u)), strict=True)
