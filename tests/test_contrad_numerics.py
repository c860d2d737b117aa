"""ContraD's equations and SimCLR's augmentation, against plain re-computations and against the authors' code."""

import math
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from training_ext import contrad as augment
from training_ext.contrad import SIMCLR, SimCLR, heads, nt_xent, supcon_generated

pytestmark = pytest.mark.unit

GOLDEN = pathlib.Path(__file__).parent / "golden" / "contrad.npz"
PROPERTY = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind != "U"}


def unit_vectors(n, width, seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn([count, n, width], generator=generator, dtype=torch.float64), dim=2).unbind()


# Losses. ------------------------------------------------------------------------------------------

cases = (st.integers(1, 6), st.integers(1, 5), st.floats(0.05, 2), st.integers(0, 2**31))


@PROPERTY
@given(*cases)
def test_nt_xent_satisfies_its_equation(n, width, temperature, seed):
    first, second, _ = unit_vectors(n, width, seed)
    views = [*first.tolist(), *second.tolist()]
    s = lambda a, b: sum(x * y for x, y in zip(views[a], views[b])) / temperature
    loss = lambda a, b: -s(a, b) + math.log(math.fsum(math.exp(s(a, v)) for v in range(2 * n) if v != a))
    expected = [(loss(k, n + k) + loss(n + k, k)) / 2 for k in range(n)]
    torch.testing.assert_close(
        nt_xent(first, second, temperature), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


@PROPERTY
@given(st.integers(2, 6), *cases[1:])
def test_supcon_of_generated_images_satisfies_its_equation(n, width, temperature, seed):
    first, second, generated = unit_vectors(n, width, seed)
    others = [*generated.tolist(), *first.tolist(), *second.tolist()]
    s = lambda a, b: sum(x * y for x, y in zip(others[a], others[b])) / temperature
    expected = []
    for i in range(n):
        total = math.log(math.fsum(math.exp(s(i, v)) for v in range(3 * n) if v != i))
        expected.append(-math.fsum(s(i, j) - total for j in range(n) if j != i) / (n - 1))
    actual = supcon_generated(first, second, generated, temperature)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [2, 5])
