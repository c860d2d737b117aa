"""DiffAugment's further transformations: StudioGAN's own images, equations, gradients; and AugSelf on them."""

import math
import pathlib

import numpy as np
import pytest
import torch
from support.hosts import ADA
from support.scripts import report_of

from stylegan_plugins.errors import OptionError
from stylegan_plugins.plugins.augself import AugSelfOptions
from stylegan_plugins.plugins.diffaugment import DiffAugmentOptions
from training_ext import ada_transforms, augment_family
from training_ext.augment_family import WIDTHS, AugmentFamily
from training_ext.diffaugment import GROUPS, DiffAugment

GOLDEN = pathlib.Path(__file__).parent / "golden" / "augment_family.npz"
SIZES = ("3x3x24x24", "2x1x24x24")
ADDED = [group for group in WIDTHS if group not in GROUPS]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key: file[key] for key in file}


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def smooth_images(n=3, channels=3, side=12):
    coarse = torch.rand([n, channels, 4, 4], generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    return torch.nn.functional.interpolate(coarse, size=[side, side], mode="bicubic")


# The authors' images. -----------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("policy", ["flip", "flip,shift"])
def test_a_seed_gives_flips_and_shifts_of_studiogan_947b35e(golden, size, policy):
    torch.manual_seed(int(golden["seed"]))
    actual, _ = AugmentFamily(tuple(policy.split(",")))(torch.from_numpy(golden[f"{size}/input"]))
    assert np.array_equal(actual.numpy(), golden[f"{size}/{policy}"])


@pytest.mark.unit
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("group", ada_transforms.ADA_GROUPS)
def test_a_seed_gives_images_of_adas_groups_of_studiogan_947b35e(golden, size, group, double_precision):
    torch.manual_seed(int(golden["seed"]))
    augment = AugmentFamily((group,), ada_p=float(golden[f"{size}/p"]))
    actual, _ = augment(torch.from_numpy(golden[f"{size}/input"]).double())
    assert np.abs(actual.numpy() - golden[f"{size}/{group}"]).max() <= 1e-6  # theirs has filters in float32


# The authors' own groups are as they were. ----------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize("policy", [(), ("color",), ("cutout", "color"), tuple(GROUPS)])
def test_policies_of_the_authors_groups_draw_and_apply_what_diffaugment_does(policy):
    images = smooth_images().float()
    torch.manual_seed(0)
    expected, drawn = DiffAugment(policy, translation=0.3)(images)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    actual, omega = AugmentFamily(policy, translation=0.3)(images)
    assert torch.equal(torch.get_rng_state(), state) and list(omega) == list(drawn)
    assert torch.equal(actual, expected) and all(torch.equal(omega[group], drawn[group]) for group in drawn)
    assert policy or actual is images


# Omega, gradients, off. -----------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize("group", ADDED)
def test_omega_is_float32_between_0_and_1_and_spans_it(group):
    torch.manual_seed(0)
    omega = AugmentFamily((group,), ada_p=0.9).sample(2000, 16, 24)[group]
    assert omega.dtype == torch.float32 and omega.shape == (2000, WIDTHS[group])
    assert ((omega >= 0) & (omega <= 1)).all() and (omega.amax(dim=0) > 0.9).all()
    assert (omega.amin(dim=0) <= (0.5 if group == "crop" else 0.1)).all()


@pytest.mark.unit
@pytest.mark.parametrize("group", ADDED)
def test_first_and_second_derivatives_agree_with_finite_differences(group):
    torch.manual_seed(0)
    augment = AugmentFamily((group,), gray=1, blur=1)
    images = smooth_images(2, side=24 if group == "blur" else 8)
    omega = {name: v.double() if v.is_floating_point() else v for name, v in augment.draw(images).items()}
    if group == "jitter":
        omega[group][:, 0] = 1
    directions = torch.randn([3, *images.shape], dtype=torch.float64) * 0.1
    along = lambda t: augment.apply(images + torch.tensordot(t, directions, 1), omega).pow(3).sum(dim=[1, 2, 3])
    t = torch.zeros([3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(along, t, atol=1e-4) and torch.autograd.gradgradcheck(along, t, atol=1e-4)


@pytest.mark.unit
@pytest.mark.parametrize("group", [group for group in ADDED if group != "jitter"])
def test_a_strength_of_0_changes_nothing_but_rounding(group):
    off = dict(flip=0, shift=0, crop=1, gray=0, blur=0, cutmix=0, ada_p=0)
    images = smooth_images(side=24)
    augment = AugmentFamily((group,), **off)
    torch.manual_seed(0)
    for _ in range(3):
        # The filters of ADA, up, down and of bands, are the identity together, to the digits of their coefficients.
        torch.testing.assert_close(augment(images)[0], images, rtol=0, atol=1e-6)


@pytest.mark.unit
def test_apply_repeats_a_draw_and_images_do_not_depend_on_each_other_but_for_cutmix():
    images = smooth_images(4, side=24)
    for group in ADDED:
        augment = AugmentFamily((group,))
        omega = augment.draw(images)
        whole = augment.apply(images, omega)
        assert torch.equal(whole, augment.apply(images, omega)), group
        if group != "cutmix":
            alone = [augment.apply(images[[n]], {name: v[[n]] for name, v in omega.items()}) for n in range(4)]
            # Places in the padded image are float32, and how far it is padded depends on all of the batch.
            torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-5)


# CutMix. --------------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize("side", [1.0, 0.4])
def test_cutmix_pastes_the_patch_of_its_equation(side):
    torch.manual_seed(0)
    images = smooth_images(5)
    augment = AugmentFamily(("cutmix",), cutmix=side)
    omega = augment.draw(images)
    partner = omega[augment_family.PARTNER].tolist()
    assert sorted(partner) == list(range(5)) and all(n != p for n, p in enumerate(partner))
    expected = images.clone()
    for n, (v, *centre) in enumerate(omega["cutmix"].tolist()):
        half = math.floor(12 * side * v) // 2
        rows, columns = (range(max(math.floor(12 * c) - half, 0), math.floor(12 * c) + half) for c in centre)
        for i in rows:
            for j in columns:
                if i < 12 and j < 12:
                    expected[n, :, i, j] = images[partner[n], :, i, j]
    assert torch.equal(augment.apply(images, omega), expected) and not torch.equal(expected, images)


@pytest.mark.unit
def test_an_image_alone_in_its_batch_is_its_own_partner():
    images = smooth_images(1)
    assert torch.equal(AugmentFamily(("cutmix",))(images)[0], images)


@pytest.mark.unit
def test_the_area_of_cutmixs_patch_is_uniform():
    torch.manual_seed(0)
    area = AugmentFamily(("cutmix",)).sample(4000, 8, 8)["cutmix"][:, 0].square()
    assert abs(area.mean() - 1 / 2) < 0.02 and abs(area.var() - 1 / 12) < 0.01


# The plug-ins. --------------------------------------------------------------------------------------


@pytest.mark.unit
def test_options_reach_the_transformations_and_their_defaults_are_the_published_ones():
    assert DiffAugmentOptions().transform() == AugmentFamily(("color", "translation", "cutout"))
    given = DiffAugmentOptions(policy="cutmix,ada-geom", cutmix=0.25, ada_p=0.5).transform()
    assert given == AugmentFamily(("cutmix", "ada-geom"), cutmix=0.25, ada_p=0.5)
    assert AugSelfOptions(predict="flip,ada-blit").groups == ("flip", "ada-blit")
    with pytest.raises(OptionError, match="cutmix, ada-blit, "):
        AugSelfOptions(predict="mixup")


@pytest.mark.host
def test_augself_predicts_every_group_and_r1_goes_through_all(fetched):
    assert report_of(fetched[ADA], "augment_family.py") == {"heads": WIDTHS, "finite": True}
