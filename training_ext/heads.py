"""Modules that are trained with the discriminator but are no part of it.

They are float32 whatever D is, and their initial draws come from torch's default generator.
"""

import math

import torch


class EqualizedLinear(torch.nn.Module):
    """y = x W^T / sqrt(F) + b: a linear layer with equalised learning rate, x [N, F], y [N, K].

    W [K, F] ~ N(0, 1), b [K] = 0 at the start. The gain 1/sqrt(F) is applied when the layer runs, not when it is
    initialised, so that Adam's steps have the same relative size whatever F is (Karras et al. 2018, arXiv:1710.10196,
    section 4.1). The host's FullyConnectedLayer follows the same rule.
    """

    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]))
        self.bias = torch.nn.Parameter(torch.zeros([out_features]))
        self.gain = 1 / math.sqrt(in_features)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight * self.gain, self.bias)


class TwoLayerHead(torch.nn.Sequential):
    """h(x) = W2 lrelu(W1 x + b1) + b2 with slope 0.1, x [N, F] -> [N, K]: ContraD's heads (Jeong and Shin 2021,
    arXiv:2103.09742). Plain linear layers, as in the authors' StyleGAN2 discriminator, with torch's initialisation.
    """

    def __init__(self, features, hidden, out):
        super().__init__(torch.nn.Linear(features, hidden), torch.nn.LeakyReLU(0.1), torch.nn.Linear(hidden, out))


class OmegaHead(torch.nn.Module):
    """Predicts the parameters of T from what T changed in D's features: AugSelf (Hou et al. 2023, arXiv:2205.15677).

        omega_hat_g = phi_g( phi(T(x; omega)) - phi(x) )

    phi(.) [N, F] are D's features after the epilogue's fully connected layer (F = 512 in most configurations), phi_g is
    one EqualizedLinear per predicted group g of parameters, without hidden layer and without activation.

    omega_dims: {group: K}, for example {'color': 3, 'translation': 2}; it need not hold every group that T applies.
    """

    def __init__(self, features, omega_dims):
        super().__init__()
        if features < 1:
            raise ValueError(f"features: must be at least 1, got {features!r}.")
        for group, width in omega_dims.items():
            if width < 1:
                raise ValueError(f"omega_dims[{group!r}]: must be at least 1, got {width!r}.")
        self.groups = torch.nn.ModuleDict(
            {group: EqualizedLinear(features, width) for group, width in omega_dims.items()}
        )

    def forward(self, features_augmented, features_clean):
        """features_augmented, features_clean: [N, F], of the same N images. Returns {group: omega_hat [N, K]}."""
        if features_augmented.shape != features_clean.shape:
            raise ValueError(
                f"features: augmented {list(features_augmented.shape)} and clean "
                f"{list(features_clean.shape)} must have the same shape."
            )
        difference = features_augmented - features_clean
        return {group: layer(difference.to(layer.weight.dtype)) for group, layer in self.groups.items()}
