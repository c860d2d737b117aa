"""Priors: computed once for images and a backbone, kept, and refused for other images."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.images import color_crops, write_zip

from stylegan_plugins.cli import cli
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets
from stylegan_plugins.plugins import disp as plugin
from stylegan_plugins.vision import backbones, priors

pytestmark = pytest.mark.host

LITE0 = "efficientnet_lite0"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return write_zip(tmp_path_factory.mktemp("priors") / "crops.zip", color_crops(10))


def made(data, **kwargs):
    arguments = {"weights": None, "flips": False, "flag": "--features", **kwargs}
    return priors.compute(str(data), LITE0, **arguments)


def test_priors_are_the_features_of_each_image_in_order(cache, crops):
    found = priors.load(made(crops, flips=True))
    backbone = backbones.load(LITE0)
    images = [torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1 for crop in color_crops(10)]
    with torch.no_grad():
        for index in (0, 3, 9):
            alone = backbone(images[index])[0].numpy()
            np.testing.assert_allclose(found.features[index], alone, rtol=1e-3, atol=1e-4)
            flipped = backbone(images[index].flip(3))[0].numpy()
            np.testing.assert_allclose(found.flipped[index], flipped, rtol=1e-3, atol=1e-4)
    assert found.backbone == LITE0 and found.fingerprint == datasets.fingerprint(crops)


def test_priors_are_kept_and_made_anew_when_the_images_change(cache, crops, tmp_path):
    file = made(crops)
    first = file.stat().st_mtime_ns
    assert made(crops) == file and file.stat().st_mtime_ns == first
    copied = shutil.copy(crops, tmp_path / "other-name.zip")
    assert made(copied) == file
    changed = write_zip(tmp_path / "changed.zip", [*color_crops(9), color_crops(1, seed=5)[0]])
    assert made(changed) != file
    assert made(crops, flips=True) != file
    assert not list(cache.rglob("*.tmp"))


def test_a_folder_and_a_zip_of_the_same_images_have_the_same_features(cache, crops, tmp_path):
    with zipfile.ZipFile(crops) as archive:
        archive.extractall(tmp_path / "folder")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    a, b = priors.load(made(crops)), priors.load(made(tmp_path / "folder"))
    assert np.array_equal(a.features, b.features)
    before = datasets.fingerprint(tmp_path / "folder")
    victim = next((tmp_path / "folder").rglob("*.png"))
    victim.write_bytes(victim.read_bytes() + b"\0")
    assert datasets.fingerprint(tmp_path / "folder") != before


def test_features_of_ones_own_are_taken_and_bound_to_the_images(cache, crops, tmp_path):
    own = np.random.RandomState(0).randn(10, 5)
    np.save(tmp_path / "own.npy", own)
    arguments = dict(weights=None, flips=False)
    file = priors.file_for(str(crops), str(tmp_path / "own.npy"), **arguments)
    found = priors.load(file)
    assert np.array_equal(found.features, own.astype(np.float32)) and found.backbone is None
    other = write_zip(tmp_path / "other.zip", color_crops(10, seed=1))
    with pytest.raises(DataError, match="made from other images.*stylegan-plugins priors"):
        priors.check(found, file, str(other))
    fewer = write_zip(tmp_path / "fewer.zip", color_crops(9))
    with pytest.raises(DataError, match="priors of 10 images.*has 9"):
        priors.file_for(str(fewer), str(tmp_path / "own.npy"), **arguments)
    with pytest.raises(OptionError, match="--disp-features=vgg19: neither a file nor a backbone.*vgg16"):
        priors.file_for(str(crops), "vgg19", **arguments)


def test_weights_do_not_go_with_features_of_ones_own(cache, crops, tmp_path):
    np.save(tmp_path / "own.npy", np.zeros([10, 2]))
    with pytest.raises(OptionError, match="needs no weights"):
        priors.file_for(str(crops), str(tmp_path / "own.npy"), weights="x.pth", flips=False)


def test_weights_that_are_not_there_are_told(cache, crops):
    with pytest.raises(DataError, match="no file of weights nowhere.pth"):
        made(crops, weights="nowhere.pth")


@pytest.mark.parametrize(
    "content, message",
    [
        (np.zeros([3]), r"features \[3\]"),
        (np.zeros([0, 4]), r"features \[0, 4\]"),
        (np.full([2, 2], np.nan), "not finite numbers"),
        (np.array([["a"]]), "features"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 broken", "cannot be read"),
    ],
)
def test_files_that_hold_no_features_are_refused(content, message, tmp_path):
    file = tmp_path / "x.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)
    with pytest.raises(DataError, match=message):
        priors.load(file)


def test_a_pickled_array_is_not_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code of a file was run",))

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        priors.load(tmp_path / "evil.npy")


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-1e3, 1e3, width=32))
)
def test_priors_survive_being_saved(values):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "p.npz")
        priors.save(file, priors.Priors(values, values[::-1].copy(), "abc", None))
        found = priors.load(file)
    assert np.array_equal(found.features, values) and np.array_equal(found.flipped, values[::-1])
    assert (found.fingerprint, found.backbone, found.weights) == ("abc", None, None)


def test_the_command_prints_the_file_that_training_uses(cache, crops):
    done = CliRunner().invoke(_with_commands(), ["priors", "--data", str(crops), "--features", LITE0, "--flips"])
    assert done.exit_code == 0, done.output
    assert done.output.strip().splitlines()[-1] == str(made(crops, flips=True))


def _with_commands():
    if "priors" not in cli.commands:
        plugin.register_commands(cli)
    return cli
