"""Probes of a discriminator: a logistic regression on its frozen features, or a linear evaluation.

Hou et al. 2023 (arXiv:2205.15677) compare discriminators by the accuracy of a logistic regression that predicts the
class of an image from D's features. Without classes, the regression predicts the augmentation: for each component of
omega, whether it is above 1/2. Its input is the change that T makes in the features, phi(T(x; omega)) - phi(x), which
AugSelf's head also reads.

Images are split into training and test images, several times. The same is done with a discriminator of the same
architecture with random weights: the comparison shows how much of the accuracy is due to training.

Jeong and Shin 2021 (arXiv:2103.09742) evaluate an encoder by a linear classifier that SGD trains on crops and flips:
training_ext.linear_evaluation."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from stylegan_plugins.analysis import markdown
from stylegan_plugins.errors import DataError, HostError, require
from stylegan_plugins.files import run_folders
from stylegan_plugins.files.atomic import write_json
from stylegan_plugins.host import find
from stylegan_plugins.host.networks import load_network
from stylegan_plugins.manager import without_D
from stylegan_plugins.vision.extractors import extract
from training_ext import linear_evaluation
from training_ext.diagnostics import full_batches
from training_ext.diffaugment import GROUPS, DiffAugment
from training_ext.linear_evaluation import Encoder, Protocol, in_groups
from training_ext.passes import minibatch_std_group, read
from training_ext.spectral_norm import fold

TEST_SHARE = 0.25
SPLITS = 5
BATCH = 32
MEMORY = 2 << 30  # bytes of images held at once
PAIRS = 1000  # with fewer images, several omega are drawn for each
# D's last layers: the flattened output of the last convolution, and the output of the last hidden layer.
LAYERS = {"conv": "b4.conv", "fc": "b4.fc"}
Images = Callable[[torch.Tensor], torch.Tensor]  # from indices [n] to images [n, C, H, W] in [-1, 1]
LayerFeatures = dict[str, np.ndarray]  # [M, F] by layer of D


@dataclass
class LayerAccuracy:
    """Accuracy on test images, for one layer and one question: mean and standard deviation over splits, in [0, 1]."""

    question: str
    layer: str
    width: int
    accuracy: float
    deviation: float
    untrained: float | None  # None: not measured
    chance: float


@dataclass
class LabelledImages:
    """A data set: images [M, C, H, W] uint8, classes [M] or None, labels for a conditional D [M, c_dim]."""

    images: torch.Tensor
    classes: np.ndarray | None
    labels: torch.Tensor

    def clean(self, index: torch.Tensor) -> torch.Tensor:
        """Return images [n, C, H, W] in [-1, 1]."""
        return self.images[index].float() / 127.5 - 1

    def some(self, index: np.ndarray) -> LabelledImages:
        """Return the data set of the images with these indices."""
        classes = None if self.classes is None else self.classes[index]
        return LabelledImages(self.images[index], classes, self.labels[index])


def load_images(path: str, dataset: Any, D: Any, max_images: int, flag: str = "--data") -> LabelledImages:
    """Read images of a data set in random order: a minibatch-stddev group of one class would reveal the class.

    Raises DataError, naming the flag, if the images do not fit D."""
    if dataset.image_shape != [D.img_channels, D.img_resolution, D.img_resolution]:
        raise DataError(
            f"{flag}: images in {path} are {dataset.image_shape}, the discriminator takes "
            f"{[D.img_channels, D.img_resolution, D.img_resolution]} (channels, height, width)."
        )
    most = max(MEMORY // math.prod(dataset.image_shape), 256)
    if len(dataset) > min(max_images, most):
        click.echo(f"Probing with {min(max_images, most)} of {len(dataset)} images.", err=True)
    order = np.random.RandomState(0).permutation(len(dataset))[: min(max_images, most)]
    with click.progressbar(order, label="Reading images", file=sys.stderr) as bar:
        images = torch.from_numpy(np.stack([dataset[int(index)][0] for index in bar]))
    labels = np.stack([dataset.get_label(int(index)) for index in order])
    one_hot = labels.shape[1] > 0 and ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()
    classes = labels.argmax(axis=1) if one_hot else None
    given = torch.from_numpy(labels) if labels.shape[1] == D.c_dim else torch.zeros([len(images), D.c_dim])
    return LabelledImages(images, classes, given)


def features_of(D: torch.nn.Module, images: Images, labels: torch.Tensor) -> LayerFeatures:
    """Return features of as many images as there are labels [M, c_dim]. Blocks of D are averaged over their pixels; of
    the last block, LAYERS are read.

    D sees only full groups of minibatch standard deviation."""
    device = next(D.parameters()).device
    blocks = [name for name, _ in D.named_children() if re.fullmatch(r"b\d+", name) and name != "b4"]
    names = {**{name: name for name in blocks}, **LAYERS}

    def layers_of(index: torch.Tensor) -> dict[str, torch.Tensor]:
        _, found = read(D, names.values(), images(index).to(device), labels[index].to(device))
        pooled = lambda layer, value: value.flatten(1) if layer in LAYERS else value.mean(dim=[2, 3])
        return {layer: pooled(layer, found[name]) for layer, name in names.items()}

    batches = full_batches(len(labels), math.lcm(BATCH, minibatch_std_group(D) or 1))
    return {layer: values[: len(labels)] for layer, values in extract(layers_of, batches, len(labels)).items()}


def probe_classes(nets: dict[str, torch.nn.Module], data: LabelledImages) -> list[LayerAccuracy]:
    """Predict the class of an image from its features, without augmentation. Both parts of a split have all classes.

    Raises DataError if there are no classes, or too few images of one."""
    classes = classes_of(data, "--task=classes")
    splits = class_splits(classes, "--task=classes")
    features = {name: features_of(D, data.clean, data.labels) for name, D in nets.items()}
    return list(_rows("classes", features, classes, splits))


def classes_of(data: LabelledImages, flag: str) -> np.ndarray:
    """Return the classes of images, [M]. Raises DataError, naming the flag, if there are none."""
    if data.classes is None:
        raise DataError(f"{flag}: the data set has no classes. Use --task=omega, or add a dataset.json.")
    return data.classes


def class_splits(classes: np.ndarray, flag: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return indices of training and test images for each split. Both parts have all classes. Raises DataError for too
    few classes, or too few images of one."""
    from sklearn.model_selection import StratifiedShuffleSplit

    names, counts = np.unique(classes, return_counts=True)
    if len(names) < 2 or counts.min() < 4:
        raise DataError(
            f"{flag} needs two classes or more, of four images or more; there are {len(names)}, the smallest of "
            f"{counts.min()}. Use --task=omega."
        )
    share = max(TEST_SHARE, len(names) / len(classes))
    return list(StratifiedShuffleSplit(SPLITS, test_size=share, random_state=0).split(classes, classes))