def test_losses_of_indistinguishable_images_are_the_logarithms_of_their_numbers(n):
    same = torch.ones([n, 4]) / 2
    assert nt_xent(same, same, 0.1).tolist() == pytest.approx([math.log(2 * n - 1)] * n)
    assert supcon_generated(same, same, same, 0.1).tolist() == pytest.approx([math.log(3 * n - 1)] * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_losses_and_gradients_equal_the_authors_4ac8ce5(golden, temperature):
    name = f"losses/{temperature}"
    vectors = golden[f"{name}/vectors"].requires_grad_(True)
    for loss, theirs in (
        (nt_xent(vectors[0], vectors[1], temperature), "nt_xent"),
        (supcon_generated(*vectors, temperature), "supcon_fake"),
    ):
        (gradient,) = torch.autograd.grad(loss.mean(), [vectors])
        torch.testing.assert_close(loss.mean(), golden[f"{name}/{theirs}"], rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, golden[f"{name}/{theirs}/grad"], rtol=1e-9, atol=1e-12)


def test_the_head_is_the_authors(golden):
    """Weights of theirs, by their order; the plug-in's use of the heads is compared in test_contrad.py."""
    head = heads(20, 16, 8)["real"].double()
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    head.load_state_dict({name: golden[f"step/heads/projection.{name}"] for name in names})
    x = golden["step/features"]
    weight, bias = (golden[f"step/heads/projection.0.{name}"] for name in ("weight", "bias"))
    hidden = x @ weight.T + bias
    hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
    expected = hidden @ golden["step/heads/projection.2.weight"].T + golden["step/heads/projection.2.bias"]
    torch.testing.assert_close(head(x), expected, rtol=1e-12, atol=1e-12)


# SimCLR's augmentation. ---------------------------------------------------------------------------


def images_of(n=4, channels=3, height=24, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand([n, channels, height, width], generator=generator, dtype=torch.float64) * 2 - 1


def compare(golden, name, function):
    """Compare output and gradient with the authors' float32."""
    leaf = golden["augment/images"].clone().requires_grad_(True)
    output = function(leaf)
    (gradient,) = torch.autograd.grad((output * golden["augment/weights"]).sum(), [leaf])
    # Pixel coordinates of float32 are rounded in another place than grid_sample's: 20 pixels times some 1e-7.
    torch.testing.assert_close(output.detach(), golden[f"augment/{name}"], rtol=0, atol=5e-6)
    torch.testing.assert_close(gradient, golden[f"augment/{name}/grad"], rtol=0, atol=3e-5)


@pytest.mark.parametrize("name", ["crop", "flip"])
def test_crops_and_flips_equal_the_authors_4ac8ce5(golden, name):
    theta = golden[f"augment/{name}/theta"]
    w, h = theta[:, 0, 0], theta[:, 1, 1]
    place = lambda bias, size: torch.where(size < 1, (bias - size + 1) / 2 / (1 - size).clamp(min=1e-9), 0)
    flipped = (w < 0).float()
    w = w.abs()
    omega = torch.stack([w, h, place(theta[:, 0, 2], w), place(theta[:, 1, 2], h), flipped], dim=1)
    compare(golden, name, lambda x: augment.apply_crop(x, omega))


@pytest.mark.parametrize("order", ["contrast-first", "hsv-first"])
def test_jitter_equals_the_authors_4ac8ce5(golden, order):
    draws = [golden[f"augment/jitter-{order}/draw{index}"] for index in range(4)]
    contrast, turn, saturation, value = draws if order == "contrast-first" else [draws[3], *draws[:3]]
    uniform = lambda factor: (factor - 0.6) / 0.8
    n = len(contrast)
    columns = [torch.ones(n), torch.full([n], float(order == "contrast-first")), uniform(contrast), (turn + 0.1) / 0.2]
    omega = torch.stack([*columns, uniform(saturation), uniform(value)], dim=1)
    compare(golden, f"jitter-{order}", lambda x: augment.apply_jitter(x, omega, hsv_gradient="straight-through"))


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_equals_the_authors_4ac8ce5(golden, sigma):
    omega = torch.tensor([[1, (sigma - 0.1) / 1.9]]).expand(len(golden["augment/images"]), 2)
    compare(golden, f"blur-{sigma}", lambda x: augment.apply_blur(x, omega))


def test_gray_equals_the_authors_4ac8ce5(golden):
    compare(golden, "gray", lambda x: augment.apply_gray(x, torch.ones([len(x), 1])))


@PROPERTY
@given(
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from(sorted(SIMCLR)),
    st.floats(0.01, 1),
    st.floats(0, 1.5),
    st.integers(0, 2**31),
)
def test_views_have_the_shape_and_range_of_their_images_and_omega_is_in_0_to_1(
    n, channels, height, width, variant, area, jitter, seed
):
    x = images_of(n, channels, height, width, seed).float()
    torch.manual_seed(seed)
    transform = SimCLR(crop_area=area, jitter=jitter, **SIMCLR[variant])
    y, omega = transform(x)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert y.abs().max() <= 1 + 1e-5
    assert all(values.min() >= 0 and values.max() <= 1 for values in omega.values())
    assert torch.equal(transform.apply(x, omega), y)


def test_each_image_has_draws_of_its_own_and_of_nobody_elses():
    transform = SimCLR(blur=0.5, cutout=0.5)
    x = images_of(6)
    torch.manual_seed(3)
    omega = transform.sample(6, 24, 24)
    together = transform.apply(x, omega)
    for index in range(6):
        alone = transform.apply(x[[index]], {group: values[[index]] for group, values in omega.items()})
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-12)
    assert len({tuple(row.tolist()) for row in omega["crop"]}) == 6


@pytest.mark.parametrize("variant", sorted(SIMCLR))
def test_gradients_are_those_of_the_transformation(variant):
    """Against finite differences, twice, with the draws held; clamps are avoided by images well inside of [-1, 1]."""
    transform = SimCLR(jitter=0.2, hsv_gradient="exact", **SIMCLR[variant])
    x = (images_of(2, 3, 20, 20, seed=1) * 0.3).requires_grad_(True)
    torch.manual_seed(0)
    omega = {group: values.double() for group, values in transform.sample(2, 20, 20).items()}
    omega["jitter"][:, 0] = 1
    omega["gray"][:] = torch.tensor([[0.0], [1.0]])
    weights = images_of(2, 3, 20, 20, seed=2)
    value = lambda x: (transform.apply(x, omega) * weights).sum()
    (gradient,) = torch.autograd.grad(value(x), [x], create_graph=True)
    direction = images_of(2, 3, 20, 20, seed=3)
    step = 1e-6
    with torch.no_grad():
        slope = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5)
    torch.autograd.grad(gradient.square().sum(), [x])  # and there is a second derivative, for R1 through T


