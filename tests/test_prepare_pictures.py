"""examples/prepare_pictures.py: what comes from cameras and scanners becomes a data set of either host."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from support.hosts import ADA
from support.scripts import run_script

from stylegan_plugins.files import datasets

pytestmark = pytest.mark.run

SCRIPT = Path(__file__).parents[1] / "examples" / "prepare_pictures.py"


def prepare(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes, in all color modes, one photograph on its side, one broken, one small."""
    cat = PIL.Image.fromarray(skimage.data.chelsea())
    for name in ("cats", "cups"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
    cats, cups = tmp_path / "pictures/cats", tmp_path / "pictures/cups"
    sideways = PIL.Image.Exif()
    sideways[0x0112] = 6  # to be turned clockwise
    cat.rotate(90, expand=True).save(cats / "a.jpg", exif=sideways, quality=95)
    cat.save(cats / "a.png")
    for mode, suffix in (("L", "png"), ("P", "gif"), ("CMYK", "tif"), ("1", "bmp")):
        cat.convert(mode).save(cats / f"{mode}.{suffix}")
    PIL.Image.fromarray(np.asarray(cat.convert("L")).astype(np.uint16) * 257).save(cats / "scan.png")
    PIL.Image.fromarray(np.asarray(cat.convert("L")).astype(np.float32) / 255).save(cups / "fractions.tif")
    whole = (cats / "a.png").read_bytes()
    (cups / "chunk.png").write_bytes(whole[:100] + b"\0\0\0\0\0\0\0\0" + whole[108:])
    coffee = PIL.Image.fromarray(skimage.data.coffee()).convert("RGBA")
    coffee.putalpha(0)
    coffee.save(cups / "glass.png")
    PIL.Image.new("RGB", (20, 300)).save(cups / "small.png")
    (cups / "broken.jpg").write_bytes((cats / "a.jpg").read_bytes()[:3000])
    return tmp_path / "pictures"


def test_all_kinds_of_pictures_become_a_data_set(pictures, family, fetched, tmp_path):
    done = prepare(pictures, tmp_path / "ready", "--smallest=64", "--classes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Classes: 0 cats, 1 cups\n8 pictures: ")
    left_out = [line.partition("pictures/")[2].partition(" ")[0] for line in done.stderr.splitlines()]
    assert left_out == [f"cups/{name}" for name in ("broken.jpg", "chunk.png", "fractions.tif", "small.png")]
    gray, scan = (np.asarray(PIL.Image.open(tmp_path / f"ready/cats/{name}.png.png")) for name in ("L", "scan"))
    assert (gray == scan).all() and gray.std() > 30
    upright, straight = (np.asarray(PIL.Image.open(tmp_path / f"ready/cats/a.{kind}.png")) for kind in ("jpg", "png"))
    assert np.abs(upright.astype(int) - straight).mean() < 5
    assert np.asarray(PIL.Image.open(tmp_path / "ready/cups/glass.png.png")).min() == 255

    size = ["--width=64", "--height=64"] if family == ADA else ["--resolution=64x64"]
    data = tmp_path / "data.zip"
    how = [f"--source={tmp_path / 'ready'}", f"--dest={data}", "--transform=center-crop", *size]
    run_script(fetched[family], "dataset_tool.py", *how)
    assert datasets.check_dataset(str(data)) == (8, 64, 3)
    with zipfile.ZipFile(data) as archive:
        assert [label for _, label in json.loads(archive.read("dataset.json"))["labels"]] == [0] * 7 + [1]


def test_what_it_cannot_do_is_one_line(pictures, tmp_path):
    (tmp_path / "there").mkdir()
    PIL.Image.new("RGB", (9, 9)).save(pictures / "loose.png")
    for args in (
        [tmp_path / "gone", tmp_path / "x"],
        [pictures, tmp_path / "there"],
        [pictures, tmp_path / "y", "--classes"],
        [tmp_path / "there", tmp_path / "y"],  # no pictures in it
    ):
        done = prepare(*args)
        assert not (tmp_path / "y").exists()
        assert done.returncode and "rror: " in done.stderr and "Traceback" not in done.stderr
