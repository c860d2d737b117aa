"""DISP: a GAN conditioned on features of its training images, called data instance priors.

Mangla, Kumari, Singh, Krishnamurthy, Balasubramanian, "Data InStance Prior (DISP) in Generative Adversarial Networks"
(WACV 2022, arXiv:2012.04256). Equations: docs/methods/disp.md.

Symbols: N images; y priors [N, d]; f = D_f(x) features of D's last hidden layer [N, F]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def unconditional(*, host_class: str, c_dim: int, **kwargs: Any) -> torch.nn.Module:
    """Make the host's discriminator without labels, even for a data set with labels: D_f, and D_l as its last layer.
    The host's training loop calls this as a class, through `class_name`."""
    from stylegan_plugins.host.modules import construct

    return construct(kwargs, class_name=host_class, c_dim=0)


def projection(features: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """Return D_emb(y) . D_f(x) / sqrt(F), [N, 1]. The factor is from the host's projection; the paper has none.

    features, embedded: [N, F]."""
    return (features * embedded).sum(dim=1, keepdim=True) / math.sqrt(features.shape[1])


@dataclass
class Standard:
    """Priors on a common scale: (C(x) - m) / s, with the mean m [d] over the data set, and one standard deviation s for
    all components. This is our choice: the paper does not say how it scales them."""

    mean: np.ndarray
    scale: float

    @classmethod
    def of(cls, features: np.ndarray) -> Standard:
        """Return the scale of features [M, d]. A data set with one image, or with equal images, has s = 1."""
        mean = features.mean(axis=0)
        scale = float(np.sqrt(np.square(features - mean).mean()))
        return cls(mean.astype(np.float32), scale if scale > 1e-12 else 1.0)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return ((features - self.mean) / self.scale).astype(np.float32)


def mixup(priors: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return c_i + lambda (c_j - c_i) for a random pair of stored priors [M, d], lambda uniform in [0, 1]: [d].

    The paper uses mixup of priors for few images; the distribution of lambda is our choice."""
    i, j = random.randint(len(priors), size=2)
    return priors[i] + np.float32(random.uniform()) * (priors[j] - priors[i])


@dataclass
class Mixture:
    """A Gaussian mixture with diagonal covariances: G(z | e), e ~ N(mu_k, Sigma_k), (mu, Sigma) ~ GMM(G_emb(priors)),
    equation (3). weights [K], means and deviations [K, E]."""

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def fit(cls, embedded: np.ndarray, components: int) -> Mixture:
        """Fit embedded [M, E], G's embeddings of priors. Number and covariance of the components are our choice."""
        from sklearn.mixture import GaussianMixture

        found = GaussianMixture(components, covariance_type="diag", reg_covar=1e-6, random_state=0).fit(embedded)
        return cls(found.weights_, found.means_.astype(np.float32), np.sqrt(found.covariances_).astype(np.float32))

    def draw(self, random: np.random.RandomState) -> np.ndarray:
        """Draw one e, [E]."""
        k = random.choice(len(self.weights), p=self.weights / self.weights.sum())
        noise = random.randn(self.means.shape[1]).astype(np.float32)
        return self.means[k] + self.deviations[k] * noise