def encoder_of(D: torch.nn.Module) -> Encoder:
    """Return D's encoder: images [n, C, H, W] in [-1, 1] on D's device -> flattened output of the last convolution,
    [n, F], which does not depend on labels. Minibatch-stddev groups are whole, and of images of one call."""

    def encode(images: torch.Tensor) -> torch.Tensor:
        labels = images.new_zeros([len(images), int(D.c_dim)])  # type: ignore[arg-type]
        return read(D, [LAYERS["conv"]], images, labels)[1][LAYERS["conv"]].flatten(1)

    return in_groups(encode, minibatch_std_group(D), BATCH)


def linear_classifier(D: torch.nn.Module, data: LabelledImages, protocol: Protocol, seed: int) -> torch.nn.Linear:
    """Return a linear classifier of the features of D's last convolution, trained on all images. The same seed gives
    the same classifier. Random numbers stay as they are. Raises DataError if there are no classes."""
    targets = torch.from_numpy(classes_of(data, "--protocol=linear"))
    device = next(D.parameters()).device
    images = lambda index: data.clean(index).to(device)

    def shown(epochs: range) -> Iterator[int]:
        with click.progressbar(epochs, label=f"Linear classifier {seed + 1}", file=sys.stderr) as bar:
            yield from bar

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return linear_evaluation.fit(encoder_of(D), images, targets, protocol, shown)


