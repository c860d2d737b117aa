"""AugSelf's equations, head, divergence and shared pass, each against a plain re-computation; and the authors' code."""

import math
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training_ext import augself
from training_ext.augself import OmegaHead
from training_ext.diffaugment import GROUPS
from training_ext.heads import EqualizedLinear

pytestmark = pytest.mark.unit

GOLDEN = pathlib.Path(__file__).parent / "golden" / "augself.npz"
PROPERTY = settings(max_examples=50, deadline=None)

group_subsets = st.sets(st.sampled_from(sorted(GROUPS)), min_size=1).map(sorted)
reductions = st.sampled_from(sorted(augself.REDUCTIONS))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind != "U"}


def random_groups(n, groups, seed):
    """Return (predictions of any sign, omega in [0, 1]), each {group: [n, K]}, double precision."""
    generator = torch.Generator().manual_seed(seed)
    preds = {group: torch.randn([n, GROUPS[group]], generator=generator, dtype=torch.float64) for group in groups}
    omegas = {group: torch.rand([n, GROUPS[group]], generator=generator, dtype=torch.float64) for group in GROUPS}
    return preds, omegas


# Loss terms. --------------------------------------------------------------------------------------


@PROPERTY
@given(st.integers(1, 5), group_subsets, st.sampled_from([1, -1]), reductions, st.integers(0, 2**31))
def test_terms_satisfy_their_equations(n, groups, sign, reduction, seed):
    preds, omegas = random_groups(n, groups, seed)

    def squares(group, image, s):
        errors = [(p - s * w) ** 2 for p, w in zip(preds[group][image].tolist(), omegas[group][image].tolist())]
        return math.fsum(errors) / (len(errors) if reduction == "mean" else 1)

    d_expected = [math.fsum(squares(group, image, sign) for group in groups) for image in range(n)]
    g_expected = [
        math.fsum(squares(group, image, 1) - squares(group, image, -1) for group in groups) for image in range(n)
    ]
    d_actual = augself.discriminator_term(preds, omegas, sign, reduction)
    g_actual = augself.generator_term(preds, omegas, reduction)
    torch.testing.assert_close(d_actual, torch.tensor(d_expected, dtype=torch.float64), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(g_actual, torch.tensor(g_expected, dtype=torch.float64), rtol=1e-13, atol=1e-13)


def test_loss_is_zero_when_the_prediction_is_exact():
    _, omegas = random_groups(4, GROUPS, 0)
    assert torch.equal(augself.augself_loss(omegas["color"], omegas["color"], +1), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(augself.augself_loss(-omegas["color"], omegas["color"], -1), torch.zeros(4, dtype=torch.float64))


def test_generator_loss_is_minus_four_times_the_inner_product_over_k():
    preds, omegas = random_groups(6, GROUPS, 0)
    for group, width in GROUPS.items():
        inner = (preds[group] * omegas[group]).sum(dim=1)
        torch.testing.assert_close(augself.augself_generator_loss(preds[group], omegas[group]), -4 / width * inner)
        torch.testing.assert_close(augself.augself_generator_loss(preds[group], omegas[group], "sum"), -4 * inner)


def test_the_papers_norm_is_k_times_the_codes_mean():
    preds, omegas = random_groups(6, GROUPS, 0)
    for group, width in GROUPS.items():
        mean, norm = (augself.augself_loss(preds[group], omegas[group], -1, reduction) for reduction in ("mean", "sum"))
        torch.testing.assert_close(norm, width * mean)


def test_terms_do_not_depend_on_the_order_of_the_groups():
    preds, omegas = random_groups(6, GROUPS, 0)
    backwards = dict(reversed(preds.items()))
    assert torch.equal(augself.discriminator_term(preds, omegas, 1), augself.discriminator_term(backwards, omegas, 1))
    assert torch.equal(augself.generator_term(preds, omegas), augself.generator_term(backwards, omegas))


def test_groups_that_are_applied_but_not_predicted_do_not_count():
    preds, omegas = random_groups(6, ["color"], 0)
    expected = augself.augself_loss(preds["color"], omegas["color"], 1)
    assert torch.equal(augself.discriminator_term(preds, omegas, 1), expected)


# The head. ----------------------------------------------------------------------------------------


def test_head_is_a_linear_map_of_the_difference_with_gain_one_over_root_f():
    torch.manual_seed(0)
    head = OmegaHead(20, GROUPS).double()
    augmented, clean = torch.randn([2, 5, 20], dtype=torch.float64)
    assert list(head(augmented, clean)) == list(GROUPS)
    for group, width in GROUPS.items():
        layer = head.groups[group]
        torch.nn.init.normal_(layer.bias)
        for n in range(5):
            for k in range(width):
                products = [
                    w * (a - c) for w, a, c in zip(layer.weight[k].tolist(), augmented[n].tolist(), clean[n].tolist())
                ]
                expected = layer.bias[k].item() + math.fsum(products) / math.sqrt(20)
                assert head(augmented, clean)[group][n, k].item() == pytest.approx(expected, abs=1e-13)


def test_head_starts_with_weights_from_the_normal_distribution_and_bias_0():
    torch.manual_seed(0)
    layer = EqualizedLinear(512, 100)
    assert abs(layer.weight.mean().item()) < 0.02 and abs(layer.weight.std().item() - 1) < 0.02
    assert torch.equal(layer.bias, torch.zeros(100))
    assert layer(torch.randn([200, 512])).std().item() == pytest.approx(1, abs=0.1)


def test_head_sends_opposite_gradients_to_the_two_branches():
    head = OmegaHead(8, {"color": 3})
    augmented, clean = torch.randn([4, 8], requires_grad=True), torch.randn([4, 8], requires_grad=True)
    head(augmented, clean)["color"].square().sum().backward()
    assert augmented.grad.abs().sum() > 0 and torch.equal(augmented.grad, -clean.grad)


def test_head_is_float32_whatever_d_is():
    head = OmegaHead(8, GROUPS)
    for pred in head(torch.randn([4, 8]).half(), torch.randn([4, 8]).half()).values():
        assert pred.dtype == torch.float32


# The authors' code. -------------------------------------------------------------------------------


def golden_head(golden):
    head = OmegaHead(golden["D/b4.fc.weight"].shape[0], GROUPS)
    state = {
        f"groups.{group}.{name}": golden[f"D/b4.out_augself.{group}.{name}"]
        for group in GROUPS
        for name in ("weight", "bias")
    }
    head.load_state_dict(state)
    return head


@pytest.mark.parametrize("name, sign", [("G", None), ("D_generated", -1), ("D_real", +1)])
def test_predictions_losses_and_gradients_equal_the_authors_bb0760e(golden, name, sign):
    head = golden_head(golden)
    augmented = golden[f"{name}/features/augmented"].clone().requires_grad_()
    clean = golden[f"{name}/features/clean"].clone().requires_grad_()
    preds = head(augmented, clean)
    omegas = {group: golden[f"{name}/omega/{group}"] for group in GROUPS}
    # Everywhere: the same float32 sums in another order.
    close = dict(rtol=1e-6, atol=1e-6)
    for group in GROUPS:
        torch.testing.assert_close(preds[group], golden[f"{name}/pred/{group}"], **close)

    mse = golden[f"{name}/mse"]
    logits = golden[f"{name}/logits"]
    if sign is None:  # the authors' two errors per group, in the order of the groups
        term, weight, adversarial = augself.generator_term(preds, omegas), golden["g_weight"].item(), -logits
        per_group = [augself.augself_generator_loss(preds[group], omegas[group]).mean() for group in GROUPS]
        expected = mse[0::2] - mse[1::2]
    else:
        term, weight = augself.discriminator_term(preds, omegas, sign), golden["d_weight"].item()
        adversarial = -sign * logits
        per_group = [augself.augself_loss(preds[group], omegas[group], sign).mean() for group in GROUPS]
        expected = mse
    torch.testing.assert_close(torch.stack(per_group), expected, **close)
    total = torch.nn.functional.softplus(adversarial).mean() + weight * term.mean()
    torch.testing.assert_close(total, golden[f"{name}/loss"], **close)

    total.backward()
    torch.testing.assert_close(clean.grad, golden[f"{name}/grad_features/clean"], **close)
    if sign is not None:  # in G's phase D and the head are frozen
        for group in GROUPS:
            for key in ("weight", "bias"):
                actual = getattr(head.groups[group], key).grad
                torch.testing.assert_close(actual, golden[f"{name}/grad/b4.out_augself.{group}.{key}"], **close)


def test_the_authors_give_their_heads_no_gradient_in_the_r1_and_g_phases(golden):
    recorded = [key for key in golden if "/grad/b4.out_augself." in key]
    assert recorded and {key.split("/")[0] for key in recorded} == {"D_generated", "D_real"}


# The divergence. ----------------------------------------------------------------------------------

COUNTS_P, COUNTS_Q = (4, 3, 2, 1, 0), (0, 2, 3, 1, 4)  # ten images of each source, with five different values of x
P, Q = (torch.tensor(counts, dtype=torch.float64) / 10 for counts in (COUNTS_P, COUNTS_Q))


def divergence(p, q):
    harmonic_mean = torch.where(p * q > 0, 2 * p * q / (p + q), 0)
    return 1 - harmonic_mean.sum().item()


def population(counts, omegas, head):
    """Return all pairs of an image and an omega, as often as they occur: ({group: pred}, {group: omega})."""
    pairs = [(x, w) for x, count in enumerate(counts) for _ in range(count) for w in range(len(omegas))]
    omega = torch.stack([omegas[w] for _, w in pairs])
    pred = torch.stack([head(x, w) for x, w in pairs])
    return {"color": pred[:, :3], "cutout": pred[:, 3:]}, {"color": omega[:, :3], "cutout": omega[:, 3:]}


def optimal_head(omegas):
    ratio = (P - Q) / (P + Q)
    return lambda x, w: ratio[x] * omegas[w]


def lower_bound(real, generated):
    """Return the bound of step 3 of docs/methods/augself.md: 1 - (D's terms) / (2 E|omega|^2), for any head."""
    terms = 0
    for (preds, omegas), sign in ((real, +1), (generated, -1)):
        scale = torch.cat([omegas[group] for group in sorted(preds)], dim=1).square().sum(dim=1).mean()
        terms += augself.discriminator_term(preds, omegas, sign, reduction="sum").mean() / scale
    return 1 - terms / 2


def test_theorem_generator_term_of_the_optimal_head_is_4_c_m_for_constant_omega():
    omegas = torch.tensor([[0.2, 0.3, 0.5, 0.4, 0.6]], dtype=torch.float64)
    preds, drawn = population(COUNTS_Q, omegas, optimal_head(omegas))
    actual = augself.generator_term(preds, drawn, reduction="sum").mean().item()
    assert actual == pytest.approx(4 * omegas.square().sum().item() * divergence(P, Q), rel=1e-12)


def test_estimates_of_the_optimal_head_are_the_divergence_for_drawn_omega():
    omegas = torch.rand([7, 5], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    head = optimal_head(omegas)
    real, generated = population(COUNTS_P, omegas, head), population(COUNTS_Q, omegas, head)
    assert augself.ahm_divergence(*generated).item() == pytest.approx(divergence(P, Q), rel=1e-12)
    assert lower_bound(real, generated).item() == pytest.approx(divergence(P, Q), rel=1e-12)
    # Symmetric, so real images give the same value with the other sign.
    assert -augself.ahm_divergence(*real).item() == pytest.approx(divergence(Q, P), rel=1e-12)


def test_divergence_is_half_le_cam_between_0_and_1():
    assert divergence(P, Q) == pytest.approx(((P - Q).square() / (P + Q)).sum().item() / 2)
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert divergence(P, P) == pytest.approx(0) and divergence(one, other) == 1


@PROPERTY
@given(st.integers(0, 2**31), st.floats(0, 2))
def test_lower_bound_stays_below_the_divergence_for_any_head(seed, error):
    generator = torch.Generator().manual_seed(seed)
    omegas = torch.rand([4, 5], generator=generator, dtype=torch.float64)
    best = optimal_head(omegas)
    noise = torch.randn([len(P), 4, 5], generator=generator, dtype=torch.float64) * error

    def head(x, w):
        return best(x, w) + noise[x, w]

    bound = lower_bound(population(COUNTS_P, omegas, head), population(COUNTS_Q, omegas, head))
    assert bound.item() <= divergence(P, Q) + 1e-12


def test_the_estimate_is_a_scalar_without_gradient():
    preds, omegas = random_groups(4, GROUPS, 0)
    preds = {group: pred.requires_grad_() for group, pred in preds.items()}
    value = augself.ahm_divergence(preds, omegas)
    assert value.shape == () and not value.requires_grad
