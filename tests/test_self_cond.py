"""Self-conditioned GAN: clusters that keep their names, the authors' numbers, labels in a host, and its sampler."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.scripts import report_of

from stylegan_plugins import DataError, OptionError
from stylegan_plugins.manager import catalogue
from stylegan_plugins.plugins import self_cond as plugin
from training_ext import self_cond

GOLDEN = Path(__file__).parent / "golden" / "self_cond.npz"


@pytest.mark.unit
def test_means_are_those_of_the_old_clusters_and_an_empty_one_starts_at_an_image():
    features = np.random.RandomState(0).randn(9, 4)
    old = np.array([0, 2, 2, 0, 3, 3, 3, 2, 0])
    means = self_cond.initial_means(features, old, 4, np.random.RandomState(1))
    for index in (0, 2, 3):
        np.testing.assert_allclose(means[index], sum(features[old == index]) / (old == index).sum(), rtol=1e-12)
    assert (means[1] == features).all(axis=1).any()


@pytest.mark.unit
def test_matching_keeps_the_names_of_as_many_images_as_any_permutation_does():
    random = np.random.RandomState(0)
    for _ in range(5):
        new, old = random.randint(4, size=(2, 30))
        names = self_cond.matching(new, old, 4)
        kept = lambda names, new=new, old=old: (np.asarray(names)[new] == old).sum()
        assert sorted(names) == [0, 1, 2, 3]
        assert kept(names) == max(map(kept, itertools.permutations(range(4))))


@pytest.mark.unit
def test_clusters_and_means_equal_the_authors_a12fc3a():
    golden = np.load(GOLDEN)
    random, old, k = np.random.RandomState(golden["seed"]), None, int(golden["k"])
    for call in range(3):
        features = golden[f"{call}/features"]
        if old is not None:
            means = self_cond.initial_means(features, old, k, random)
            # float32 features; sums in double precision in both.
            np.testing.assert_allclose(means, golden[f"{call}/means"], rtol=1e-6)
        found = self_cond.Clusters(features, k, old, 10, random)
        old = found(features)
        np.testing.assert_array_equal(old, golden[f"{call}/clusters"])
        np.testing.assert_array_equal(found(golden[f"{call}/others"]), golden[f"{call}/of_others"])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("message", "data"),
    [("--cond=1: with self-cond", {"use_labels": True}), ("--self-cond-clusters=5: there are 3", {"max_size": 3})],
)
def test_what_cannot_be_clustered_is_refused_and_placeholders_are_one_cluster(tmp_path, message, data):
    path = str(write_zip(tmp_path / "data.zip", color_crops(6, side=8)))
    options = plugin.SelfCondOptions(clusters=5)
    with pytest.raises(OptionError, match=f"^{message}"):
        plugin.register_labels(args={"training_set_kwargs": {"path": path, **data}}, options=options)
    labels = plugin.register_labels(args={"training_set_kwargs": {"path": path}}, options=options)
    assert labels.values.tolist() == [[1, 0, 0, 0, 0]] * 6 and labels.flipped is None


@pytest.mark.unit
def test_a_run_without_its_clusters_is_one_error(tmp_path):
    options = plugin.SelfCondOptions(clusters=3)
    for text in ("", "{", '{"counts": [1, 2]}', '{"counts": [0, 0, 0]}', '{"counts": "abc"}'):
        (tmp_path / plugin.LOG).write_text(text)
        with pytest.raises(DataError, match="cannot be read"):
            plugin.register_sampler(run_dir=tmp_path, options=options)
    (tmp_path / plugin.LOG).write_text(json.dumps({"nimg": 0, "counts": [1, 0, 3]}) + "\n")
    assert plugin.register_sampler(run_dir=tmp_path, options=options).classes


@pytest.mark.host
def test_in_a_host_images_get_their_clusters_and_keep_them_over_a_resume(fetched):
    claims = report_of(fetched[ADA], "self_cond_step.py")
    assert len(claims) > 8 and {claim: wrong for claim, wrong in claims.items() if wrong} == {}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "values", "needs"),
    [("self-cond", {}, "sklearn.cluster"), ("disp", {"sampling": "mixture"}, "sklearn.mixture")],
)
def test_what_draws_on_import_is_imported_at_set_up(monkeypatch, name, values, needs):
    """Its import draws one of Python's random numbers: in the loop, a resumed run would have another state."""
    module, imported = catalogue().load(name), []
    monkeypatch.setattr(module.importlib, "import_module", imported.append)
    monkeypatch.setattr(module, "Method", lambda *_: None)
    module.setup(session=None, options=catalogue().activate([name], {name: values}).options[name])
    assert imported == [needs]
