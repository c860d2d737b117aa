"""The sample data that come with the package."""

import json
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

from stylegan_plugins.cli import cli
from stylegan_plugins.files import datasets, demo

pytestmark = pytest.mark.unit


def test_each_kind_is_a_class_and_each_face_its_own_picture(tmp_path):
    kinds = [*demo.KINDS, demo.PHOTOGRAPHS]
    count = demo.write_faces(tmp_path / "all.zip", kinds)
    assert datasets.check_dataset(str(tmp_path / "all.zip")) == (count, 32, 3)
    names, images = datasets.read_images(str(tmp_path / "all.zip"))
    images = list(images)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        labels = [label for _, label in json.loads(archive.read("dataset.json"))["labels"]]
    assert count == sum(demo.KINDS.values()) + demo.PHOTOGRAPHED_FACES == len(names)
    assert len({image.tobytes() for image in images}) > 0.98 * count  # some professions look alike at this size
    assert all(image.std() > 10 for image in images)
    assert [labels.count(label) for label in range(len(kinds))] == [*demo.KINDS.values(), demo.PHOTOGRAPHED_FACES]


def test_a_smaller_size_is_the_same_faces(tmp_path):
    runner = CliRunner()
    for size in ("16", "32"):
        done = runner.invoke(cli, ["demo-data", str(tmp_path / f"{size}.zip"), "--kind=animals", f"--size={size}"])
        assert done.exit_code == 0 and "35 faces" in done.output
    small, large = (list(datasets.read_images(str(tmp_path / f"{size}.zip"))[1]) for size in (16, 32))
    for one, other in zip(small, large, strict=True):
        halved = other.reshape(3, 16, 2, 16, 2).mean((2, 4))
        assert np.abs(halved - one).mean() < 12
    for folder in (".", "/", str(tmp_path)):
        done = runner.invoke(cli, ["demo-data", folder])
        assert done.exit_code == 2 and f"Error: {folder} cannot be written" in done.output
    done = runner.invoke(cli, ["demo-data", str(tmp_path / "other.zip"), "--size=24"])
    assert done.exit_code and "powers of two" in done.output and not (tmp_path / "other.zip").exists()
