"""Linear evaluation of a frozen encoder: a linear classifier, trained by SGD on views of labelled images.

The protocol of Jeong and Shin (ICLR 2021, arXiv:2103.09742, authors' test_lineval.py), after Khosla et al. 2020
(arXiv:2004.11362): cross-entropy of W phi(T(x)) + b, T a random resized crop and a flip; accuracy on held-out images
without T."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from training_ext.contrad import apply_crop, sample_crop
from training_ext.diagnostics import full_batches

Encoder = Callable[[torch.Tensor], torch.Tensor]  # from images [n, C, H, W] in [-1, 1] to features [n, F]


@dataclass(frozen=True)
class Protocol:
    """Settings for training the classifier; the defaults are the authors'.

    epochs     over the labelled images
    rate       learning rate of SGD, without momentum and weight decay; divided by ten after each of DROPS
    batch      images per step
    crop_area  smallest share of an image's area that a view shows"""

    epochs: int = 100
    rate: float = 0.1
    batch: int = 256
    crop_area: float = 0.2

    def rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.rate * 0.1 ** sum(epoch >= round(share * self.epochs) for share in DROPS)


DROPS = (0.6, 0.75, 0.9)  # of the epochs: 60, 75 and 90 of 100


def in_groups(encoder: Encoder, size: int | None, most: int) -> Encoder:
    """Return an encoder for any number of images from an encoder of whole minibatch-stddev groups of `size` images. It
    takes at most `most` images at a time, and fills the last group up with the first images. size None: a group is the
    batch, which is not split."""

    def encode(images: torch.Tensor) -> torch.Tensor:
        if size is None:
            return encoder(images)
        at_a_time = max(most // size, 1) * size
        whole = min(at_a_time, -(-len(images) // size) * size)
        return torch.cat([encoder(images[index]) for index in full_batches(len(images), whole)])[: len(images)]

    return encode


def draw_views(images: torch.Tensor, crop_area: float) -> torch.Tensor:
    """Return a random resized crop of each image [n, C, H, W], flipped with probability 1/2."""
    height, width = images.shape[2:]
    return apply_crop(images, sample_crop(len(images), height, width, crop_area, None).to(images.device))


def fit(
    encoder: Encoder,
    images: Callable[[torch.Tensor], torch.Tensor],
    targets: torch.Tensor,
    protocol: Protocol,
    epochs: Callable[[range], Iterator[int]] = iter,
) -> torch.nn.Linear:
    """Return a linear classifier of features. torch's random numbers decide its start, the order of images and views.

    images   from indices [n] to images [n, C, H, W] in [-1, 1], on the encoder's device
    targets  classes [M], from 0
    epochs   from a range to an iterator over it, which may show progress"""
    classifier: torch.nn.Linear | None = None
    for epoch in epochs(range(protocol.epochs)):
        for index in torch.randperm(len(targets)).split(protocol.batch):
            with torch.no_grad():
                features = encoder(draw_views(images(index), protocol.crop_area)).float()
            if classifier is None:
                classifier = torch.nn.Linear(features.shape[1], int(targets.max()) + 1).to(features.device)
                optimizer = torch.optim.SGD(classifier.parameters(), lr=protocol.rate)
            optimizer.param_groups[0]["lr"] = protocol.rate_at(epoch)
            loss = torch.nn.functional.cross_entropy(classifier(features), targets[index].to(features.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert classifier is not None
    return classifier.requires_grad_(False)


@torch.no_grad()
def accuracy(
    classifier: torch.nn.Linear, encoder: Encoder, images: Callable[[torch.Tensor], torch.Tensor], targets: torch.Tensor
) -> float:
    """Return the share of images whose class has the largest logit; arguments as in `fit`."""
    parts = torch.arange(len(targets)).split(256)
    right = [classifier(encoder(images(index)).float()).argmax(dim=1).cpu() == targets[index] for index in parts]
    return torch.cat(right).double().mean().item()
