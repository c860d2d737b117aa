"""FID, KID, precision and recall, Inception Score: torch-fidelity's functions, on features of whatever network."""

from __future__ import annotations

import functools

import numpy as np
import torch

# The fewest images of a metric: of the reference and of generated ones. FID's floor halves the reference, precision and
# recall look at the third neighbour, IS is the mean over ten parts.
FEWEST = {"fid": (4, 2), "kid": (2, 2), "pr": (4, 4), "is": (1, 10)}
# KID: 100 subsets of up to 1000 images, torch-fidelity's and NVIDIA's numbers. Precision and recall: three neighbours;
# distances of so many images at a time, which bounds memory and not the result.
SUBSETS, SUBSET, NEIGHBOURS, ROWS = 100, 1000, 3, 5000
# What says which snapshot is best: the end of a key of results, and whether more is better.
BEST = {"fid": ("", False), "kid": ("", False), "pr": ("_f_score", True), "is": ("_mean", True)}
Values = dict[str, np.ndarray]


class Reference:
    """Features [M, F] of real images in random order, float32."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = torch.from_numpy(features)

    @functools.cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        return _statistics(self.features)

    @functools.cached_property
    def floor(self) -> float:
        """FID of its first half to its second: what a perfect generator of half as many images would be given."""
        half = len(self.features) // 2
        return _fid(_statistics(self.features[:half]), _statistics(self.features[half : 2 * half]))


def score(metric: str, label: str, reference: Reference | None, generated: Values) -> dict[str, float]:
    """What torch-fidelity says of generated images; keys begin with `label`, as in the host's metrics.

    generated: features [N, F] or, for IS, which knows no reference, logits [N, K]."""
    from torch_fidelity import metric_isc, metric_kid, metric_prc

    if metric == "is":
        found = metric_isc.isc_features_to_metric(torch.from_numpy(generated["logits"]))
        return {f"{label}_mean": found["inception_score_mean"], f"{label}_std": found["inception_score_std"]}
    assert reference is not None
    features = torch.from_numpy(generated["features"])
    if metric == "fid":
        return {label: _fid(_statistics(features), reference.statistics)}
    if metric == "kid":
        size = min(SUBSET, len(features), len(reference.features))
        found = metric_kid.kid_features_to_metric(
            features, reference.features, kid_subsets=SUBSETS, kid_subset_size=size, verbose=False
        )
        mean, deviation = found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]
        return {label: mean, f"{label}_std": deviation}
    found = metric_prc.prc_features_to_metric(
        features, reference.features, prc_neighborhood=NEIGHBOURS, prc_batch_size=ROWS, save_cpu_ram=True, verbose=False
    )
    return {f"{label}_{key}": found[key] for key in ("precision", "recall", "f_score")}


def _statistics(features: torch.Tensor) -> dict[str, np.ndarray]:
    from torch_fidelity import metric_fid

    return metric_fid.fid_features_to_statistics(features)


def _fid(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    from torch_fidelity import metric_fid

    return metric_fid.fid_statistics_to_metric(one, other, verbose=False)["frechet_inception_distance"]
