"""`export --outdir`: the exported files, loaded in each form, and files of other kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, STYLEGAN3
from support.pickles import make_pickle
from support.scripts import DRIVERS, invoke, report_of, run_script

from stylegan_plugins.analysis import loading, onnx_networks
from stylegan_plugins.errors import DataError
from stylegan_plugins.files import portable, run_folders
from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.files.portable import Description
from stylegan_plugins.files.snapshots import Network

FILES = ["G_ema.onnx", "G_ema.safetensors", "README.md", "network.pkl", "samples.png"]
GRAY_CLASSES = dict(img_channels=1, c_dim=3)


def make_run(host: Path, run: Path, **settings: int) -> Path:
    """Return a run directory with a snapshot, and what a run records."""
    run.mkdir(parents=True)
    make_pickle(host, run / "network-snapshot-000012.pkl", img_resolution=16, **settings)
    record = {
        "training_set_kwargs": {"path": str(run / "secret" / "x.zip"), "max_size": 77},
        "plugins": {"active": ["diffaugment"], "options": {"diffaugment": {"policy": "color"}}},
        "class_names": ["cat", "cup", "rose"] if settings else [],
        "run_dir": str(run),
    }
    (run / "training_options.json").write_text(json.dumps(record))
    line = {"results": {"fid_clean": 12.5}, "metric": "fid_clean", "snapshot_pkl": "network-snapshot-000012.pkl"}
    (run / "metric-fid_clean.jsonl").write_text(json.dumps(line) + "\n")
    return run


@pytest.mark.run
@pytest.mark.parametrize(("family", "settings"), [(ADA, GRAY_CLASSES), (STYLEGAN3, {})])
def test_every_form_of_a_shared_generator_makes_the_images_of_the_run(fetched, tmp_path, family, settings):
    run, shared = make_run(fetched[family], tmp_path / "run", **settings), tmp_path / "shared"
    found = report_of(fetched[family], "share.py", str(run), str(shared))
    assert found["files"] == FILES and found["left"] == []
    assert found["refused"].startswith("G_ema.onnx: images differ from PyTorch's")
    assert any("the largest difference from PyTorch is" in line for line in found["lines"])
    for name in ("", "network.pkl", "G_ema.safetensors"):
        assert found[name]["pixels"] == 0 and found[name]["values"] == 0, name
    onnx = found["G_ema.onnx"]  # sums in another order: at most the last bit of a pixel
    assert onnx["pixels"] <= 1 and onnx["values"] < 1e-5 and onnx["batch"] < 1e-5 and onnx["spread"] > 0.01
    for name in run_folders.SHARED:
        assert found[name]["classes"] == (["cat", "cup", "rose"] if settings else [])
    assert found.get("modulated", 0) < 1e-6
    card = found["card"]
    for text in (
        "16x16",
        "| pictures | 77 |",
        "12 kimg",
        "policy=color",
        "| fid_clean | 12.5 |",
        "non-commercial",
        *FILES[:2],
    ):
        assert text in card
    for file in shared.iterdir():  # nothing of this machine
        content = file.read_bytes()
        assert not any(str(place).encode() in content for place in (tmp_path, fetched[family], Path.home())), file
    # An unpatched host, without our package.
    script = "generate.py" if family == ADA else "gen_images.py"
    label = ["--class=1"] if settings else []
    stock = [script, f"--network={shared / 'network.pkl'}", "--seeds=5", "--noise-mode=const", "--trunc=0.7"]
    if not settings:  # stock scripts draw no gray images
        run_script(fetched[family], str(DRIVERS / "stock_script.py"), *stock, *label, f"--outdir={tmp_path / 'theirs'}")
    ours = invoke(
        tmp_path,
        "sample",
        str(shared / "G_ema.onnx"),
        "--seeds=5",
        *(["--class=cup"] if label else []),
        f"--outdir={tmp_path / 'ours'}",
    )
    assert ours.returncode == 0, ours.stderr  # in a folder that is not a host
    if not settings:
        images = [
            np.asarray(PIL.Image.open(tmp_path / name / "seed0005.png"), dtype=int) for name in ("ours", "theirs")
        ]
        assert np.abs(images[0] - images[1]).max() <= 1
    walk = invoke(
        tmp_path,
        "interpolate",
        str(shared / "G_ema.onnx"),
        "--seeds=0,1",
        "--frames=2",
        *(["--class=2"] if label else []),
        f"--outdir={tmp_path / 'walk'}",
    )
    assert walk.returncode == 0 and (tmp_path / "walk" / "interpolation.mp4").stat().st_size > 500, walk.stderr


@pytest.mark.host
def test_what_cannot_be_exported_is_one_line(fetched, pickles, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for flags, message in (
        ([], "export: give --outdir=FOLDER, or --out=FILE"),
        ([f"--out={tmp_path / 'x.pkl'}", f"--outdir={tmp_path / 'y'}"], "export: give --outdir=FOLDER, or"),
        ([f"--outdir={tmp_path / 'full'}"], "is there already"),
        ([f"--out={tmp_path / 'x.pkl'}"], "To share it, give --outdir, or --out=FILE.safetensors."),
    ):
        done = invoke(fetched[ADA], "export", str(pickles[ADA]), *flags)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["full"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.unit
@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.lists(st.text(max_size=5), max_size=3), st.integers(0, 3)
)
def test_a_network_in_safetensors_is_read_as_it_was_written(tmp_path_factory, kwargs, names, trained):
    file = tmp_path_factory.mktemp("portable") / portable.FILE
    tensors = {f"t{k}": torch.randn(k, 2) for k in range(3)}
    network = Network("Generator", (), kwargs, tensors, frozenset(list(tensors)[:trained]))
    D = Network("Discriminator", (), {}, {"t0": torch.randn(2)}, frozenset())
    for beside in (None, D):
        file.write_bytes(portable.dump(network, Description("stylegan3", tuple(names)), beside))
        found = read_pickle(file).networks
        read = found.pop("G_ema")
        assert (read.class_name, read.init_kwargs, read.parameters) == ("Generator", kwargs, network.parameters)
        assert read.tensors.keys() == tensors.keys()
        assert all(torch.equal(read.tensors[name], value) for name, value in tensors.items())
        assert found.keys() == ({"D"} if beside else set())
        assert all(torch.equal(one.tensors["t0"], D.tensors["t0"]) for one in found.values())
    assert portable.description_of(file) == Description("stylegan3", tuple(names))
    assert run_folders.class_names(file) == tuple(names) and run_folders.newest_pickle(file.parent) == file


@pytest.mark.unit
@settings(deadline=None, max_examples=50)
@given(
    JSON | JSON.map(lambda other: {"class_name": "G", "init_kwargs": {}, "init_args": [], "buffers": [], "D": other})
)
def test_a_strange_description_is_read_or_refused_in_one_line(tmp_path_factory, strange):
    from safetensors.torch import save

    file = tmp_path_factory.mktemp("portable") / portable.FILE
    file.write_bytes(save({"x": torch.zeros(2), "D/x": torch.zeros(1)}, {portable.KEY: json.dumps(strange)}))
    try:
        read_pickle(file)
    except DataError as error:
        assert str(file) in error.message
    portable.description_of(file)


@pytest.mark.unit
@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=60), st.text(max_size=8))
def test_any_other_onnx_file_is_refused_in_one_line(tmp_path_factory, content, text):
    import onnx

    file = tmp_path_factory.mktemp("onnx") / "G_ema.onnx"
    graph = onnx.helper.make_graph([], "g", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {portable.KEY: text})
    for written in (content, model.SerializeToString()):
        file.write_bytes(written)
        with pytest.raises(DataError, match="is not an ONNX file of `stylegan-plugins export`"):
            onnx_networks.OnnxNetwork(file)


@pytest.mark.unit
def test_a_folder_with_onnx_alone_needs_no_host(tmp_path):
    (tmp_path / "G_ema.onnx").write_bytes(b"no network")
    assert run_folders.is_onnx(tmp_path) and run_folders.is_onnx(tmp_path / "G_ema.onnx")
    with pytest.raises(DataError, match="is not an ONNX file"):
        loading.load(tmp_path)
    (tmp_path / "network.pkl").write_bytes(b"")
    assert not run_folders.is_onnx(tmp_path)
