"""The disp plug-in: its discriminator, its start from pickles, runs, and images without the data set."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from drivers.states import differences
from support.hosts import ADA, STYLEGAN3
from support.images import color_crops, write_zip
from support.pickles import make_pickle
from support.runs import (
    LITE0,
    QUICK_TRAIN,
    TINY,
    arguments,
    killed_and_resumed,
    last_run,
    loop,
    options,
    run_to_its_end,
    snapshot,
    still,
)
from support.scripts import DRIVERS, invoke, run_script

import stylegan_plugins
from stylegan_plugins.analysis import sample
from stylegan_plugins.errors import DataError, OptionError, PluginError
from stylegan_plugins.files.pickles import read_pickle
from stylegan_plugins.manager import catalogue
from stylegan_plugins.plugins import disp as plugin
from stylegan_plugins.run import arguments as run_arguments
from stylegan_plugins.vision import priors


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Priors are computed once for all tests of this file."""
    before = os.environ.get("STYLEGAN_PLUGINS_CACHE")
    os.environ["STYLEGAN_PLUGINS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["STYLEGAN_PLUGINS_CACHE"]
    else:
        os.environ["STYLEGAN_PLUGINS_CACHE"] = before


@pytest.fixture(scope="module")
def crops(shared):
    """24 color crops of 16x16: the hosts' sheets of 1024 samples take their time."""
    return shared("disp-data", lambda top: write_zip(top / "crops.zip", color_crops(24, side=16))) / "crops.zip"


@pytest.fixture(scope="module")
def large_crops(tmp_path_factory):
    """The same of 32x32, for runs that start from a pickle of that size."""
    return write_zip(tmp_path_factory.mktemp("disp") / "large.zip", color_crops(24))


@pytest.fixture(scope="module")
def trained(shared, cache, ada_host, crops):
    """(arguments, run directory) of 32 iterations, with flips."""

    def fill(top: Path) -> None:
        args = options(ada_host, ADA, crops, top, "--plugin=disp,diffaugment", LITE0, "--mirror=1", "--device=cpu")
        args |= {"total_kimg": 32 * args["batch_size"] / 1000, "kimg_per_tick": 9, "state_minutes": 10.0}
        run_to_its_end(ada_host, args, top / "run")

    top = shared("disp-trained", fill)
    return json.loads((top / "run.json").read_text()), top / "run"


# The discriminator, and the start from a pickle. --------------------------------------------------


@pytest.mark.run
def test_the_discriminator_and_its_start(cache, fetched, ada_host, pickles, large_crops, tmp_path):
    args = arguments(ada_host, ADA, large_crops, tmp_path, "--plugin=disp", LITE0, f"--resume={pickles[ADA]}")
    output = run_to_its_end(ada_host, still(args), tmp_path / "run")
    assert "at random: mapping.embed.weight" in output and "mapping.fc0.weight" not in output
    snapshot = tmp_path / "run" / "network-snapshot-000000.pkl"
    done = run_script(fetched[ADA], str(DRIVERS / "disp_step.py"), str(pickles[ADA]), str(snapshot))
    truths = json.loads(done.stdout.splitlines()[-1])
    assert len(truths) == 10 and [name for name, holds in truths.items() if not holds] == []


@pytest.mark.run
def test_a_run_of_disp_starts_another_with_its_conditioning(ada_host, trained, crops, tmp_path):
    _, run_dir = trained
    source = max(run_dir.glob("network-snapshot-*.pkl"))
    args = arguments(
        ada_host, ADA, crops, tmp_path, "--plugin=disp,freezed", LITE0, "--freezed-layers=3", f"--resume={source}"
    )
    assert "tensors copied, 0 at random" in run_to_its_end(ada_host, still(args), tmp_path / "run")
    expected = read_pickle(source).network("G")
    found = read_pickle(tmp_path / "run" / "network-snapshot-000000.pkl").network("G")
    assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in expected.parameters)


