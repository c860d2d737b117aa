"""The hosts' scripts beside train.py run on a CPU, as a user runs them, in patched hosts.

The host's download cache already has the networks that they would download: a VGG16 and two Inception networks of a few
weights, with NVIDIA's interface."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, CHECKOUTS, STYLEGAN3, copy_host
from support.images import color_crops
from support.pickles import make_pickle, make_pickles
from support.scripts import run_many, run_script

from stylegan_plugins.errors import UserError
from stylegan_plugins.host import drawing
from stylegan_plugins.host import patch as host_patch

SIDE = 32
CDN = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"
NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/metrics"

PICKLE = """
import copy, pickle, sys
from stylegan_plugins.host import compat
compat.install()
import dnnlib
family, path, classes = sys.argv[1], sys.argv[2], int(sys.argv[3])
size = dict(channel_base=256, channel_max=16)
half = dict(num_fp16_res=2, conv_clamp=256)  # as hosts train on a GPU
image = dict(c_dim=classes, img_resolution=32, img_channels=3)
latent = dict(z_dim=64, w_dim=64, mapping_kwargs=dict(num_layers=2))
if family == "stylegan3":
    module, extra = "training.networks_stylegan2", {**size, **half}
else:
    module, extra = "training.networks", dict(synthesis_kwargs={**size, **half})
G = dnnlib.util.construct_class_by_name(class_name=f"{module}.Generator", **image, **latent, **extra)
D = dnnlib.util.construct_class_by_name(class_name=f"{module}.Discriminator", **image, **size)
G.eval().requires_grad_(False)
with open(path, "wb") as file:
    snapshot = dict(G=G, D=D, G_ema=copy.deepcopy(G), augment_pipe=None, training_set_kwargs=None)
    pickle.dump(snapshot, file)
"""

DETECTOR = """
import torch

class Detector(torch.nn.Module):
    # Means of color channels in a 2x2 grid: 12 features that differ between images.
    def forward(self, images, return_features=False):
        return torch.nn.functional.adaptive_avg_pool2d(images.to(torch.float32), 2).flatten(1)
"""


class Vgg(torch.nn.Module):
    """NVIDIA's vgg16.pt as projector.py calls it."""

    def forward(self, images: torch.Tensor, resize_images: bool = False, return_lpips: bool = False) -> torch.Tensor:
        assert images.shape[1] == 3  # as its first layer needs them
        return torch.nn.functional.adaptive_avg_pool2d(images / 255, 4).flatten(1)


