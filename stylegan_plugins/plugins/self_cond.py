"""Self-Conditioned GAN: labels are clusters of D's features, found again now and then while D learns.

Liu, Wang, Bau, Zhu, Torralba: Diverse Image Generation via Self-Conditioned GANs (CVPR 2020, arXiv:2006.10728).
Equations: docs/methods/self_cond.md; their functions: training_ext.self_cond. G and D use labels in the host's way."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import one_hot

from stylegan_plugins import DataError, Labels, OptionError, Preset, Sampler, Session, hookimpl, option
from stylegan_plugins import read as read_layers
from stylegan_plugins.errors import PluginError, require
from stylegan_plugins.files import datasets, json_lines
from stylegan_plugins.vision.networks import from_uint8
from training_ext import self_cond
from training_ext.distributed import broadcast_value
from training_ext.labels import embed, use_labels
from training_ext.linear_evaluation import in_groups
from training_ext.passes import minibatch_std_group

PAPER = "Liu et al. 2020, Diverse Image Generation via Self-Conditioned GANs, arXiv:2006.10728"
conflicts = ("contrad", "disp", "projected")  # no labels; other labels; a D that is not trained
LOG = "self-cond.jsonl"  # in the run directory: the number of images in each cluster, after each clustering
BATCH = 64  # images that D sees at a time
_CONFIG = "authors' configs/{}/selfcondgan.yaml; they train with batch {}, lr 0.0001, {}"
PRESETS = {
    "cifar": Preset(
        {"clusters": 100, "kimg": 1600.0, "images": 25000}, _CONFIG.format("cifar", 64, "no R1, no average of G")
    ),
    "imagenet": Preset(
        {"clusters": 100, "kimg": 9600.0, "images": 50000},
        _CONFIG.format("imagenet", 128, "--gamma=0.2 (their weight of 0.1, without the half), and an average of G"),
    ),
    "places": Preset(
        {"clusters": 100, "kimg": 9600.0, "images": 50000},
        _CONFIG.format("places", 128, "--gamma=0.2 (their weight of 0.1, without the half), and an average of G"),
    ),
}


@dataclass(frozen=True)
class SelfCondOptions:
    clusters: int = option(100, "number of clusters, at most that of the images", minimum=2, maximum=10000)
    kimg: float = option(1600.0, "kimg between two clusterings; the first is before training", minimum=0.001)
    layer: str = option("b8", "layer of D whose output is clustered; b8: of the last convolutions before b4")
    images: int = option(25000, "images that k-means is fitted to; the others get the nearest cluster", minimum=2)
    starts: int = option(10, "starts of the first k-means, of which the best counts", minimum=1)


OPTIONS = SelfCondOptions


@hookimpl
def register_labels(args: Any, options: SelfCondOptions) -> Labels:
    """Return placeholders: all images in cluster 0. The method replaces them before the first batch."""
    data = args["training_set_kwargs"]
    count, _, _ = datasets.check_dataset(data["path"])
    if "run_dir" not in args:  # the first call
        if data.get("use_labels"):
            raise OptionError("--cond=1: with self-cond, labels are clusters of the images. Leave it out.")
        require("sklearn")
        fewest = min(data.get("max_size") or count, options.images)
        if options.clusters > fewest:
            raise OptionError(
                f"--self-cond-clusters={options.clusters}: there are {fewest} images to cluster. Give a smaller number."
            )
    placeholders = np.zeros([count, options.clusters], np.float32)
    placeholders[:, 0] = 1
    return Labels(placeholders)


@hookimpl
def configure(args: Any, options: SelfCondOptions) -> None:
    if options.kimg >= args["total_kimg"]:
        learned = "the pretrained D" if args.get("resume_pkl") else "a D that has learned nothing yet"
        print(
            f"self-cond: with --kimg={args['total_kimg']:g} images are clustered once, by {learned}; "
            "--self-cond-kimg is the time to the next."
        )


@hookimpl
def setup(session: Session, options: SelfCondOptions) -> Method:
    importlib.import_module("sklearn.cluster")  # the import draws Python's random numbers, which are separate here
    return Method(session, options)


class Method:
    """The clusters of a run.

    clusters  clusters of the images in the data set, [M]; None before the first clustering
    next      number of shown images after which they are clustered again"""

    def __init__(self, session: Session, options: SelfCondOptions) -> None:
        self.session, self.options = session, options
        self.log = session.log(LOG)
        self.clusters: torch.Tensor | None = None
        self.next = 0
        session.layer_shape(options.layer)  # raises an error if D lacks it

    @hookimpl
    def attached(self) -> None:
        """Cluster for the first time. A resumed run has a log of earlier clusterings, and gets its labels from its
        state."""
        session = self.session
        if session.dataset is None:
            return
        begun = torch.tensor([int(self.log.is_file() and self.log.stat().st_size > 0)])
        if not broadcast_value(begun, session.num_gpus, session.device).item():
            self.cluster(0)

    @hookimpl
    def batch_end(self, nimg: int) -> None:
        if self.session.dataset is None:
            raise PluginError(
                "--plugin=self-cond: this host's loop does not say which images it takes, and each has a cluster."
            )
        if nimg >= self.next:
            self.cluster(nimg)

    def cluster(self, nimg: int) -> None:
        """Cluster the images on the first process, and give the labels to all processes."""
        session, old = self.session, self.clusters
        found = torch.zeros([len(session.dataset)], dtype=torch.int64)
        if session.rank == 0:
            found = torch.from_numpy(self.found(nimg))
        found = broadcast_value(found, session.num_gpus, session.device)
        counts = torch.bincount(found, minlength=self.options.clusters)
        session.report("SelfCond/clusters", (counts > 0).sum())
        session.report("SelfCond/moved", (found != old).float() if old is not None else [])
        self.next = nimg + round(1000 * self.options.kimg)
        self.use(found)
        if session.rank == 0:
            with open(self.log, "a") as log:
                log.write(json.dumps({"nimg": nimg, "counts": counts.tolist()}) + "\n")

    def found(self, nimg: int) -> np.ndarray:
        """Return the new clusters of all images, [M]."""
        session, options, count = self.session, self.options, len(self.session.dataset)
        subset = np.random.RandomState(session.random_seed).permutation(count)[: options.images]  # always the same
        random = np.random.RandomState((session.random_seed + nimg) % 2**32)
        features = self.features(subset)
        old = None if self.clusters is None else self.clusters.numpy()[subset]
        clusters = self_cond.Clusters(features, options.clusters, old, options.starts, random)
        result = np.zeros([count], np.int64)
        result[subset] = clusters(features)
        others = np.setdiff1d(np.arange(count), subset)
        for start in range(0, len(others), BATCH):
            batch = others[start : start + BATCH]
            result[batch] = clusters(self.features(batch))
        return result

    @torch.no_grad()
    def features(self, index: np.ndarray) -> np.ndarray:
        """Return D's flattened features of images of the data set, [n, F], without augmentation and labels."""
        session, layer = self.session, self.options.layer
        dataset = copy.copy(session.dataset)  # with a separate file handle: forked workers share the loop's

        def encode(images: torch.Tensor) -> torch.Tensor:
            labels = torch.zeros([len(images), session.D.c_dim], device=session.device)
            return read_layers(session.D, [layer], images, labels)[1][layer].flatten(1)

        encoder, parts = in_groups(encode, minibatch_std_group(session.D), BATCH), []
        with session.loss.normalised_D():
            for start in range(0, len(index), BATCH):
                pixels = np.stack([dataset[int(i)][0] for i in index[start : start + BATCH]])
                parts.append(encoder(from_uint8(torch.from_numpy(pixels), session.device)).cpu())
        return torch.cat(parts).numpy()

    def use(self, clusters: torch.Tensor) -> None:
        """Give the images these clusters [M] as labels, in the loop and in data sets that this process makes later, as
        for metrics. Images outside of the run's subset repeat its clusters."""
        self.clusters = clusters
        labels = one_hot(clusters, self.options.clusters).float()
        dataset = self.session.dataset
        self.session.relabel(labels)
        raw, flipped = np.asarray(dataset._raw_idx), np.asarray(dataset._xflip).astype(bool)
        values = labels.numpy()
        of_all = values[np.arange(dataset._raw_shape[0]) % len(values)]
        of_all[raw[~flipped]] = values[~flipped]
        of_flips = of_all.copy()
        of_flips[raw[flipped]] = values[flipped]
        use_labels(type(dataset), dataset._path, Labels(of_all, of_flips))

    def state_dict(self) -> dict[str, Any]:
        return {"clusters": self.clusters, "next": self.next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.next = state["next"]
        if state["clusters"] is not None:
            self.use(state["clusters"].cpu())


@hookimpl
def register_sampler(run_dir: Path, options: SelfCondOptions) -> Sampler:
    """Return a sampler that draws clusters with their frequencies in the training images."""
    try:
        last = json_lines.parse((run_dir / LOG).read_text(encoding="utf-8").splitlines()[-1])
        counts = np.asarray(last["counts"], dtype=np.float64)
        if counts.shape != (options.clusters,) or not (counts >= 0).all() or not 0 < counts.sum() < np.inf:
            raise ValueError("its counts are not numbers of images")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{run_dir / LOG} cannot be read ({getattr(error, 'strerror', None) or error}): it has the clusters of the "
            "run. Give --class, from a pickle outside of its run directory."
        ) from error

    def draw(G: torch.nn.Module, random: np.random.RandomState) -> torch.Tensor:
        label = np.zeros([1, len(counts)], np.float32)
        label[0, random.choice(len(counts), p=counts / counts.sum())] = 1
        return embed(G, label)[0]

    def like(G: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
        raise DataError("--like: with self-cond labels are clusters of D's features. Give --class instead.")

    return Sampler("clusters", draw, like, classes=True, of=str(counts.tolist()))
