"""FID, KID, precision and recall, Inception Score: torch-fidelity's functions, on features of whatever network.

Installed plug-ins may have more (`register_metrics`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from stylegan_plugins import manager
from stylegan_plugins.vision.extractors import Outputs

# KID: 100 subsets of up to 1000 images, torch-fidelity's and NVIDIA's numbers. Precision and recall: three neighbours;
# distances of so many images at a time, which bounds memory and not the result.
SUBSETS, SUBSET, NEIGHBOURS, ROWS = 100, 1000, 3, 5000


class Reference:
    """Features [M, F] of real images in random order, float32."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = torch.from_numpy(features)

    @functools.cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        return _statistics(self.features)

    @functools.cached_property
    def floor(self) -> float | None:
        """Return the FID of its first half to its second, which a perfect generator of half as many images would get;
        None for less than four images."""
        half = len(self.features) // 2
        if half < 2:
            return None
        return _fid(_statistics(self.features[:half]), _statistics(self.features[half : 2 * half]))


@dataclass(frozen=True)
class Metric:
    """A metric of generated images against real ones.

    compute     (Reference, [N, F] of generated images, on the CPU) -> figures, by the ends of their names. Without
                random numbers of torch's or NumPy's global generators
    ends        these: `("_mean", "_std")` makes is_inception_mean and is_inception_std
    decides     the end of the one that says which snapshot is best
    higher      more of it is better
    real, generated     the fewest images that it takes
    reads       `features`; or `logits` of a network that names classes, and then there is no reference: it is None"""

    compute: Callable[[Reference, torch.Tensor], dict[str, float]]
    ends: tuple[str, ...] = ("",)
    decides: str = ""
    higher: bool = False
    real: int = 2
    generated: int = 2
    reads: str = "features"


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


METRICS = {
    "fid": Metric(fid, real=4),  # so that there is a floor
    "kid": Metric(kid, ("", "_std")),
    # They look at the third neighbour.
    "pr": Metric(precision_recall, ("_precision", "_recall", "_f_score"), "_f_score", higher=True, real=4, generated=4),
    # The mean over ten parts.
    "is": Metric(inception_score, ("_mean", "_std"), "_mean", True, real=1, generated=10, reads="logits"),  # type: ignore[arg-type]
}


def known() -> dict[str, Metric]:
    """Return all metrics by name: these, and those of installed plug-ins."""
    return {**METRICS, **manager.catalogue().offered("register_metrics", Metric), **METRICS}


def score(metric: Metric, label: str, reference: Reference | None, generated: Outputs) -> dict[str, float]:
    """Return a metric's figures by name: `label`, with an end, as in the host's metrics."""
    found = metric.compute(reference, torch.from_numpy(generated[metric.reads]))  # type: ignore[arg-type]
    return {label + end: found[end] for end in metric.ends}


def split_half(metric: Metric, reference: Reference) -> float | None:
    """Return the figure that decides, of one half of the real images against the other: what a perfect generator would
    get with so many. None if there are too few images, or it is not finite."""
    half = len(reference.features) // 2
    if half < max(metric.real, metric.generated):
        return None
    value = metric.compute(Reference(reference.features[:half].numpy()), reference.features[half : 2 * half])
    return value[metric.decides] if math.isfinite(value[metric.decides]) else None
