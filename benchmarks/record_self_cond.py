"""Record results of the authors' clusterer as tests/golden/self_cond.npz.

    python benchmarks/record_self_cond.py --repo DIR --out tests/golden

The directory is a checkout of stevliu/self-conditioned-gan at the commit below. As in record_golden.py, their code runs
where it lies and only numbers are written: clusters of features, then of other features of the same images. Their
discriminator is one that gives these features. The function for matching that scikit-learn no longer has is SciPy's
here."""

import argparse
import pathlib
import sys
import types

import numpy as np
import scipy.optimize
import torch
from record_golden import check_checkout, patched, save

COMMIT = "a12fc3a998767f4fa9976f6af2a567e244c60af0"
FILES = tuple(f"clusterers/{name}.py" for name in ("base_clusterer", "kmeans", "selfcondgan"))
M, F, K, SEED = 90, 6, 5, 3


class Features(torch.nn.Module):
    """A stand-in for D that returns a linear function of its input."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x, get_features):
        return x @ self.weight


def main():
    parser = argparse.ArgumentParser(description="Record tests/golden/self_cond.npz.")
    parser.add_argument("--repo", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    check_checkout(args.repo, COMMIT, FILES)
    sys.path.insert(0, str(args.repo))
    gone = types.ModuleType("sklearn.utils.linear_assignment_")
    gone.linear_assignment = lambda cost: np.transpose(scipy.optimize.linear_sum_assignment(cost))
    sys.modules[gone.__name__] = gone
    from clusterers.selfcondgan import Clusterer

    torch.manual_seed(0)
    images = torch.randn([M, F]) + 2 * torch.randn([K, F])[torch.arange(M) % K]
    weights = [torch.randn([F, F]) for _ in range(3)]
    record = {"commit": COMMIT, "seed": SEED, "k": K}
    with patched(torch.Tensor, "cuda", lambda original: lambda tensor: tensor):
        clusterer = Clusterer(discriminator=Features(weights[0]), k_value=K, x_cluster=images)
        np.random.seed(SEED)
        for call, weight in enumerate(weights):
            D, key = Features(weight), f"{call}/"
            features = D(images, True).detach()
            if call:
                record[f"{key}means"] = clusterer.get_initialization(features.numpy(), clusterer.x_labels)
            clusterer.recluster(D)
            record |= {f"{key}features": features, f"{key}clusters": clusterer.x_labels}
            others = D.weight.detach()
            record |= {f"{key}others": others @ others, f"{key}of_others": clusterer.get_labels(others, None)}
    save(args.out / "self_cond.npz", record)


if __name__ == "__main__":
    main()
