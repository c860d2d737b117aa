"""DiffAugment's transformations: equations in double precision, gradients, and the authors' own images."""

import math
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylegan_plugins.plugins.diffaugment import DiffAugmentOptions
from training_ext.diffaugment import GROUPS, DiffAugment

pytestmark = pytest.mark.unit

GOLDEN = pathlib.Path(__file__).parent / "golden" / "diffaugment.npz"
SIZES = ("5x3x16x16", "4x1x9x14")
PROPERTY = settings(max_examples=40, deadline=None)

policies = st.lists(st.sampled_from(sorted(GROUPS)), unique=True).map(tuple)
strengths = st.fixed_dictionaries(
    {
        **{name: st.floats(0, 2) for name in ("brightness", "saturation", "contrast")},
        **{name: st.floats(0, 1) for name in ("translation", "cutout")},
    }
)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key: file[key] for key in file}


def random_images(shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


# The equations, image by image and pixel by pixel, in plain Python numbers. ----------------------


def reference(images, omega, augment):
    """Return T(images; omega) from the definitions, as nested lists [N][C][H][W]."""
    step = {"color": reference_color, "translation": reference_translation, "cutout": reference_cutout}
    result = []
    for n, image in enumerate(images.tolist()):
        for group in augment.policy:
            image = step[group](image, omega[group][n].tolist(), augment)
        result.append(image)
    return torch.tensor(result, dtype=torch.float64).reshape(images.shape)


def reference_color(image, omega, augment):
    channels, height, width = len(image), len(image[0]), len(image[0][0])
    pixels = [(c, i, j) for c in range(channels) for i in range(height) for j in range(width)]
    bright = {(c, i, j): image[c][i][j] + augment.brightness * (omega[0] - 0.5) for c, i, j in pixels}
    grey = {
        (i, j): math.fsum(bright[c, i, j] for c in range(channels)) / channels
        for i in range(height)
        for j in range(width)
    }
    factor = augment.saturation * (2 * omega[1] - 1) + 1
    vivid = {(c, i, j): grey[i, j] + factor * (bright[c, i, j] - grey[i, j]) for c, i, j in pixels}
    mean = math.fsum(vivid.values()) / len(pixels)
    factor = augment.contrast * (omega[2] - 0.5) + 1
    return [
        [[mean + factor * (vivid[c, i, j] - mean) for j in range(width)] for i in range(height)]
        for c in range(channels)
    ]


def reference_translation(image, omega, augment):
    height, width = len(image[0]), len(image[0][0])
    largest = [math.floor(side * augment.translation + 0.5) for side in (height, width)]
    shift = [round(2 * most * (value - 0.5)) for most, value in zip(largest, omega)]

    def pixel(plane, i, j):
        i, j = i + shift[0], j + shift[1]
        return plane[i][j] if 0 <= i < height and 0 <= j < width else 0

    return [[[pixel(plane, i, j) for j in range(width)] for i in range(height)] for plane in image]


def reference_cutout(image, omega, augment):
    height, width = len(image[0]), len(image[0][0])
    cut = []
    for side, value in zip((height, width), omega):
        hole = math.floor(side * augment.cutout + 0.5)
        start = round(value * (side - hole % 2)) - hole // 2
        cut.append(range(start, start + hole))
    return [
        [[0 if i in cut[0] and j in cut[1] else plane[i][j] for j in range(width)] for i in range(height)]
        for plane in image
    ]


@PROPERTY
@given(policies, shapes, strengths, st.integers(0, 2**31))
def test_images_satisfy_the_equations_pixel_by_pixel(policy, shape, strength, seed):
    augment = DiffAugment(policy, **strength)
    images = random_images(shape, seed)
    torch.manual_seed(seed)
    actual, omega = augment(images)
    # Double precision; only the order of the sums in the means differs.
    torch.testing.assert_close(actual, reference(images, omega, augment), rtol=0, atol=1e-13)


@PROPERTY
@given(policies, shapes, strengths, st.integers(0, 2**31))
def test_omega_is_float32_between_0_and_1_with_one_row_per_image(policy, shape, strength, seed):
    torch.manual_seed(seed)
    augment = DiffAugment(policy, **strength)
    omega = augment.sample(shape[0], shape[2], shape[3])
    assert list(omega) == list(policy)
    for group, value in omega.items():
        assert value.dtype == torch.float32
        assert value.shape == (shape[0], GROUPS[group])
        assert ((value >= 0) & (value <= 1)).all()


@pytest.mark.parametrize("strength", [dict(), dict(translation=0.25, cutout=0.75), dict(cutout=0.3)])
def test_omega_spans_0_to_1_whatever_the_strength(strength):
    torch.manual_seed(0)
    omega = DiffAugment(**strength).sample(4000, 16, 24)
    for group, value in omega.items():
        assert value.min() < 0.01 and value.max() > 0.99, group
        assert (value.mean(dim=0) - 0.5).abs().max() < 0.03, group


def test_every_shift_and_every_offset_occurs_and_no_other():
    torch.manual_seed(0)
    omega = DiffAugment().sample(2000, 16, 24)
    for axis, (side, most) in enumerate(((16, 2), (24, 3))):
        shifts = (omega["translation"][:, axis] - 0.5) * 2 * most
        torch.testing.assert_close(shifts, shifts.round(), rtol=0, atol=1e-5)
        assert shifts.round().unique().tolist() == list(range(-most, most + 1))
        offsets = omega["cutout"][:, axis] * side
        torch.testing.assert_close(offsets, offsets.round(), rtol=0, atol=1e-5)
        assert offsets.round().unique().tolist() == list(range(side + 1))


# Gradients. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",), tuple(GROUPS)])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 5, 3)])
def test_first_and_second_derivatives_agree_with_finite_differences(policy, shape):
    torch.manual_seed(0)
    augment = DiffAugment(policy, translation=0.3)
    omega = augment.sample(shape[0], shape[2], shape[3])
    images = random_images(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment.apply(x, omega), images)
    # T is affine in x: its own second derivative is 0, so look at that of a function which is not.
    assert torch.autograd.gradgradcheck(lambda x: augment.apply(x, omega).pow(3).sum(dim=[1, 2, 3]), images)


def test_gradient_penalty_through_t_reaches_the_parameters_behind_it():
    torch.manual_seed(0)
    augment = DiffAugment()
    images = random_images((3, 3, 8, 8)).requires_grad_()
    omega = augment.sample(3, 8, 8)
    weight = torch.randn([3 * 64], dtype=torch.float64, requires_grad=True)

    def penalty(weight):
        logits = augment.apply(images, omega).flatten(1).tanh() @ weight
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(penalty, weight)


# The authors' images. -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_seed_gives_the_images_of_the_authors_code_0b63395(golden, size):
    keys = [key for key in golden if key.startswith(f"{size}/diffaugment/")]
    assert len(keys) >= 6
    for key in keys:
        policy = tuple(filter(None, key.split("/")[2].split(",")))
        torch.manual_seed(int(golden["seed"]))
        actual, _ = DiffAugment(policy)(torch.from_numpy(golden[f"{size}/input"]))
        # Equal bit for bit where recorded; another build may sum the means in another order.
        assert np.abs(actual.numpy() - golden[key]).max() <= 1e-6, key


@pytest.mark.parametrize("name", ["default", "plus", "all"])
@pytest.mark.parametrize("size", SIZES)
def test_a_seed_gives_images_and_omega_of_augself_bb0760e_for_each_strength(golden, size, name):
    prefix = f"strength/{name}/"
    strength = {key[len(prefix) :]: float(golden[key]) for key in golden if key.startswith(prefix)}
    augment = DiffAugment(**strength)
    images = torch.from_numpy(golden[f"{size}/input"])
    torch.manual_seed(int(golden["seed"]))
    actual, omega = augment(images)
    expected = torch.from_numpy(golden[f"{size}/augself/{name}/output"])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    recorded = {group: torch.from_numpy(golden[f"{size}/augself/{name}/omega/{group}"]) for group in GROUPS}
    for group in GROUPS:
        assert torch.equal(omega[group], recorded[group]), group
    torch.testing.assert_close(augment.apply(images, recorded), expected, rtol=0, atol=1e-6)


# Where. -------------------------------------------------------------------------------------------

PASSES = [("real", "Dmain"), ("real", "Dreg"), ("generated", "Dmain"), ("generated", "Gmain")]


@pytest.mark.parametrize(
    "where, transformed",
    [
        ("all", PASSES),  # E f_D(-D(T(x))) + E f_D(D(T(G(z)))), E f_G(-D(T(G(z))))
        ("d", PASSES[:3]),  # E f_D(-D(T(x))) + E f_D(D(T(G(z)))), E f_G(-D(G(z)))
        ("reals", PASSES[:2]),  # E f_D(-D(T(x))) + E f_D(D(G(z))), E f_G(-D(G(z)))
    ],
)
def test_t_is_in_the_terms_of_the_papers_three_variants_and_in_no_other(where, transformed):
    applies = DiffAugmentOptions(where=where).applies
    assert [these for these in PASSES if applies(*these)] == transformed


# Off, edges and errors. ---------------------------------------------------------------------------


def test_an_empty_policy_returns_the_same_tensor_and_draws_nothing():
    images = random_images((2, 3, 8, 8))
    before = torch.get_rng_state()
    actual, omega = DiffAugment(())(images)
    assert actual is images and omega == {}
    assert torch.equal(torch.get_rng_state(), before)


def test_strength_0_changes_nothing():
    images = random_images((4, 3, 8, 8))
    actual, omega = DiffAugment(brightness=0, saturation=0, contrast=0, translation=0, cutout=0)(images)
    torch.testing.assert_close(actual, images, rtol=0, atol=1e-15)
    assert torch.equal(omega["translation"], torch.full([4, 2], 0.5))


@pytest.mark.parametrize("shape", [(3, 3, 1, 1), (3, 1, 2, 1), (3, 2, 3, 3)])
def test_images_too_small_to_shift_give_finite_omega(shape):
    actual, omega = DiffAugment()(random_images(shape))
    assert actual.isfinite().all() and all(value.isfinite().all() for value in omega.values())
    assert torch.equal(omega["translation"], torch.full([3, 2], 0.5))


def test_grey_images_get_the_colour_of_a_three_channel_copy_of_themselves():
    grey = random_images((3, 1, 6, 6))
    augment = DiffAugment()
    omega = augment.sample(3, 6, 6)
    expected = augment.apply(grey.expand(-1, 3, -1, -1), omega)[:, :1]
    torch.testing.assert_close(augment.apply(grey, omega), expected, rtol=0, atol=1e-14)


def test_apply_is_deterministic_and_leaves_the_generator_and_its_input_alone():
    augment = DiffAugment()
    images = random_images((4, 3, 8, 8))
    copy = images.clone()
    omega = augment.sample(4, 8, 8)
    before = torch.get_rng_state()
    assert torch.equal(augment.apply(images, omega), augment.apply(images, omega))
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(images, copy)


def test_each_image_depends_on_its_own_omega_and_pixels_only():
    augment = DiffAugment()
    images = random_images((4, 3, 8, 8))
    omega = augment.sample(4, 8, 8)
    alone = [augment.apply(images[[n]], {group: value[[n]] for group, value in omega.items()}) for n in range(4)]
    torch.testing.assert_close(torch.cat(alone), augment.apply(images, omega), rtol=0, atol=1e-15)


def test_the_draws_do_not_depend_on_the_type_of_the_images():
    torch.manual_seed(0)
    single, omega_single = DiffAugment()(random_images((4, 3, 8, 8)).float())
    torch.manual_seed(0)
    double, omega_double = DiffAugment()(random_images((4, 3, 8, 8)))
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    assert all(torch.equal(omega_single[group], omega_double[group]) for group in GROUPS)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


def test_groups_are_applied_in_the_order_of_the_policy():
    images = random_images((4, 3, 8, 8)) + 3
    omega = DiffAugment().sample(4, 8, 8)
    cut_last = DiffAugment(("color", "cutout")).apply(images, omega)
    cut_first = DiffAugment(("cutout", "color")).apply(images, omega)
    holes = DiffAugment(("cutout",)).apply(images, omega) == 0
    assert (cut_last[holes] == 0).all() and (cut_first[holes] != 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_nothing_waits_for_the_device_and_the_images_are_those_of_the_cpu():
    augment = DiffAugment()
    images = random_images((4, 3, 32, 32), dtype=torch.float32)
    on_gpu = images.cuda().requires_grad_()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        actual, omega = augment(on_gpu)
        (gradient,) = torch.autograd.grad(actual.square().sum(), on_gpu, create_graph=True)
        gradient.square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    expected = augment.apply(images, {group: value.cpu() for group, value in omega.items()})
    torch.testing.assert_close(actual.cpu(), expected, rtol=0, atol=1e-6)