def test_gradients_of_gray_and_black_pixels_are_finite():
    x = torch.zeros([3, 3, 8, 8])
    x[1], x[2, 0] = -1, 0.5
    x.requires_grad_(True)
    torch.manual_seed(0)
    for exact in ("exact", "straight-through"):
        y, _ = SimCLR(hsv_gradient=exact)(x)
        (gradient,) = torch.autograd.grad(y.sum(), [x])
        assert torch.isfinite(gradient).all() and torch.isfinite(y).all()


def test_straight_through_changes_the_gradient_and_not_the_image():
    x = images_of(4).float().requires_grad_(True)
    exact, through = SimCLR(), SimCLR(hsv_gradient="exact")
    omega = exact.sample(4, 24, 24)
    omega["jitter"][:, 0] = 1
    omega["gray"][:] = 0
    a, b = exact.apply(x, omega), through.apply(x, omega)
    assert torch.equal(a, b)
    assert not torch.allclose(torch.autograd.grad(a.sum(), [x])[0], torch.autograd.grad(b.sum(), [x])[0])


def test_draws_have_the_published_distributions():
    torch.manual_seed(0)
    n, side = 20000, 32
    omega = SimCLR(crop_area=0.2, blur=0.5, cutout=0.5).sample(n, side, side)
    w, h, left, top, flipped = (omega["crop"] * torch.tensor([side, side, 1, 1, 1])).unbind(dim=1)
    assert torch.equal(w, w.round()) and torch.equal(h, h.round())
    area, ratio = w * h / side**2, w / h
    assert area.min() > 0.17 and area.max() <= 1 and area.std() > 0.2
    assert ratio.min() > 0.7 and ratio.max() < 1.43
    assert ratio.log().mean().abs() < 0.01
    for place in (left[w < side], top[h < side]):
        assert place.min() == 0 and place.max() == 1 and place.mean() == pytest.approx(0.5, abs=0.01)
    share = lambda values: values.mean().item()
    assert share(flipped) == pytest.approx(0.5, abs=0.02)
    assert share(omega["jitter"][:, 0]) == pytest.approx(0.8, abs=0.02)
    assert share(omega["gray"]) == pytest.approx(0.2, abs=0.02)
    assert share(omega["blur"][:, 0]) == pytest.approx(0.5, abs=0.02)


def test_crop_areas_are_distributed_as_the_authors():
    """Their trials, drawn with numpy: those that do not fit are dropped, which makes wide crops rarer."""
    draw = np.random.RandomState(0)
    target = draw.uniform(0.2, 1, 200000) * 32**2
    ratio = np.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3), 200000))
    w, h = np.round(np.sqrt(target * ratio)), np.round(np.sqrt(target / ratio))
    fits = (w <= 32) & (h <= 32)
    theirs = np.sort(w[fits] * h[fits])
    torch.manual_seed(0)
    crop = SimCLR(crop_area=0.2).sample(50000, 32, 32)["crop"]
    ours = np.sort((crop[:, 0] * crop[:, 1] * 32**2).numpy())
    for quantile in (0.1, 0.5, 0.9):
        expected = theirs[int(quantile * len(theirs))]
        assert ours[int(quantile * len(ours))] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("side, length", [(32, 15), (512, 255), (9, 3)])
def test_holes_are_black_squares_of_the_published_sides(side, length):
    x = torch.ones([1, 1, side, side])
    centre = torch.tensor([[1.0, 0.5, 0.5]])
    y = augment.apply_hole(x, centre)
    assert (y == 0).sum() == length**2
    assert torch.equal(augment.apply_hole(x, torch.tensor([[0.0, 0.5, 0.5]])), x)
    corner = augment.apply_hole(x, torch.tensor([[1.0, 0.0, 1.0]]))
    assert corner[0, 0, 0, -1] == 0 and (corner == 0).sum() == (length // 2 + 1) ** 2


def test_gray_images_get_contrast_and_brightness_alone():
    x = images_of(3, 1).float()
    transform = SimCLR()
    omega = transform.sample(3, 24, 24)
    omega["jitter"][:, 0] = 1
    one = transform.apply(x, omega)
    three = transform.apply(x.expand(-1, 3, -1, -1), omega)
    torch.testing.assert_close(one.expand(-1, 3, -1, -1), three, rtol=0, atol=1e-5)