# Runs. --------------------------------------------------------------------------------------------


@pytest.mark.run
def test_a_killed_run_ends_as_one_that_was_not_and_its_snapshot_is_stock(fetched, ada_host, trained, tmp_path):
    args, whole = trained
    killed = tmp_path / "killed"
    killed_and_resumed(ada_host, args, killed, 12 * args["batch_size"])
    assert differences(killed, whole) == []
    lines = [json.loads(line) for line in (whole / "stats.jsonl").read_text().splitlines()]
    for name in ("DISP/projection/real", "DISP/projection/generated", "Loss/signs/real", "Loss/G/loss"):
        values = [line[name]["mean"] for line in lines if line.get(name, {}).get("num")]
        assert len(set(values)) > 1 and all(math.isfinite(value) for value in values), name
    file = max(whole.glob("network-snapshot-*.pkl"))
    assert snapshot(fetched[ADA], file, "--stock")["finite"]
    recorded = read_pickle(file).data["training_set_kwargs"]
    assert recorded["class_name"] == "training.dataset.ImageFolderDataset"


@pytest.mark.run
def test_images_and_their_flips_have_priors_of_their_own(cache, ada_host, trained):
    args, _ = trained
    data = args["training_set_kwargs"]
    code = (
        "import json, sys; import numpy as np; from stylegan_plugins import bridge\n"
        "from stylegan_plugins.manager import recorded\nfrom stylegan_plugins.run import arguments\n"
        "import dnnlib\n"
        "args = json.loads(sys.argv[1]); args['run_dir'] = sys.argv[2]\n"
        "arguments.use_labels(args, recorded(args['plugins']))\n"
        "data = dnnlib.util.construct_class_by_name(**args['training_set_kwargs'])\n"
        "print(json.dumps([data.label_dim, len(data), np.stack([data.get_label(i) for i in (0, 5, 24, 29)]).tolist()]))"
    )
    out = run_script(ada_host, "-c", code, json.dumps(args), str(trained[1])).stdout
    width, count, labels = json.loads(out.splitlines()[-1])
    found = priors.load(trained[1] / "priors.npz")
    expected = (found.features - found.features.mean(axis=0)) / np.sqrt(
        np.square(found.features - found.features.mean(axis=0)).mean()
    )
    assert (width, count) == (1280, 48) and data["xflip"]
    np.testing.assert_allclose(labels[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(labels[1], expected[5], atol=1e-4)
    assert np.abs(np.array(labels[2]) - labels[0]).max() > 0.01  # image 0, flipped
    assert np.abs(np.array(labels[3]) - labels[1]).max() < np.abs(np.array(labels[3]) - labels[0]).max()


@pytest.mark.run
def test_two_processes_of_stylegan3_with_workers_have_the_priors(cache, stylegan3_host, crops, tmp_path):
    small = [flag for flag in TINY[STYLEGAN3] if not flag.startswith(("--gpus", "--workers"))]
    more = ["--plugin=disp,augself", LITE0, "--gpus=2", "--workers=1", "--device=cpu", "--batch=64"]
    run_script(stylegan3_host, QUICK_TRAIN, f"--data={crops}", f"--outdir={tmp_path}", *small, *more)
    run_dir = last_run(tmp_path)
    last = json.loads((run_dir / "stats.jsonl").read_text().splitlines()[-1])
    assert last["DISP/projection/real"]["num"] > 0 and math.isfinite(last["DISP/projection/real"]["mean"])
    assert read_pickle(max(run_dir.glob("*.pkl"))).network("G_ema").init_kwargs["c_dim"] == 1280


# Refusals. ----------------------------------------------------------------------------------------


def refused(args: dict, **options) -> None:
    plugins = catalogue().activate(["disp"], {"disp": options})
    run_arguments.use_labels({"plugins": plugins.record(), **args}, plugins)


@pytest.mark.unit
def test_labels_of_the_data_set_and_priors_exclude_each_other(crops):
    with pytest.raises(OptionError, match="--cond=1"):
        refused({"training_set_kwargs": {"path": str(crops), "use_labels": True}})


@pytest.mark.unit
def test_priors_of_other_images_are_refused(cache, crops, tmp_path):
    other = write_zip(tmp_path / "other.zip", color_crops(24, side=16, seed=3))
    file = priors.compute(str(other), "efficientnet_lite0", weights=None, flips=False, flag="--features")
    with pytest.raises(DataError, match="made from other images"):
        refused({"training_set_kwargs": {"path": str(crops), "use_labels": False}}, features=str(file))


@pytest.mark.host
def test_a_missing_backbone_is_one_line_before_anything_is_written(ada_host, crops, tmp_path):
    done = run_script(
        ada_host,
        "train.py",
        *[f"--data={crops}", f"--outdir={tmp_path}/runs", *TINY[ADA], "--plugin=disp", "--disp-features=resnet"],
        check=False,
    )
    assert done.returncode == 2 and "Error: --disp-features=resnet: neither a file nor a backbone" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.run
def test_a_data_set_that_changed_stops_a_resumed_run(ada_host, trained, crops, tmp_path):
    _, run_dir = trained
    moved = tmp_path / "run"
    shutil.copytree(run_dir, moved)
    options = (
        json.loads((moved / "training_options.json").read_text())
        if (moved / "training_options.json").exists()
        else None
    )
    assert options is not None
    changed = write_zip(tmp_path / "changed.zip", color_crops(24, side=16, seed=9))
    options["training_set_kwargs"]["path"] = str(changed)
    (moved / "training_options.json").write_text(json.dumps(options))
    done = run_script(ada_host, "train.py", f"--resume-run={moved}", "--kimg=2", check=False)
    assert done.returncode == 2 and "made from other images" in done.stderr, done.stderr[-2000:]


@pytest.mark.unit
def test_contrad_and_disp_are_told_apart():
    with pytest.raises(PluginError, match="disp and contrad cannot be active together"):
        catalogue().activate(["disp", "contrad"], {})


@pytest.mark.unit
def test_one_image_has_no_mixture():
    with pytest.raises(OptionError, match="--disp-sampling=mixture: one image"):
        plugin.way_of_sampling(plugin.DISPOptions(sampling="mixture"), 1)


@pytest.mark.host
def test_a_pickle_of_classes_is_not_conditioned_by_priors(cache, fetched, ada_host, large_crops, tmp_path):
    classes = make_pickle(fetched[ADA], tmp_path / "classes.pkl", c_dim=3)
    flags = [f"--data={large_crops}", f"--outdir={tmp_path}/runs", f"--resume={classes}", "--plugin=disp", LITE0]
    done = run_script(ada_host, "train.py", *flags, "--dry-run", check=False)
    assert done.returncode == 2 and "trained with labels of width 3, the labels of the plug-in have 1280" in done.stderr


@pytest.mark.run
def test_a_subset_is_all_that_samples_know_of(cache, ada_host, crops, tmp_path):
    """--subset keeps 10 of 24 images: scale and samples are of these."""
    args = options(ada_host, ADA, crops, tmp_path, "--plugin=disp", LITE0, "--subset=10", "--device=cpu")
    loop(ada_host, args, tmp_path / "run", 1)
    found = priors.load(tmp_path / "run" / "priors.npz")
    assert found.features.shape == (24, 1280) and found.of_the_run.shape == (10, 1280)
    assert len(set(found.used)) == 10


# Images without the data set. ---------------------------------------------------------------------


@pytest.mark.run
def test_samples_need_no_data_set_and_depend_on_their_seed_alone(ada_host, trained, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(trained[1], moved)
    for name, seeds in (("many", "0-3"), ("one", "2")):
        done = invoke(ada_host, "sample", str(moved), f"--seeds={seeds}", f"--outdir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
    pictures = [np.asarray(PIL.Image.open(tmp_path / "many" / f"seed{seed:04d}.png")) for seed in range(4)]
    assert pictures[0].shape == (16, 16, 3) and not np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[2], np.asarray(PIL.Image.open(tmp_path / "one" / "seed0002.png")))
    assert PIL.Image.open(tmp_path / "many" / "sheet.png").size == (192, 128)


@pytest.mark.run
def test_variants_of_a_picture_and_what_has_none(ada_host, trained, crops, tmp_path):
    PIL.Image.fromarray(color_crops(1, side=64)[0]).save(tmp_path / "one.png")
    done = invoke(
        ada_host, "sample", str(trained[1]), f"--like={tmp_path / 'one.png'}", "--seeds=0,1", f"--outdir={tmp_path}/out"
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("seed*.png"))) == 2
    for flags, message in (
        (["--like=nothing.png"], "--like: nothing.png cannot be read"),
        (["--class=1"], "--class=1"),
        (["--seeds=4-2"], "--seeds=4-2"),
    ):
        done = invoke(ada_host, "sample", str(trained[1]), *flags, f"--outdir={tmp_path}/none")
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.run
def test_a_walk_between_priors_keeps_z(ada_host, trained, tmp_path):
    crops = color_crops(2, side=64)
    for name, pixels in zip("ab", crops, strict=True):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    like = [f"--like={tmp_path / name}.png" for name in "ab"]
    short = ["--frames=3", "--columns=4", "--no-loop", "--trunc=1"]
    done = invoke(ada_host, "interpolate", str(trained[1]), *like, *short, "--seeds=5", f"--outdir={tmp_path}/walk")
    assert done.returncode == 0, done.stderr
    strip = np.asarray(PIL.Image.open(tmp_path / "walk" / "interpolation.png"))[
        :64:4, ::4
    ]  # enlarged; below: nearest ones
    frames = strip.reshape(16, 4, 16, 3).swapaxes(0, 1)
    for frame, name in ((frames[0], "a"), (frames[-1], "b")):  # the ends are the variants of the pictures
        given = [f"--like={tmp_path / name}.png", "--seeds=5", "--trunc=1", f"--outdir={tmp_path / name}"]
        assert invoke(ada_host, "sample", str(trained[1]), *given).returncode == 0
        assert np.array_equal(frame, np.asarray(PIL.Image.open(tmp_path / name / "seed0005.png")))
    G = stylegan_plugins.load(trained[1], host=ada_host, device="cpu")
    z = torch.from_numpy(np.random.RandomState(3).randn(1, G.z_dim))
    ends = [G.sampler.draw(G.network, np.random.RandomState([seed, 1])) for seed in (3, 4)]
    middle = G(z, torch.lerp(*ends, 0.5)[None], truncation=1)
    _, shown, _ = G.interpolate("3-4", frames=2, labels_only=True, truncation=1)
    assert np.array_equal(np.asarray(shown), ((middle[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).byte().numpy()))
    for flags, message in (([like[0]], "--like=.*: give it twice"), ([*like, "--class=1"], "--class=1: with --like")):
        done = invoke(ada_host, "interpolate", str(trained[1]), *flags, f"--outdir={tmp_path}/none")
        assert done.returncode == 2 and re.search(message, done.stderr) and not (tmp_path / "none").exists()


@pytest.mark.run
def test_metrics_judge_what_is_sampled(cache, ada_host, trained, crops):
    """calc_metrics.py has the run's sampler: our metrics, and the hosts' own by the labels that these draw."""
    code = """if True:
    import sys, numpy as np, torch
    from pathlib import Path
    from stylegan_plugins.run import host_metrics
    from stylegan_plugins.analysis import sample
    from stylegan_plugins.host.networks import load_network
    from metrics import metric_main
    import dnnlib
    run, data = Path(sys.argv[1]), sys.argv[2]
    G = load_network(next(run.glob("*.pkl")), "G_ema")
    host_metrics.register()
    host_metrics.begin(run, None)
    z = torch.ones([3, G.z_dim])

    @metric_main.register_metric
    def seen(opts):
        dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)
        c = torch.from_numpy(np.stack([dataset.get_label(np.random.randint(len(dataset))) for _ in range(3)]))
        w = opts.G.mapping(z, c)
        assert torch.equal(w, opts.G.mapping(z, c))  # a label is one draw, however often it is used
        sampler = sample.sampler_of(run)
        embedded = torch.stack([sampler.draw(G, np.random.RandomState([k, 0])) for k in range(3)])
        assert torch.equal(w, sample.map_embedded(G, z, embedded)) and not torch.equal(embedded[0], embedded[1])
        return dict(seen=1.0)

    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=data, use_labels=True)
    get_label = metric_main.metric_utils.dnnlib.util.get_obj_by_name(kwargs["class_name"]).get_label
    options = dict(G=G, dataset_kwargs=kwargs, num_gpus=1, rank=0, device=torch.device("cpu"))
    assert metric_main.calc_metric(metric="seen", **options)["results"]["seen"] == 1
    assert dnnlib.util.get_obj_by_name(kwargs["class_name"]).get_label is get_label
    """
    run_script(ada_host, "-c", code, str(trained[1]), str(crops))
    (snapshot,) = trained[1].glob("network-snapshot-*.pkl")
    kid = "kid_efficientnet_lite0"
    args = [f"--network={snapshot}", f"--metrics={kid}", "--metric-samples=12", "--device=cpu", "--mirror=0"]
    said = run_script(ada_host, "calc_metrics.py", *args).stdout
    assert f'"{kid}": ' in said


@pytest.mark.run
def test_plain_and_class_conditional_generators_are_sampled_too(ada_host, pickles, tmp_path):
    done = invoke(ada_host, "sample", str(pickles[ADA]), "--seeds=0", f"--outdir={tmp_path}")
    assert done.returncode == 0 and (tmp_path / "seed0000.png").exists(), done.stderr
    done = invoke(ada_host, "sample", str(pickles[ADA]), "--like=x.png", f"--outdir={tmp_path}")
    assert done.returncode == 2
    done = invoke(ada_host, "export", str(pickles[ADA]), f"--out={tmp_path / 'x.pkl'}")
    assert done.returncode == 2 and "not conditioned by a plug-in" in done.stderr
    assert not (tmp_path / "x.pkl").exists()


@pytest.mark.run
def test_an_exported_pickle_makes_the_same_images_with_the_stock_script(fetched, ada_host, trained, tmp_path):
    done = invoke(ada_host, "export", str(trained[1]), "--classes=3", f"--out={tmp_path / 'stock.pkl'}")
    assert done.returncode == 0, done.stderr
    invoke(ada_host, "sample", str(trained[1]), "--seeds=2", f"--outdir={tmp_path / 'ours'}")
    run_script(
        fetched[ADA],
        str(DRIVERS / "stock_script.py"),
        *[
            "generate.py",
            f"--network={tmp_path / 'stock.pkl'}",
            "--seeds=2",
            "--class=2",
            "--noise-mode=const",
            "--trunc=0.7",
        ],
        f"--outdir={tmp_path / 'theirs'}",
    )
    ours, theirs = (np.asarray(PIL.Image.open(tmp_path / n / "seed0002.png"), dtype=int) for n in ("ours", "theirs"))
    assert np.abs(ours - theirs).max() <= 1 and ours.std() > 1


@pytest.mark.run
def test_many_images_are_sampled_from_a_mixture_that_is_kept(ada_host, trained, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(trained[1], moved)
    options = json.loads((moved / "training_options.json").read_text())
    options["plugins"]["options"]["disp"] |= {"sampling": "mixture", "components": 3}
    (moved / "training_options.json").write_text(json.dumps(options))
    sheets = []
    for name in ("first", "second"):
        done = invoke(ada_host, "sample", str(moved), "--seeds=0-3", f"--outdir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        sheets.append((tmp_path / name / "sheet.png").read_bytes())
    (file,) = moved.glob("disp-mixture-*.npz")
    G = stylegan_plugins.load(moved, host=ada_host, device="cpu").network
    during = tmp_path / "during"  # a snapshot of training writes the same file
    during.mkdir()
    shutil.copy(moved / "priors.npz", during)
    chosen = plugin.DISPOptions(**options["plugins"]["options"]["disp"])
    session = types.SimpleNamespace(run_dir=during, G_ema=G, G=G, report=None, layer_shape=lambda layer: (8,))
    plugin.Method(session, chosen).snapshot()
    assert (during / file.name).read_bytes() == file.read_bytes()
    with np.load(file) as kept:
        assert kept["means"].shape[0] == 3 and kept["weights"].sum() == pytest.approx(1)
    assert sheets[0] == sheets[1]


@pytest.mark.unit
def test_way_of_sampling_goes_with_the_number_of_images(cache, tmp_path):
    for count, way in ((5, "mixup"), (plugin.MANY, "mixture")):
        priors.save(tmp_path / "priors.npz", priors.Priors(np.random.rand(count, 3), None, None, None))
        assert plugin.way_of_sampling(plugin.DISPOptions(), count) == way
        assert plugin.register_sampler(tmp_path, plugin.DISPOptions(features="none", sampling=way)).name == way
    sampler = plugin.register_sampler(tmp_path, plugin.DISPOptions(features="none", sampling="images"))
    assert sampler.name == "images"
    with pytest.raises(DataError, match="features of your own"):
        sampler.like(None, torch.zeros([1, 3, 8, 8]))


@pytest.mark.unit
def test_pictures_come_upright_on_white_and_damaged_ones_are_told(tmp_path):
    class G(torch.nn.Linear):
        img_channels, img_resolution = 3, 16

    sketch = np.zeros([40, 30, 4], dtype=np.uint8)  # black strokes on nothing
    sketch[10:20, :, 3] = 255
    PIL.Image.fromarray(sketch).save(tmp_path / "sketch.png")
    image = sample.read_image(tmp_path / "sketch.png", G(1, 1))
    assert image.shape == (1, 3, 16, 16) and image.max() == 1 and image.min() < -0.9
    turned = PIL.Image.fromarray(np.full([8, 16, 3], 255, dtype=np.uint8))
    turned.paste((0, 0, 0), (0, 0, 8, 8))
    exif = turned.getexif()
    exif[0x0112] = 6  # a camera that was held upright
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    upright = sample.read_image(tmp_path / "turned.jpg", G(1, 1))
    assert upright[0, 0, 0].mean() < 0 < upright[0, 0, -1].mean()  # left became top
    random = np.random.RandomState(0)
    good = (tmp_path / "sketch.png").read_bytes()
    for _ in range(200):
        broken = bytearray(good)
        for place in random.randint(8, len(good), size=3):
            broken[place] = random.randint(256)
        (tmp_path / "broken.png").write_bytes(broken)
        try:
            sample.read_image(tmp_path / "broken.png", G(1, 1))
        except DataError as error:
            assert "--like" in str(error) and "\n" not in str(error)


@pytest.mark.unit
@pytest.mark.parametrize("text, seeds", [("0-3", [0, 1, 2, 3]), ("7", [7]), ("1, 3-4", [1, 3, 4])])
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert sample.seeds_of(text) == seeds


@pytest.mark.unit
@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1,,2", "0-100000", "0-999999999"])
def test_what_is_no_seed_is_told(text):
    with pytest.raises(OptionError, match="--seeds"):
        sample.seeds_of(text)
