"""AugSelf-GAN: D predicts the parameters of the augmentation, with the sign of the source.

Hou, Cao, Yuan, Zhao, Ma, Pan, Wan, Wang, Shen, Cheng, "Augmentation-Aware Self-Supervision for Data-Efficient GAN
Training" (NeurIPS 2023, arXiv:2205.15677). A head predicts omega_hat from D's features of T(x; omega) and of x. D and
head learn omega for real images and -omega for generated ones. G is trained so that the predictions for its images are
those for real images, and not those for generated ones.

Symbols: N images; g a group of parameters ('color', 'translation', 'cutout') of width K_g; omega_g [N, K_g] in [0, 1],
drawn (training_ext.diffaugment); omega_hat_g [N, K_g], predicted; s = +1 real, -1 generated.
Terms are [N]: weighting and the mean over the batch are left to the caller.

Paper and code differ. The paper writes a squared norm; the authors' code takes the mean over the K_g components and
then the sum over groups, which weights a group by 1 / K_g. ``reduction='mean'`` (default) follows the code, ``'sum'``
the paper. Targets follow the code: omega is in [0, 1], so the two targets meet at omega = 0, not in the middle."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from training_ext.heads import EqualizedLinear

REDUCTIONS = {"mean": torch.mean, "sum": torch.sum}
Groups = Mapping[str, torch.Tensor]  # [N, K_g] by group


class OmegaHead(torch.nn.Module):
    """A head that predicts the parameters of T from T's change of D's features (Hou et al. 2023, arXiv:2205.15677).

        omega_hat_g = phi_g( phi(T(x; omega)) - phi(x) )

    phi(.) [N, F] are D's features after the epilogue's fully connected layer (F = 512 in most configurations), phi_g is
    one EqualizedLinear per predicted group g of parameters, without hidden layer and without activation.

    omega_dims: {group: K}, for example {'color': 3, 'translation': 2}; T may apply further groups."""

    def __init__(self, features: int, omega_dims: Mapping[str, int]) -> None:
        super().__init__()
        self.groups = torch.nn.ModuleDict(
            {group: EqualizedLinear(features, width) for group, width in omega_dims.items()}
        )

    def forward(self, features_augmented: torch.Tensor, features_clean: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {group: omega_hat [N, K]}. features_augmented, features_clean: [N, F], of the same N images."""
        difference = features_augmented - features_clean
        return {group: layer(difference.to(next(layer.parameters()).dtype)) for group, layer in self.groups.items()}


def augself_loss(pred: torch.Tensor, omega: torch.Tensor, sign: int, reduction: str = "mean") -> torch.Tensor:
    """Return the squared error of one group, [N]:  l_n = mean_k (omega_hat_nk - s omega_nk)^2,  s = sign.

    reduction='sum' takes the sum over k, ||omega_hat_n - s omega_n||^2. pred, omega: [N, K]."""
    return REDUCTIONS[reduction]((pred - sign * omega).square(), dim=1)


def augself_generator_loss(pred: torch.Tensor, omega: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Return G's term of one group:  l_n = mean_k (omega_hat_nk - omega_nk)^2 - mean_k (omega_hat_nk + omega_nk)^2.

    Expanding the squares gives l_n = -4/K sum_k omega_hat_nk omega_nk, which is linear in the prediction and has no
    lower bound. The code has the published form, the difference. pred, omega: [N, K]. Returns [N]."""
    return augself_loss(pred, omega, +1, reduction) - augself_loss(pred, omega, -1, reduction)


def discriminator_term(preds: Groups, omegas: Groups, sign: int, reduction: str = "mean") -> torch.Tensor:
    """Return L^SS of D for one source, per image, [N]:  sum_g augself_loss(omega_hat_g, omega_g, s).

    preds: {group: [N, K_g]}; omegas: {group: [N, K_g]}, which may hold groups that are applied but not predicted. The
    paper's L^SS of D is the mean over real images with s = +1 plus the mean over generated ones with s = -1."""
    # Sorted by name, so that the result does not depend on the order. With one group or more the sum is a tensor.
    return sum(augself_loss(preds[name], omegas[name], sign, reduction) for name in sorted(preds))  # type: ignore[return-value]


def generator_term(preds: Groups, omegas: Groups, reduction: str = "mean") -> torch.Tensor:
    """Return L^SS of G, per generated image, [N]:  sum_g augself_generator_loss(omega_hat_g, omega_g).

    The gradient has to reach G through both branches, T(G(z)) and the clean G(z)."""
    return sum(augself_generator_loss(preds[name], omegas[name], reduction) for name in sorted(preds))  # type: ignore[return-value]


def ahm_divergence(preds: Groups, omegas: Groups) -> torch.Tensor:
    """Estimate M_AH(p_data || p_G) from generated images:  -sum_n omega_hat_n . omega_n / sum_n |omega_n|^2.

    This inverts the theorem (docs/methods/augself.md): G's term is 4 |omega|^2 M_AH when the head is optimal. preds,
    omegas: {group: [N, K_g]} of generated images; omega_n is the vector of all predicted groups. Returns a scalar
    without gradient, for monitoring and not as a loss. 0: not distinguished; 1: the largest distance. The estimate
    depends on the head. A head that is not optimal can also give values outside [0, 1]. A head that has memorised the
    training images measures the distance to these images, not to their distribution."""
    pred = torch.cat([preds[group] for group in sorted(preds)], dim=1).detach()
    omega = torch.cat([omegas[group] for group in sorted(preds)], dim=1)
    return -(pred * omega).sum(dim=1).mean() / omega.square().sum(dim=1).mean()