def probe_linear(
    D: torch.nn.Module, train: LabelledImages, test: LabelledImages, protocol: Protocol, runs: int
) -> list[LayerAccuracy]:
    """Return the accuracy of a linear classifier on test images, over `runs` trainings with other starts, orders and
    views.

    Raises DataError if there are no classes, or the test images have a class that the training images lack."""
    of_train, of_test = (classes_of(data, "--protocol=linear") for data in (train, test))
    if missing := sorted(map(int, set(of_test.tolist()) - set(of_train.tolist()))):
        raise DataError(f"--test-data: there are images of class {missing[0]}, of which --data has none.")
    images = lambda index: test.clean(index).to(next(D.parameters()).device)
    found, width = [], 0
    for seed in range(runs):
        classifier = linear_classifier(D, train, protocol, seed)
        width = classifier.in_features
        found.append(linear_evaluation.accuracy(classifier, encoder_of(D), images, torch.from_numpy(of_test)))
    chance = np.bincount(of_test).max() / len(of_test)
    return [LayerAccuracy("classes", "conv", width, float(np.mean(found)), float(np.std(found)), None, float(chance))]


def train_and_test(
    data: LabelledImages, D: Any, test_data: str | None, pickle: Path, max_images: int
) -> tuple[LabelledImages, LabelledImages]:
    """Return training and test images: all of the data, and `test_data`. Without `test_data` a quarter of the data is
    held out."""
    if test_data is not None:
        path, dataset = find.open_dataset(test_data, pickle)
        return data, load_images(path, dataset, D, max_images, "--test-data")
    train, test = class_splits(classes_of(data, "--protocol=linear"), "--protocol=linear")[0]
    return data.some(train), data.some(test)


def probe_omega(nets: dict[str, torch.nn.Module], data: LabelledImages) -> list[LayerAccuracy]:
    """Predict whether each component of omega is above 1/2, from the difference of features.

    Training and test part have different photographs, not different draws of the same photographs."""
    from sklearn.model_selection import GroupShuffleSplit

    if len(data.images) < 8:
        raise DataError(f"--task=omega needs 8 images or more; there are {len(data.images)}.")
    draws = max(1, PAIRS // len(data.images))
    owner = np.tile(np.arange(len(data.images)), draws)
    augment = DiffAugment(tuple(GROUPS))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        drawn = [augment.sample(len(data.images), *data.images.shape[2:]) for _ in range(draws)]
    omega = {group: torch.cat([draw[group] for draw in drawn]).numpy() for group in drawn[0]}

    def changed(draw: dict[str, torch.Tensor]) -> Images:
        return lambda index: augment.apply(data.clean(index), {group: value[index] for group, value in draw.items()})

    features = {}
    for name, D in nets.items():
        still = features_of(D, data.clean, data.labels)
        with click.progressbar(drawn, label=f"Features of the {name} D", file=sys.stderr) as bar:
            moved = [features_of(D, changed(draw), data.labels) for draw in bar]
        features[name] = {
            layer: np.concatenate([part[layer] for part in moved]) - np.tile(still[layer], (draws, 1))
            for layer in still
        }
    splits = list(GroupShuffleSplit(SPLITS, test_size=TEST_SHARE, random_state=0).split(owner, groups=owner))
    rows = []
    for group, values in omega.items():
        components = []
        for component in values.T:
            decided = component != 0.5  # the middle of a translation is neither above nor below
            kept = [(train[decided[train]], test[decided[test]]) for train, test in splits]
            components.append(list(_rows(group, features, component > 0.5, kept)))
        rows += [_mean(list(parts)) for parts in zip(*components, strict=True)]
    return rows


def _rows(
    question: str, features: dict[str, LayerFeatures], target: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]
) -> Iterator[LayerAccuracy]:
    common = [np.bincount(target[test].astype(int)).max() / len(test) for _, test in splits]
    for layer in next(iter(features.values())):
        scores = {name: accuracies(values[layer], target, splits) for name, values in features.items()}
        trained, untrained = scores["trained"], scores["untrained"]
        figures = map(float, (np.mean(trained), np.std(trained), np.mean(untrained), np.mean(common)))
        yield LayerAccuracy(question, layer, features["trained"][layer].shape[1], *figures)


