"""Run in a host's folder: self-cond in the test kit, with a data set of the host. Prints a JSON line: claim -> its
fault, empty if it holds."""

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, ".")
sys.path.insert(0, str(Path(__file__).parents[1]))
from support.images import color_crops, write_zip

from stylegan_plugins.analysis import sample
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.plugins import self_cond as plugin
from stylegan_plugins.testing import TinyRun, differences
from training_ext.labels import embed, use_labels
from training_ext.passes import read

torch.set_num_threads(1)
claims: dict[str, str] = {}
K = 3
GIVEN = {"self-cond": {"clusters": K, "kimg": 0.012, "layer": "b8", "images": 20}}


def claim(text, holds, what=""):
    claims[text] = "" if holds else what or "no"


def begun(path, folder):
    """Return a run in a folder, with flips, as a host begins it: the data set is there when plug-ins are attached."""
    os.chdir(folder)
    data = dict(path=str(path), use_labels=True, xflip=True, max_size=24)
    labels = plugin.register_labels(
        args={"training_set_kwargs": data, "run_dir": "."}, options=plugin.SelfCondOptions(**GIVEN["self-cond"])
    )
    cls = host_module("training.dataset").ImageFolderDataset
    use_labels(cls, str(path), labels)
    run = TinyRun("self-cond", GIVEN, labels=K, loss={"pl_weight": 0})
    run.session.dataset = cls(**data)
    run.method("self-cond").attached()
    return run, lambda: cls(**data)


with tempfile.TemporaryDirectory() as top:
    path = write_zip(Path(top, "data.zip"), color_crops(26, side=16))
    folders = [Path(top, name) for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    run, anew = begun(path, folders[0])
    method, session = run.method("self-cond"), run.session
    counts = lambda: [json.loads(line) for line in Path(plugin.LOG).read_text().splitlines()]
    M = len(session.dataset)
    claim("images are clustered before training", method.clusters is not None and M == 48)
    claim("counts are logged", sum(counts()[0]["counts"]) == M and counts()[0]["nimg"] == 0)

    # Features, and the nearest mean of each image.
    pixels = torch.from_numpy(np.stack([session.dataset[i][0] for i in range(M)])).float() / 127.5 - 1
    with torch.no_grad():
        features = read(run.D, ["b8"], pixels, torch.zeros([M, K]))[1]["b8"].flatten(1)
    alone = torch.from_numpy(method.features(np.arange(M)))
    claim("features are D's, of one image each", torch.allclose(features, alone, atol=1e-5))
    some = torch.from_numpy(method.features(np.arange(7)))  # not a whole number of groups of minibatch-stddev
    claim("any number of images has features", torch.allclose(features[:7], some, atol=1e-5))
    subset = torch.from_numpy(np.random.RandomState(0).permutation(M)[:20])
    means = torch.stack([features[subset][method.clusters[subset] == k].mean(0) for k in range(K)])
    nearest = torch.cdist(features.double(), means.double()).argmin(1)
    claim(
        "each image has the nearest cluster",
        torch.equal(nearest, method.clusters),
        str((nearest != method.clusters).sum()),
    )

    # Labels of the loop's real images, of its generated ones, and of a data set that is constructed again.
    session.drawn.extend([5, 0, 47, 30])
    placeholders = torch.eye(K)[[0, 0, 0, 0]]
    real = session.labels(placeholders)
    wanted = method.clusters[[5, 0, 47, 30]]
    claim(
        "real images have their clusters as labels",
        torch.equal(real.argmax(1), wanted) and bool((real.sum(1) == 1).all()),
    )
    session.drawn.clear()
    of_loop = np.stack([session.dataset.get_label(i) for i in range(M)])
    claim("generated images draw from them", torch.equal(torch.from_numpy(of_loop).argmax(1), method.clusters))
    other = anew()
    claim("a data set made anew has them", np.array_equal(np.stack([other.get_label(i) for i in range(M)]), of_loop))

    # Clustered again after 12 images, that is three iterations of four.
    session.drawn.extend(range(16))  # as the sampler of a loop does
    run.train(2)
    first = method.clusters.clone()
    claim("not before its time", len(counts()) == 1 and torch.equal(first, method.clusters))
    saved = run.state()
    run.train(2)
    claim("clustered again in time", [line["nimg"] for line in counts()] == [0, 12], str(counts()))
    kept = lambda names: int((torch.tensor(names)[method.clusters[subset]] == first[subset]).sum())
    best = max(map(kept, itertools.permutations(range(K))))
    claim("names are kept", kept(range(K)) == best, f"{kept(range(K))} {best}")

    # Resume: a folder whose log has the first clustering.
    Path(folders[1], plugin.LOG).write_text(Path(plugin.LOG).read_text().splitlines()[0] + "\n")
    resumed, _ = begun(path, folders[1])
    claim("a resumed run is not clustered anew", resumed.method("self-cond").clusters is None)
    resumed.load(saved)
    claim("it has its labels again", torch.equal(resumed.method("self-cond").clusters, first))
    resumed.session.drawn.extend(range(8, 16))
    resumed.train(2)
    wrong = differences(run.state()["networks"], resumed.state()["networks"])
    claim(
        "it resumes exactly",
        not wrong and torch.equal(method.clusters, resumed.method("self-cond").clusters),
        str(wrong),
    )
    claim("its log goes on", counts()[-1]["nimg"] == 12 and len(counts()) == 2)

    # Samples.
    sampler = plugin.register_sampler(run_dir=folders[1], options=plugin.SelfCondOptions(**GIVEN["self-cond"]))
    shares = np.array(counts()[-1]["counts"]) / M
    G = run.G_ema.eval()
    of_class = torch.cat([embed(G, np.eye(K, dtype=np.float32)[k : k + 1]) for k in range(K)])
    random = np.random.RandomState(12)
    drawn = torch.stack([sampler.draw(G, random) for _ in range(600)])
    found = np.bincount(torch.cdist(drawn, of_class).argmin(1), minlength=K) / 600
    claim("samples have the shares of clusters", bool((abs(found - shares) < 0.1).all()), f"{found} {shares}")
    asked = next(sample.latents(G, [1], sampler=sampler, label=2))
    plain = next(sample.latents(G, [1], sampler=None, label=2))
    claim("a cluster can be asked for", torch.equal(asked, plain))
print(json.dumps(claims))
