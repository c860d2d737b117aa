"""From a folder of photographs with every trouble in it to a run that resumes, by one command."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import PIL.Image
import pytest
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops
from support.runs import TINY, options, run_to_its_end
from support.scripts import invoke, run_script


@pytest.fixture
def photographs(tmp_path):
    """Two classes of photographs in many kinds, with what machines leave behind."""
    sideways = PIL.Image.Exif()
    sideways[0x0112] = 8
    kinds = [
        ("jpg", "RGB"),
        ("png", "RGBA"),
        ("png", "L"),
        ("gif", "P"),
        ("tif", "CMYK"),
        ("webp", "RGB"),
        ("bmp", "1"),
    ]
    for index, crop in enumerate(color_crops(28, side=48)):
        suffix, mode = kinds[index % len(kinds)]
        file = tmp_path / "photos" / ("cats" if index % 2 else "dogs") / f"{index}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(crop[: 40 + index % 9]).convert(mode)
        image.save(file, **({"exif": sideways} if suffix == "jpg" else {}))
    top = tmp_path / "photos"
    deep = io.BytesIO()
    PIL.Image.fromarray(np.full((48, 48), 40_000, np.uint16)).save(deep, "PNG")
    for name, content in {
        **{"Thumbs.db": b"x", "cats/._1.png": b"x", "cats/empty.png": b"", ".ipynb_checkpoints/a.png": b"x"},
        **{"dogs/page.jpg": b"<html>", "dogs/scan.png": deep.getvalue(), "notes.txt": b"of last summer"},
    }.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(content)
    return top


@pytest.mark.run
def test_photographs_train_and_go_on_when_the_cache_was_emptied(ada_host, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    args = options(ada_host, ADA, photographs, tmp_path, "--plugin=diffaugment", "--cond=1", "--device=cpu")
    data = args["training_set_kwargs"]
    assert (data["resolution"], data["max_size"], data["use_labels"]) == (32, 29, True)
    assert args["pictures"] == {
        **{"source": str(photographs), "size": None, "crop": "center", "colors": "auto", "stretch": False}
    }
    assert args["class_names"] == ["cats", "dogs"]
    run_dir = tmp_path / "runs/00000-photos"
    run_dir.parent.mkdir()
    run_to_its_end(ada_host, args | {"total_kimg": 0.016}, run_dir)
    recorded = json.loads((run_dir / "training_options.json").read_text())
    (run_dir / "training_options.json").write_text(json.dumps(recorded | {"total_kimg": 0.024}))
    shutil.rmtree(tmp_path / "cache")
    out = tmp_path / "out"
    for label, message in (("cats", ""), ("1", ""), ("cows", "--class=cows: must be one of cats, dogs, or a number")):
        how = [str(run_dir), "--seeds=0-1", f"--class={label}", f"--outdir={out / label}", "--device=cpu"]
        done = invoke(ada_host, "sample", *how)
        assert message in done.stderr and done.returncode == (2 if message else 0), done.stderr
    done = run_script(ada_host, "train.py", f"--resume-run={run_dir}")
    assert "29 pictures of 32x32, prepared in" in done.stdout and "at 0.0 of 0.024 kimg" in done.stdout
    with PIL.Image.open(run_dir / "reals.png") as sheet:
        assert np.asarray(sheet).std() > 30


@pytest.mark.host
def test_stylegan3_takes_photographs_as_well(stylegan3_host, photographs, tmp_path):
    args = [f"--data={photographs}", f"--outdir={tmp_path / 'runs'}", *TINY[STYLEGAN3], "--cond=1", "--dry-run"]
    done = run_script(stylegan3_host, "train.py", *args)
    assert "2 classes of" in done.stdout and "0 cats: 14, 1 dogs: 15" in done.stdout
    assert '"max_size": 29' in done.stdout and not (tmp_path / "runs").exists()