def accuracies(values: np.ndarray, target: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return for each split the share of test items that a logistic regression classifies correctly. values [M, F],
    target [M].

    Features are scaled to unit variance on the training part. Everything else is scikit-learn's default, as in the
    authors' evaluation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return cross_val_score(model, values, target, cv=splits, error_score="raise").tolist()


def _mean(rows: list[LayerAccuracy]) -> LayerAccuracy:
    """Average the rows of all components of a group."""
    mean = lambda name: float(np.mean([getattr(row, name) for row in rows]))
    means: dict[str, Any] = {name: mean(name) for name in ("accuracy", "deviation", "untrained", "chance")}
    return dataclasses.replace(rows[0], **means)


def untrained_copy(D: Any) -> torch.nn.Module:
    """Return a network of the same architecture with random weights, the same ones each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return type(D)(*D.init_args, **D.init_kwargs).eval().requires_grad_(False)


def plot(rows: list[LayerAccuracy], path: Path, title: str) -> None:
    """Plot accuracy by layer, with a panel for each question."""
    from matplotlib.figure import Figure

    questions = list(dict.fromkeys(row.question for row in rows))
    figure = Figure(figsize=(3.6 * len(questions) + 1.6, 3.4), layout="constrained")
    for axes, question in zip(figure.subplots(1, len(questions), squeeze=False)[0], questions, strict=True):
        shown = [row for row in rows if row.question == question]
        layers = [row.layer for row in shown]
        axes.errorbar(
            layers, [row.accuracy for row in shown], [row.deviation for row in shown], marker="o", label="trained D"
        )
        untrained = [row.untrained for row in shown]
        if None not in untrained:
            axes.plot(layers, untrained, marker="s", linestyle="--", label="untrained D")
        axes.axhline(shown[0].chance, color="0.6", linestyle=":", label="chance")
        axes.set(title=question, ylim=(0, 1.02), xlabel="layer of D")
        axes.grid(axis="y", color="0.9")
    figure.axes[0].set_ylabel("accuracy on test images")
    figure.axes[-1].legend(loc="lower right", frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def trained_discriminator(pickle: Path) -> Any:
    """Return D of a network snapshot with the weights of its training: its run may have normalised them.

    Raises DataError if the run did not train D."""
    if plugin := without_D(run_folders.read_options(pickle.parent)):
        raise DataError(
            f"{pickle}: its run did not train the host's D, which has random weights or the weights of --resume: "
            f"--plugin={plugin} trains without it. Probe another run."
        )
    D = load_network(pickle, "D")
    loss = (run_folders.read_options(pickle.parent) or {}).get("loss_kwargs")
    return fold(D) if isinstance(loss, dict) and loss.get("d_spectral_norm") else D


def run(
    pickle: Path,
    data: str | None,
    task: str,
    outdir: Path | None,
    max_images: int,
    device: torch.device,
    linear: Protocol | None = None,
    runs: int = 1,
    test_data: str | None = None,
) -> str:
    """Probe D of a pickle. Write a plot, and the figures as JSON, beside the pickle or to `outdir`. Return the table.

    linear, runs, test_data: options of the linear evaluation, which replaces the logistic regression; linear=None:
    logistic regression"""
    require("sklearn")
    require("matplotlib")
    path, dataset = find.open_dataset(data, pickle)
    D = trained_discriminator(pickle).to(device)
    if not set(LAYERS.values()) <= {name for name, _ in D.named_modules()}:
        raise HostError(f"{pickle}: D has no b4.conv and b4.fc, which are probed.")
    images = load_images(path, dataset, D, max_images)
    more: dict[str, Any] = {}
    if linear is not None:
        task = "linear"
        train, test = train_and_test(images, D, test_data, pickle, max_images)
        rows = probe_linear(D, train, test, linear, runs)
        more = dict(protocol=vars(linear), runs=runs, test_data=test_data, test_images=len(test.images))
    else:
        nets = {"trained": D, "untrained": untrained_copy(D).to(device)}
        if task == "auto":
            task = "omega" if images.classes is None else "classes"
        rows = probe_classes(nets, images) if task == "classes" else probe_omega(nets, images)
    name = f"{(outdir or pickle.parent) / f'probe-{task}-{pickle.stem}'}"
    record = dict(pickle=str(pickle), data=path, task=task, images=len(images.images), rows=[vars(row) for row in rows])
    record |= more
    write_json(Path(f"{name}.json"), record)
    plot(rows, Path(f"{name}.png"), f"{pickle.parent.name}/{pickle.name}: {len(images.images)} images")
    accuracy = lambda row: f"{row.accuracy:.3f} ± {row.deviation:.3f}"
    start = lambda row: "" if row.untrained is None else f"{row.untrained:.3f}"
    cells = [(r.question, r.layer, r.width, accuracy(r), start(r), f"{r.chance:.3f}") for r in rows]
    table = markdown.table(["predicted", "layer", "features", "accuracy", "untrained D", "chance"], cells)
    return f"{table}\n\n{name}.png\n{name}.json"
