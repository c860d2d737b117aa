"""Self-Conditioned GAN: clusters of D's features as labels, which keep their meaning when images are clustered again.

Liu, Wang, Bau, Zhu, Torralba, "Diverse Image Generation via Self-Conditioned GANs" (CVPR 2020, arXiv:2006.10728).
Equations: docs/methods/self_cond.md.

Symbols: M images; f features [M, F]; k clusters; c the cluster of each image [M], in 0 ... k - 1."""

from __future__ import annotations

from typing import Any

import numpy as np


def initial_means(features: np.ndarray, clusters: np.ndarray, k: int, random: np.random.RandomState) -> np.ndarray:
    """Return the mean of the new features of each old cluster, [k, F]; a random image's features for an empty one."""
    means = np.empty([k, features.shape[1]], dtype=np.float64)
    for index in range(k):
        own = features[clusters == index]
        means[index] = own.mean(axis=0, dtype=np.float64) if len(own) else features[random.randint(len(features))]
    return means


def matching(new: np.ndarray, old: np.ndarray, k: int) -> np.ndarray:
    """Return the old cluster of each new one, [k]: the permutation with the most common images (Kuhn 1955)."""
    from scipy.optimize import linear_sum_assignment  # not at the top: it takes half a second

    together = np.zeros([k, k], dtype=np.int64)
    np.add.at(together, (new, old), 1)
    return linear_sum_assignment(together, maximize=True)[1]


class Clusters:
    """k-means of features. New clusters get the numbers of the old clusters with the most common images.

    The first clustering starts from k-means++, the best of `starts`. Later ones start from the means of old clusters.

    old  [M], or None for the first clustering"""

    def __init__(
        self, features: np.ndarray, k: int, old: np.ndarray | None, starts: int, random: np.random.RandomState
    ) -> None:
        from sklearn.cluster import KMeans

        how: dict[str, Any] = dict(init="k-means++", n_init=starts)
        if old is not None:
            how = dict(init=initial_means(features, old, k, random).astype(features.dtype), n_init=1)
        self.kmeans = KMeans(k, random_state=random, **how).fit(features)
        self.names = np.arange(k) if old is None else matching(self.kmeans.predict(features), old, k)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the cluster with the nearest mean for each image, [M]."""
        return self.names[self.kmeans.predict(features)]
