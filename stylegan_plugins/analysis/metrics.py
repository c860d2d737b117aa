"""FID, KID, precision and recall, Inception Score: torch-fidelity's functions on features of any network. And distinct,
distance, variety, by which copies of the training images do not win.

Installed plug-ins may add metrics (`register_metrics`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from stylegan_plugins import manager
from stylegan_plugins.vision.extractors import Outputs

# KID: 100 subsets of up to 1000 images, as in torch-fidelity and NVIDIA's code. Precision and recall: three neighbours;
# ROWS distances at a time bound the memory and do not change the result.
SUBSETS, SUBSET, NEIGHBOURS, ROWS = 100, 1000, 3, 5000
DISTANCES = 1 << 25  # held at once
BEST = "best_"  # before the name of a metric: its value for the best snapshot of a run


class Reference:
    """Features [M, F] of real images in random order, float32.

    training    features of the training images, [k, T, F]; k = 2 with their horizontal flips, if the run had them. None
                if no metric reads them"""

    def __init__(self, features: np.ndarray, training: np.ndarray | None = None) -> None:
        self.features = torch.from_numpy(features)
        self.training = None if training is None else torch.from_numpy(training)

    @functools.cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        return _statistics(self.features)

    @functools.cached_property
    def floor(self) -> float | None:
        """Return the FID of the first half to the second. A perfect generator of half as many images would get it. None
        for fewer than four images."""
        half = len(self.features) // 2
        if half < 2:
            return None
        return _fid(_statistics(self.features[:half]), _statistics(self.features[half : 2 * half]))


@dataclass(frozen=True)
class Metric:
    """A metric of generated images against real ones.

    compute     (Reference, [N, F] of generated images, on the CPU) -> figures, by the ends of their names. It must not
                use torch's or NumPy's global random numbers
    ends        ends of the names: `("_mean", "_std")` makes is_inception_mean and is_inception_std
    decides     end of the figure that ranks snapshots
    higher      True if higher is better, False if lower is; None: the metric does not rank snapshots
    real, generated     fewest images that it takes
    training    it also reads the training images, `Reference.training`; it is not computed in training
    held_out    the reference must not be the training images
    reads       `features`, or `logits` of a network that classifies images: then the reference is None"""

    compute: Callable[[Reference, torch.Tensor], dict[str, float]]
    ends: tuple[str, ...] = ("",)
    decides: str = ""
    higher: bool | None = False
    real: int = 2
    generated: int = 2
    reads: str = "features"
    training: bool = False
    held_out: bool = False


def _statistics(features: torch.Tensor) -> dict[str, np.ndarray]:
    from torch_fidelity import metric_fid

    return metric_fid.fid_features_to_statistics(features)


def _fid(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    from torch_fidelity import metric_fid

    return metric_fid.fid_statistics_to_metric(one, other, verbose=False)["frechet_inception_distance"]


def fid(reference: Reference, generated: torch.Tensor) -> dict[str, float]:
    return {"": _fid(_statistics(generated), reference.statistics)}


def kid(reference: Reference, generated: torch.Tensor) -> dict[str, float]:
    from torch_fidelity import metric_kid

    size = min(SUBSET, len(generated), len(reference.features))
    found = metric_kid.kid_features_to_metric(
        generated, reference.features, kid_subsets=SUBSETS, kid_subset_size=size, verbose=False
    )
    return {"": found["kernel_inception_distance_mean"], "_std": found["kernel_inception_distance_std"]}


def precision_recall(reference: Reference, generated: torch.Tensor) -> dict[str, float]:
    from torch_fidelity import metric_prc

    how = dict(prc_neighborhood=NEIGHBOURS, prc_batch_size=ROWS, save_cpu_ram=True, verbose=False)
    found = metric_prc.prc_features_to_metric(generated, reference.features, **how)
    return {f"_{key}": found[key] for key in ("precision", "recall", "f_score")}


def inception_score(reference: None, logits: torch.Tensor) -> dict[str, float]:
    from torch_fidelity import metric_isc

    found = metric_isc.isc_features_to_metric(logits)
    return {"_mean": found["inception_score_mean"], "_std": found["inception_score_std"]}


def nearest(images: torch.Tensor, training: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Euclidean distances [N] of features [N, F] to the nearest training image, and its index [N], in [0, T).
    training: [k, T, F]. In double precision, so that a copy has a distance of nearly 0."""
    known = training.flatten(0, 1).double()
    found = [torch.cdist(rows.double(), known).min(dim=1) for rows in images.split(max(DISTANCES // len(known), 1))]
    indices = torch.cat([of.indices for of in found])
    return torch.cat([of.values for of in found]), indices % training.shape[1]


def distinct(reference: Reference, generated: torch.Tensor) -> dict[str, float]:
    """Return the number of different training images that are nearest to some generated image."""
    assert reference.training is not None
    return {"": len(nearest(generated, reference.training)[1].unique())}


def distance(reference: Reference, generated: torch.Tensor) -> dict[str, float]:
    """Return the median distance of generated images to the nearest training image, divided by the median distance of
    held-out images."""
    assert reference.training is not None
    ours, theirs = (nearest(images, reference.training)[0].quantile(0.5) for images in (generated, reference.features))
    return {"": (ours / theirs).item()}


def variety(reference: Reference, generated: torch.Tensor) -> dict[str, float]:
    """Return the mean distance between two generated images, divided by the mean distance between two real images."""
    return {"": _mean_distance(generated) / _mean_distance(reference.features)}


def _mean_distance(images: torch.Tensor) -> float:
    """Return the mean Euclidean distance between two different rows of [N, F], in double precision."""
    others = images.double()
    total = sum(torch.cdist(rows, others).sum().item() for rows in others.split(max(DISTANCES // len(images), 1)))
    return total / (len(images) * (len(images) - 1))


METRICS = {
    "fid": Metric(fid, real=4),  # the fewest that have a floor
    "kid": Metric(kid, ("", "_std")),
    # Precision and recall look at the third neighbour.
    "pr": Metric(precision_recall, ("_precision", "_recall", "_f_score"), "_f_score", higher=True, real=4, generated=4),
    # Inception Score is the mean over ten parts.
    "is": Metric(inception_score, ("_mean", "_std"), "_mean", True, real=1, generated=10, reads="logits"),  # type: ignore[arg-type]
    "distinct": Metric(distinct, higher=True, real=1, generated=1, training=True),
    # Copies have a small distance, and noise has a large one: neither is best.
    "distance": Metric(distance, higher=None, real=1, generated=1, training=True, held_out=True),
    "variety": Metric(variety, higher=None),
}


def known() -> dict[str, Metric]:
    """Return all metrics by name: the metrics of METRICS, and metrics of installed plug-ins."""
    return {**METRICS, **manager.catalogue().offered("register_metrics", Metric), **METRICS}


def score(metric: Metric, label: str, reference: Reference | None, generated: Outputs) -> dict[str, float]:
    """Return a metric's figures by name, `label` plus an end, as in the host's metrics."""
    found = metric.compute(reference, torch.from_numpy(generated[metric.reads]))  # type: ignore[arg-type]
    return {label + end: found[end] for end in metric.ends}


def split_half(metric: Metric, reference: Reference) -> dict[str, float]:
    """Return the figures, by their ends, of one half of the real images against the other. A perfect generator would
    get them with as many images. Figures that are not finite are left out. Empty if there are too few images, or the
    metric reads training images."""
    half = len(reference.features) // 2
    if metric.training or half < max(metric.real, metric.generated):
        return {}
    found = metric.compute(Reference(reference.features[:half].numpy()), reference.features[half : 2 * half])
    return {end: value for end, value in found.items() if math.isfinite(value)}
