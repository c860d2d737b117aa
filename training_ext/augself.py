"""AugSelf-GAN: D predicts the parameters of the augmentation, with the sign of the source.

Hou, Cao, Yuan, Zhao, Ma, Pan, Wan, Wang, Shen, Cheng, "Augmentation-Aware Self-Supervision for Data-Efficient GAN
Training" (NeurIPS 2023, arXiv:2205.15677). From D's features of T(x; omega) and of x a head predicts omega_hat. D and
head learn omega for real images and -omega for generated ones; G is trained to have its images predicted as real ones
are, and not as generated ones are.

Symbols: N images; g a group of parameters ('color', 'translation', 'cutout') of width K_g; omega_g [N, K_g] in [0, 1],
drawn (training_ext.diffaugment); omega_hat_g [N, K_g], predicted; s = +1 real, -1 generated.
Terms are [N]: weighting and the mean over the batch are left to the caller.

Paper and code differ: the paper writes a squared norm, the authors' code takes the mean over the K_g components and
then the sum over groups, which weights a group by 1 / K_g. ``reduction='mean'`` (default) is their code, ``'sum'`` the
paper. The targets are those of their code: omega in [0, 1], so the two targets meet at omega = 0, not in the middle."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from training_ext.heads import EqualizedLinear

REDUCTIONS = {"mean": torch.mean, "sum": torch.sum}
Groups = Mapping[str, torch.Tensor]  # [N, K_g] by group


class OmegaHead(torch.nn.Module):
    """Predicts the parameters of T from what T changed in D's features: AugSelf (Hou et al. 2023, arXiv:2205.15677).

        omega_hat_g = phi_g( phi(T(x; omega)) - phi(x) )

    phi(.) [N, F] are D's features after the epilogue's fully connected layer (F = 512 in most configurations), phi_g is
    one EqualizedLinear per predicted group g of parameters, without hidden layer and without activation.

    omega_dims: {group: K}, for example {'color': 3, 'translation': 2}; it need not hold every group that T applies."""

    def __init__(self, features: int, omega_dims: Mapping[str, int]) -> None:
        super().__init__()
        self.groups = torch.nn.ModuleDict(
            {group: EqualizedLinear(features, width) for group, width in omega_dims.items()}
        )

    def forward(self, features_augmented: torch.Tensor, features_clean: torch.Tensor) -> dict[str, torch.Tensor]:
        """features_augmented, features_clean: [N, F], of the same N images. Returns {group: omega_hat [N, K]}."""
        difference = features_augmented - features_clean
        return {group: layer(difference.to(next(layer.parameters()).dtype)) for group, layer in self.groups.items()}


def augself_loss(pred: torch.Tensor, omega: torch.Tensor, sign: int, reduction: str = "mean") -> torch.Tensor:
    """Squared error of one group:  l_n = mean_k (omega_hat_nk - s omega_nk)^2,  s = sign.

    With reduction='sum' the sum over k, ||omega_hat_n - s omega_n||^2. pred, omega: [N, K]. Returns [N]."""
    return REDUCTIONS[reduction]((pred - sign * omega).square(), dim=1)


def augself_generator_loss(pred: torch.Tensor, omega: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """G's term of one group:  l_n = mean_k (omega_hat_nk - omega_nk)^2 - mean_k (omega_hat_nk + omega_nk)^2.

    Expanding the squares gives l_n = -4/K sum_k omega_hat_nk omega_nk: linear in the prediction, with no lower bound
    of its own. It is written as the difference because that is the published form. pred, omega: [N, K]. Returns [N]."""
    return augself_loss(pred, omega, +1, reduction) - augself_loss(pred, omega, -1, reduction)


def discriminator_term(preds: Groups, omegas: Groups, sign: int, reduction: str = "mean") -> torch.Tensor:
    """L^SS of D for one source, per image:  sum_g augself_loss(omega_hat_g, omega_g, s).

    preds: {group: [N, K_g]}; omegas: {group: [N, K_g]}, which may hold groups that are applied but not predicted.
    Returns [N]. The paper's L^SS of D is the mean over real images with s = +1 plus that over generated ones with -1.
    """
    # By name, so that order decides no number. There is one or more, so that the sum is no int.
    return sum(augself_loss(preds[name], omegas[name], sign, reduction) for name in sorted(preds))  # type: ignore[return-value]


def generator_term(preds: Groups, omegas: Groups, reduction: str = "mean") -> torch.Tensor:
    """L^SS of G, per generated image:  sum_g augself_generator_loss(omega_hat_g, omega_g). Returns [N].

    The gradient has to reach G through both branches, T(G(z)) and the clean G(z)."""
    return sum(augself_generator_loss(preds[name], omegas[name], reduction) for name in sorted(preds))  # type: ignore[return-value]


def ahm_divergence(preds: Groups, omegas: Groups) -> torch.Tensor:
    """Estimates M_AH(p_data || p_G) from generated images:  -sum_n omega_hat_n . omega_n / sum_n |omega_n|^2.

    The theorem read backwards (docs/methods/augself.md): G's term is 4 |omega|^2 M_AH when the head is optimal. preds,
    omegas: {group: [N, K_g]} of generated images; omega_n is the vector of all predicted groups. Returns a scalar,
    without gradient: a figure to watch, not a loss. 0: not distinguished; 1: as far apart as can be. It is only as good
    as the head: away from its optimum values outside [0, 1] come, too, and a head that has memorised the training
    images measures the distance to these, not to their distribution."""
    pred = torch.cat([preds[group] for group in sorted(preds)], dim=1).detach()
    omega = torch.cat([omegas[group] for group in sorted(preds)], dim=1)
    return -(pred * omega).sum(dim=1).mean() / omega.square().sum(dim=1).mean()