class Inception(torch.nn.Module):
    """stylegan2-ada-pytorch's inception-2015-12-05.pt as the metrics call it."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.to(torch.float32), 2).flatten(1)


@dataclass
class Place:
    """A patched host, a tiny snapshot of it, and a folder for the output of scripts."""

    host: Path
    network: Path
    out: Path
    cache: Path

    def scripts(self, *commands: list[object]) -> list[tuple[int, str]]:
        """Run scripts one after the other. Returns exit codes and outputs."""
        return [self.script(*command) for command in commands]

    def script(self, *command: object) -> tuple[int, str]:
        environment = {"DNNLIB_CACHE_DIR": str(self.cache), "PYTHONPATH": str(self.cache), "MPLBACKEND": "Agg"}
        done = run_script(self.host, *map(str, command), check=False, **environment)
        return done.returncode, done.stdout + done.stderr

    def run(self, *commands: list[object]) -> list[str]:
        """Run scripts as `scripts` does; all must end well, and none may repeat a warning."""
        outputs = []
        for command, (code, output) in zip(commands, self.scripts(*commands), strict=True):
            assert code == 0, f"{command} ended with {code}:\n{output[-4000:]}"
            warned = Counter(re.findall(r"\w*Warning: .*", output))
            assert not [text for text, count in warned.items() if count > 1], output[-4000:]
            outputs.append(output)
        return outputs


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A download cache of dnnlib with everything that scripts would fetch."""
    top = tmp_path_factory.mktemp("cache")
    downloads = top / "downloads"
    downloads.mkdir()

    def path(url: str) -> str:
        return str(downloads / f"{hashlib.md5(url.encode()).hexdigest()}_{url.split('/')[-1]}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is on its way out; NVIDIA's files are in it
        torch.jit.script(Vgg()).save(path(f"{CDN}/vgg16.pt"))
        torch.jit.script(Inception()).save(path(f"{CDN}/inception-2015-12-05.pt"))
    (top / "stub_detector.py").write_text(DETECTOR)
    code = "import pickle, stub_detector, sys; pickle.dump(stub_detector.Detector(), open(sys.argv[1], 'wb'))"
    subprocess.run([sys.executable, "-c", code, path(f"{NGC}/inception-2015-12-05.pkl")], cwd=top, check=True)
    return top


def _place(family: str, origin: str, patched: dict, cache: Path, top: Path) -> Place:
    if origin == "assembled":
        host = patched[family]
    else:
        checkout = os.environ.get(CHECKOUTS[family])
        if not checkout:
            pytest.skip(f"{CHECKOUTS[family]} names no checkout of {family}")
        host = copy_host(Path(checkout), top / "host")
        host_patch.patch(host)
    place = Place(host, top / "network-snapshot-000000.pkl", top, cache)
    run_script(host, "-c", PICKLE, family, str(place.network), "0")
    return place


@pytest.fixture(scope="module", params=["assembled", "pristine"])
def ada(request, patched, cache, tmp_path_factory):
    return _place(ADA, request.param, patched, cache, tmp_path_factory.mktemp("ada"))


@pytest.fixture(scope="module", params=["assembled", "pristine"])
def stylegan3(request, patched, cache, tmp_path_factory):
    return _place(STYLEGAN3, request.param, patched, cache, tmp_path_factory.mktemp("stylegan3"))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of 20 PNGs of 48x40."""
    folder = tmp_path_factory.mktemp("photographs")
    for index, crop in enumerate(color_crops(20, side=48)):
        PIL.Image.fromarray(crop[:40]).save(folder / f"{index}.png")
    return folder


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: PIL.Image.open(path).size for path in sorted(folder.glob("*.png"))}


def zipped_images(path: Path) -> list[np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        return [np.asarray(PIL.Image.open(archive.open(name))) for name in names]


# --- stylegan2-ada-pytorch -------------------------------------------------------------------------------------------


@pytest.mark.run
def test_scripts_of_stylegan2_ada_run_on_a_cpu(ada, photographs):
    out, network = ada.out, f"--network={ada.network}"
    ada.run(
        ["generate.py", network, "--seeds=0-2", "--trunc=0.7", "--device=cpu", f"--outdir={out}/generated"],
        ["style_mixing.py", network, "--rows=1,2", "--cols=3", "--styles=0-2", f"--outdir={out}/mixed"],
        ["projector.py", network, f"--target={photographs}/0.png", "--num-steps=3", f"--outdir={out}/projected"],
        ["generate.py", network, f"--projected-w={out}/projected/projected_w.npz", f"--outdir={out}/again"],
        ["dataset_tool.py", f"--source={photographs}", f"--dest={out}/data.zip", "--width=32", "--height=32"],
        [
            *["dataset_tool.py", f"--source={photographs}", f"--dest={out}/data", "--width=32", "--height=32"],
            *["--transform=center-crop", "--resize-filter=box"],
        ],
    )
    assert sizes(out / "generated") == dict.fromkeys(["seed0000.png", "seed0001.png", "seed0002.png"], (SIDE, SIDE))
    mixed = sizes(out / "mixed")
    assert {"1-3.png", "2-3.png", "grid.png"} <= set(mixed)
    assert mixed["grid.png"] == (2 * SIDE, 3 * SIDE)
    assert sizes(out / "projected")["proj.png"] == (SIDE, SIDE)
    assert (out / "projected/proj.mp4").stat().st_size > 0
    assert sizes(out / "again") == {"proj00.png": (SIDE, SIDE)}
    images = zipped_images(out / "data.zip")
    assert len(images) == 20 and {image.shape for image in images} == {(SIDE, SIDE, 3)}
    assert len(list((out / "data").rglob("*.png"))) == 20


# --- stylegan3 -------------------------------------------------------------------------------------------------------


@pytest.mark.run
def test_scripts_of_stylegan3_run_on_a_cpu(stylegan3, photographs):
    out, network, source = stylegan3.out, f"--network={stylegan3.network}", f"--source={stylegan3.network}"
    outputs = stylegan3.run(
        ["gen_images.py", network, "--seeds=0,2-3", "--device=cpu", f"--outdir={out}/generated"],
        ["gen_video.py", network, "--seeds=0-3", "--grid=2x1", "--w-frames=2", f"--output={out}/video.mp4"],
        ["avg_spectra.py", "stats", source, "--num=3"],
        ["avg_spectra.py", "calc", source, "--num=3", "--mean=128", "--std=64", f"--dest={out}/spectrum.npz"],
        ["avg_spectra.py", "heatmap", f"{out}/spectrum.npz", f"--save={out}/heatmap.png"],
        ["avg_spectra.py", "slices", f"{out}/spectrum.npz", f"--save={out}/slices.png"],
        ["dataset_tool.py", f"--source={photographs}", f"--dest={out}/data.zip", "--resolution=32x32"],
    )
    assert sizes(out / "generated") == dict.fromkeys(["seed0000.png", "seed0002.png", "seed0003.png"], (SIDE, SIDE))
    assert (out / "video.mp4").stat().st_size > 0
    assert re.search(r"--mean=\d+.* --std=\d+", outputs[2])
    assert np.isfinite(np.load(out / "spectrum.npz")["spectrum"]).all()
    assert (out / "heatmap.png").is_file() and (out / "slices.png").is_file()
    images = zipped_images(out / "data.zip")
    assert len(images) == 20 and {image.shape for image in images} == {(SIDE, SIDE, 3)}


# --- both ------------------------------------------------------------------------------------------------------------


def _fid(place: Place, data: Path, top: Path) -> float:
    """Compute fid50k_full of 64 images, not 50,000, in this process, not in three workers that import torch again."""
    host = copy_host(place.host, top / "host")
    main, utils = host / "metrics/metric_main.py", host / "metrics/metric_utils.py"
    main.write_text(main.read_text().replace("num_gen=50000", "num_gen=64"))
    utils.write_text(re.sub(r"num_workers=\w+, prefetch_factor=\d+", "num_workers=0", utils.read_text()))
    command = ["calc_metrics.py", f"--network={place.network}", "--metrics=fid50k_full", f"--data={data}", "--mirror=0"]
    [output] = Place(host, place.network, top, place.cache).run([*command, "--device=cpu"])
    [result] = [json.loads(line) for line in output.splitlines() if line.startswith('{"results"')]
    return result["results"]["fid50k_full"]


@pytest.mark.run
def test_fid_of_stylegan2_ada_is_calculated_on_a_cpu(ada, color_zip, tmp_path):
    assert 0 < _fid(ada, color_zip, tmp_path) < np.inf


@pytest.mark.run
def test_fid_of_stylegan3_is_calculated_on_a_cpu(stylegan3, color_zip, tmp_path):
    assert 0 < _fid(stylegan3, color_zip, tmp_path) < np.inf


@pytest.mark.host
@pytest.mark.parametrize(
    "family, scripts",
    [
        (ADA, ["generate.py --seeds=0 --outdir=out", "calc_metrics.py"]),
        (STYLEGAN3, ["gen_images.py --seeds=0 --outdir=out", "calc_metrics.py"]),
    ],
)
def test_asking_for_cuda_without_a_gpu_is_one_line_and_exit_code_2(family, scripts, patched, cache, tmp_path):
    place = Place(patched[family], tmp_path / "none.pkl", tmp_path, cache)
    commands = [[*script.split(), f"--network={place.network}", "--device=cuda"] for script in scripts]
    if family == STYLEGAN3:  # its script has subcommands, whose functions have the device as a default argument
        commands.append(["avg_spectra.py", "stats", f"--source={place.network}", "--device=cuda"])
    for code, output in place.scripts(*commands):
        assert code == 2, output
        errors = [line for line in output.splitlines() if "Error" in line]
        assert len(errors) == 1 and errors[0].startswith("Error: --device=cuda: ")
        assert "--device=cpu" in errors[0] and "Traceback" not in output


@pytest.mark.host
def test_every_script_that_draws_has_a_device_option(patched):
    for family, scripts in {
        ADA: ["generate.py", "style_mixing.py", "projector.py", "calc_metrics.py"],
        STYLEGAN3: ["gen_images.py", "gen_video.py", "calc_metrics.py", "avg_spectra.py"],
    }.items():
        for script in scripts:
            source = (patched[family] / script).read_text()
            assert "bridge.device_option" in source, (family, script)


# --- Networks that are gray, or have classes; wrong values. ----------------------------------------------------------


@pytest.fixture(scope="session")
def gray_classes(shared, patched):
    """Pickles of gray networks with three classes, by family."""
    return make_pickles(shared, "gray_classes", patched, c_dim=3, img_channels=1)


def gray_pixels(file: Path) -> np.ndarray:
    image = PIL.Image.open(file)
    assert image.mode == "L" and image.size == (SIDE, SIDE)
    return np.asarray(image)


@pytest.mark.run
def test_scripts_of_stylegan2_ada_draw_gray_images_of_a_class(ada, gray_classes, cache, photographs, tmp_path):
    place = Place(ada.host, gray_classes[ADA], tmp_path, cache)
    network, out = f"--network={place.network}", tmp_path
    place.run(
        ["generate.py", network, "--seeds=1,3", "--class=2", f"--outdir={out}/generated"],
        ["generate.py", network, "--seeds=1", "--class=0", f"--outdir={out}/other"],
        ["style_mixing.py", network, "--rows=1", "--cols=3", "--class=2", "--styles=0-2", f"--outdir={out}/mixed"],
        [
            *["projector.py", network, f"--target={photographs}/0.png", "--num-steps=2", "--class=2"],
            f"--outdir={out}/projected",
        ],
        ["generate.py", network, f"--projected-w={out}/projected/projected_w.npz", f"--outdir={out}/again"],
    )
    drawn = gray_pixels(out / "generated/seed0001.png")
    assert not np.array_equal(drawn, gray_pixels(out / "other/seed0001.png"))
    assert np.array_equal(drawn, gray_pixels(out / "mixed/1-1.png"))  # the class reached G's mapping network
    target, found = (np.asarray(PIL.Image.open(out / "projected" / name)) for name in ("target.png", "proj.png"))
    assert target.shape == found.shape == (SIDE, SIDE, 3)
    assert (target == target[:, :, :1]).all() and (found == found[:, :, :1]).all()
    assert np.abs(found[:, :, 0] - gray_pixels(out / "again/proj00.png").astype(int)).max() <= 1
    assert (out / "projected/proj.mp4").stat().st_size > 0


@pytest.mark.run
def test_scripts_of_stylegan3_draw_gray_images_of_a_class(stylegan3, gray_classes, cache, tmp_path):
    place = Place(stylegan3.host, gray_classes[STYLEGAN3], tmp_path, cache)
    network, out = f"--network={place.network}", tmp_path
    place.run(
        ["gen_images.py", network, "--seeds=1", "--class=2", f"--outdir={out}/generated"],
        ["gen_images.py", network, "--seeds=1", "--class=0", f"--outdir={out}/other"],
        ["gen_video.py", network, "--seeds=0-3", "--grid=2x1", "--w-frames=2", "--class=1", f"--output={out}/v.mp4"],
        ["avg_spectra.py", "stats", f"--source={place.network}", "--num=2"],
    )
    assert not np.array_equal(gray_pixels(out / "generated/seed0001.png"), gray_pixels(out / "other/seed0001.png"))
    assert (out / "v.mp4").stat().st_size > 0


DRAW = {  # how each script is asked for the least
    "generate.py": ["--seeds=0", "--class=0", "--outdir={out}"],
    "style_mixing.py": ["--rows=0", "--cols=1", "--styles=0", "--class=0", "--outdir={out}"],
    "projector.py": ["--target={photograph}", "--num-steps=1", "--class=0", "--outdir={out}"],
    "gen_images.py": ["--seeds=0", "--class=0", "--outdir={out}"],
    "gen_video.py": ["--seeds=0-3", "--class=0", "--output={out}.mp4"],
    "calc_metrics.py": ["--metrics=fid50k", "--data={good}"],
    "avg_spectra.py": [],
}
OF_ALL = {
    "no class": (["--class"], "--class: this network has 3 classes; give one of 0 to 2."),
    "a class too many": (["--class=7"], "--class=7: this network has 3 classes; give one of 0 to 2."),
    "a negative class": (["--class=-1"], "--class=-1: this network has 3 classes"),
    "no network": (["--network={top}/none.pkl"], "--network: {top}/none.pkl is not there."),
    "a folder": (["--network={top}"], "--network: {top} is a folder; give a file in it."),
    "no pickle": (["--network={photograph}"], "Error: {photograph} "),
    "a cut-off pickle": (["--network={top}/half.pkl"], "half.pkl is truncated, damaged, or no network"),
}
WITH_SEEDS = {
    "an empty range": (["--seeds=3-1"], "--seeds: the range is empty, so nothing would be drawn."),
    "a negative seed": (["--seeds=-4"], "--seeds: seeds are 0 to 4294967295, not -4."),
    "a large seed": (["--seeds=4294967296"], "--seeds: seeds are 0 to 4294967295, not 4294967296."),
}
TO_FOLDER = {
    "a file for a folder": (["--outdir={photograph}"], "--outdir: {photograph} is a file; give a folder."),
    "truncation of nan": (["--trunc=nan"], "--trunc=nan: expected a finite number."),
}
OF_SCRIPT = {
    "generate.py": {
        **OF_ALL,
        **WITH_SEEDS,
        **TO_FOLDER,
        "w that is a picture": (["--projected-w={photograph}", "--seeds"], "holds no w as projector.py writes it"),
        "w of another network": (["--projected-w={top}/w.npz", "--seeds"], "w.npz has w of shape [1, 2, 3], this"),
        "w of nothing": (["--projected-w={top}/w0.npz", "--seeds"], "w0.npz has w of shape [0, 8, 64], this"),
        "no name": (["--outdir="], "--outdir: nothing is given."),
        "no w": (["--projected-w={top}/no.npz", "--seeds"], "--projected-w: {top}/no.npz is not there."),
    },
    "style_mixing.py": {
        **OF_ALL,
        **TO_FOLDER,
        "rows": (["--rows=-1"], "--rows: seeds are 0 to 4294967295, not -1."),
        "cols": (["--cols=2-1"], "--cols: the range is empty"),
        "a layer too many": (["--styles=0-99"], "--styles: 8 is not a layer of this network. Its layers are 0 to 7."),
    },
    "projector.py": {
        **OF_ALL,
        "a file for a folder": TO_FOLDER["a file for a folder"],
        "no target": (["--target={top}/none.png"], "--target: {top}/none.png cannot be read as an image (No such"),
        "a target that is no picture": (["--target={top}/half.pkl"], "half.pkl cannot be read as an image (cannot"),
        "no steps": (["--num-steps=0"], "--num-steps=0: must be 1 or more."),
        "a negative seed": (["--seed=-1"], "--seed: seeds are 0 to 4294967295, not -1."),
    },
    "gen_images.py": {
        **OF_ALL,
        **WITH_SEEDS,
        **TO_FOLDER,
        "translation": (["--translate=0,inf"], "--translate=inf: expected a finite number."),
        "rotation": (["--rotate=nan"], "--rotate=nan: expected a finite number."),
    },
    "gen_video.py": {
        **OF_ALL,
        **WITH_SEEDS,
        "truncation of nan": TO_FOLDER["truncation of nan"],
        "too few seeds": (["--grid=3x1"], "--grid=3x1: 4 seeds cannot be shared among 3 places."),
        "an empty grid": (["--grid=0x1"], "--grid=0x1: must be 1 or more each."),
        "no frames": (["--w-frames=0"], "--w-frames=0: must be 1 or more."),
        "no video": (["--output={top}/video.txt"], "video.txt: give a name that ends in .mp4."),
        "nowhere": (["--output={top}/none/v.mp4"], "v.mp4 cannot be written. Give a file in a folder that is there."),
    },
    "calc_metrics.py": {
        "no data": (["--data={top}/none.zip"], "--data: {top}/none.zip does not exist."),
        "no pickle": OF_ALL["no pickle"],
    },
    "avg_spectra.py": {
        "no source": (["stats", "--source={top}/none.pkl", "--num=1"], "--source: {top}/none.pkl is not there."),
        "half a source": (["stats", "--source={top}/half.pkl", "--num=1"], "half.pkl is truncated, damaged, or no"),
        "no spectrum": (["heatmap", "{top}/none.npz"], "none.npz is not there."),
    },
}


def with_changes(command: list[str], changes: list[str]) -> list[str]:
    """Return a command with some of its options in other values, or left out where a change has none."""
    names = {change.split("=")[0] for change in changes}
    return [option for option in command if option.split("=")[0] not in names] + [
        change for change in changes if "=" in change or not change.startswith("--")
    ]


@pytest.mark.host
@pytest.mark.parametrize("script", OF_SCRIPT)
def test_a_wrong_value_of_a_script_is_one_line_and_exit_code_2(
    script, patched, gray_classes, photographs, gray_zip, cache, tmp_path
):
    family = STYLEGAN3 if script in ("gen_images.py", "gen_video.py", "avg_spectra.py") else ADA
    (tmp_path / "half.pkl").write_bytes(gray_classes[family].read_bytes()[:5000])
    np.savez(tmp_path / "w.npz", w=np.zeros([1, 2, 3], np.float32))
    np.savez(tmp_path / "w0.npz", w=np.zeros([0, 8, 64], np.float32))
    names = {"top": tmp_path, "out": tmp_path / "out", "photograph": photographs / "0.png", "good": gray_zip}
    network = [] if script == "avg_spectra.py" else [f"--network={gray_classes[family]}"]
    cases = OF_SCRIPT[script]
    runs = [
        [option.format(**names) for option in with_changes([*network, *DRAW[script]], changes)]
        for changes, _ in cases.values()
    ]
    results = run_many(patched[family], runs, script, DNNLIB_CACHE_DIR=str(cache), MPLBACKEND="Agg")
    for (name, (_, message)), result in zip(cases.items(), results, strict=True):
        told = [line for line in result["stderr"].splitlines() if line.startswith("Error: ")]
        assert result["code"] == 2 and len(told) == 1, f"{name}: {result}"
        assert message.format(**names) in told[0] and "Traceback" not in result["stderr"], f"{name}: {result}"
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.*"))


@pytest.mark.host
def test_a_class_of_a_network_without_classes_is_refused_by_the_option_that_we_add(patched, pickles, tmp_path):
    args = [f"--network={pickles[ADA]}", "--rows=0", "--cols=1", "--class=0", f"--outdir={tmp_path}"]
    [result] = run_many(patched[ADA], [args], "style_mixing.py")
    assert result["code"] == 2
    assert "Error: --class=0: this network has no classes. Leave it out.\n" in result["stderr"]


@pytest.mark.host
def test_a_network_with_features_in_the_place_of_classes_is_for_our_own_command(patched, tmp_path):
    network = make_pickle(patched[ADA], tmp_path / "network-snapshot-000000.pkl", c_dim=3)
    (tmp_path / "training_options.json").write_text(json.dumps({"plugins": {"active": ["disp"]}}))
    args = [f"--network={network}", "--seeds=0", "--class=0", f"--outdir={tmp_path}/out"]
    [result] = run_many(patched[ADA], [args], "generate.py")
    assert result["code"] == 2
    assert "has features of images in the place of classes" in result["stderr"]
    assert "Use: stylegan-plugins sample." in result["stderr"]


@pytest.mark.unit
def test_what_computes_nothing_says_so(capsys):
    command = click.Command("calc", params=[click.Option(["--metrics"])])
    drawing.check_options(command, {"metrics": []})
    assert capsys.readouterr().err == "--metrics: no metric is named, so none is computed.\n"


@pytest.mark.unit
@pytest.mark.parametrize("loads", [True, False])
def test_class_is_an_option_of_scripts_whose_network_we_load_alone(loads):
    namespace = {"bridge": drawing}
    exec(f"def draw(network_pkl): {'bridge.load_networks(None, None)' if loads else 'pass'}", namespace)
    command = click.Command("draw", params=[click.Option(["--network", "network_pkl"])], callback=namespace["draw"])
    assert drawing.takes_class(command) == loads
    command.params.append(click.Option(["--class", "class_idx"]))
    assert not drawing.takes_class(command)


NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.none())
VALUES = st.fixed_dictionaries(
    {
        "seeds": st.one_of(st.none(), st.lists(st.integers(-(2**40), 2**40), max_size=5)),
        "seed": NUMBERS,
        "truncation_psi": NUMBERS,
        "translate": st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS)),
        "num_steps": NUMBERS,
        "grid": st.one_of(st.none(), st.tuples(st.integers(0, 2**40), st.integers(0, 9))),
        "network_pkl": st.text(max_size=20),
        "projected_w": st.one_of(st.none(), st.text(max_size=20)),
        "output": st.one_of(st.none(), st.text(max_size=20)),
        "target_fname": st.one_of(st.none(), st.text(max_size=20)),
    }
)


@pytest.mark.unit
@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_whatever_values_a_script_is_given_they_are_taken_or_refused_in_one_line(values):
    command = click.Command("draw", params=[click.Option([f"--{name.replace('_', '-')}", name]) for name in values])
    try:
        drawing.check_options(command, values)
    except UserError as error:
        assert "\n" not in error.format_message()
    else:
        assert all(0 <= seed < 2**32 for seed in values["seeds"] or [])
