"""`stylegan-plugins evaluate`: metrics of generators against a reference set, computed by torch-fidelity's functions.

Nothing is computed twice: features of the reference are kept in the cache. Results are lines of metric-<name>.jsonl, in
the host's format, each with its identity."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stylegan_plugins.analysis import markdown, metrics, records, sample
from stylegan_plugins.analysis.metrics import Metric, Reference, score
from stylegan_plugins.analysis.records import Result, short_hash
from stylegan_plugins.errors import DataError, OptionError, require, tell
from stylegan_plugins.files import datasets, downloads, prepare, run_folders
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.files.checksums import digest_of
from stylegan_plugins.host import find
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.vision import extractors
from stylegan_plugins.vision.extractors import Extractor, Inception, Outputs, extract
from stylegan_plugins.vision.ranking import real_batches

LOW_SHOT = 5000  # a smaller reference is compared with 5000 generated images, a larger one with 50,000
VERSION = 1


def default_samples(reference: int) -> int:
    """Return the number of generated images for a reference of this size: 5000 as in low-shot papers, or 50,000."""
    return LOW_SHOT if reference < LOW_SHOT else 50_000


def metrics_of(text: str, flag: str = "--metrics") -> dict[str, Metric]:
    """Read `fid,kid` as metrics by name. flag: option named in errors. Raises OptionError."""
    return _named(text, flag, metrics.known())


class Figure(NamedTuple):
    """A figure of a table: a metric, the end of the figure's name in results, and whether it is the best snapshot's."""

    metric: str
    end: str
    best: bool = False


def figures_of(text: str, flag: str) -> dict[str, Figure]:
    """Read `kid,best_kid,pr_recall` as figures by name. The name of a metric alone is the figure that ranks snapshots;
    best_ may precede metrics that rank snapshots. flag: option named in errors. Raises OptionError."""
    known = metrics.known()
    figures = {name: Figure(name, metric.decides) for name, metric in known.items()}
    ends = [(name, end) for name, metric in known.items() for end in metric.ends]
    parts = {name + end: Figure(name, end) for name, end in ends if end}
    ranked = [figure for figure in figures.values() if known[figure.metric].higher is not None]
    bests = {f"{metrics.BEST}{figure.metric}": figure._replace(best=True) for figure in ranked}
    return _named(text, flag, {**parts, **figures, **bests}, list(figures))


def _named(text: str, flag: str, known: Mapping[str, Any], listed: Iterable[str] = ()) -> dict[str, Any]:
    """Return the entries that a text names, with commas. listed: names listed in errors; empty: all that are known."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        missing, choices = unknown[0] if unknown else "nothing", ", ".join(listed or known)
        raise OptionError(f"{flag}={text}: {missing} is not a metric of {choices}.")
    return {name: known[name] for name in names}


def label_of(name: str, metric: Metric, key: str) -> str:
    """Return a metric's name with that of its features, such as fid_clip; files are named so. Inception's features are
    clean-fid's, its logits torch-fidelity's."""
    if key == Inception.key and metric.reads == "features":
        key = "clean"
    return f"{name}_{key}"


def require_libraries() -> None:
    """Raise DataError if the libraries of metrics are not installed."""
    for package in ("torch_fidelity", "cleanfid"):
        require(package, "metrics")


@dataclass(frozen=True)
class Training:
    """The training images of a run.

    dataset     the host's, without horizontal flips; mirrored: the run also had the flips
    fingerprint of all images of the data set, of which the run may have had a part; identity: of the run's images"""

    dataset: Any
    mirrored: bool
    fingerprint: str
    identity: str

    @property
    def count(self) -> int:
        return len(self.dataset)

    def batches(self, flipped: bool) -> Iterator[torch.Tensor]:
        """Yield all images, or their horizontal flips, uint8 [n, C, H, W]."""
        return (batch.flip(3) if flipped else batch for batch in real_batches(self.dataset, self.count))

    @classmethod
    def of(cls, run_dir: Path, flag: str) -> Training:
        """Return the training images of a run. Raises DataError if they are not known or no longer there. flag: option
        named in errors."""
        recorded = (run_folders.read_options(run_dir) or {}).get("training_set_kwargs")
        source = find.own_data(run_dir)
        if source is None or not isinstance(recorded, dict):
            raise DataError(
                f"{flag}: the training images of {run_dir} are not known, or not there any more. Leave this metric out."
            )
        path = prepare.usable(source, prepare.How.of_run(run_dir))
        given = ((name, recorded.get(name)) for name in ("max_size", "random_seed"))
        part = {name: value for name, value in given if isinstance(value, int) and 0 <= value < 1 << 31}
        dataset = host_module("training.dataset").ImageFolderDataset(path, **part)
        all_images, mirrored = datasets.fingerprint(path), bool(recorded.get("xflip"))
        return cls(dataset, mirrored, all_images, f"{all_images}/{part}/{mirrored}")


@dataclass(frozen=True)
class Comparison:
    """The reference of generated images, and the network that gives their features.

    network     the feature network
    dataset     the host's, with labels; fingerprint: of its content
    count       number of real images; samples: number of generated ones
    quiet       show no progress
    training    training images of the run; None if no metric reads them"""

    network: Extractor
    dataset: Any
    fingerprint: str
    count: int
    samples: int
    quiet: bool = False
    training: Training | None = None

    def identity(self, pickle: Path, sampler: sample.Sampler | None, metric: Metric | None = None) -> dict[str, Any]:
        """Return the identity of a result of this pickle. sampler: the source of labels; None: the data set. metric: a
        metric that may read the training images."""
        if sampler is None:
            labels = np.stack([self.dataset.get_label(index) for index in range(len(self.dataset))]).tobytes()
        else:
            labels = sampler.of.encode()
        return {
            **{"version": VERSION, "pickle": digest_of(pickle), "data": self.fingerprint},
            **{"real": self.count, "labels": short_hash(labels), "weights": self.network.weights},
            **{"samples": self.samples, "seed": sample.SEED},
            **({"training": self.training.identity} if metric and metric.training and self.training else {}),
        }

    @functools.cached_property
    def reference(self) -> Reference:
        """Return features of the real images and, if a metric reads them, of the training images, from the cache if it
        has them."""
        batches = lambda: real_batches(self.dataset, self.count)
        features, training = self._cached(batches, self.count, self.fingerprint, f"{self.count}", "real"), None
        if (of := self.training) is not None:
            flips = [False, True] if of.mirrored else [False]
            known = [self._cached(partial(of.batches, x), of.count, of.identity, f"{x}", "training") for x in flips]
            training = np.stack(known)
        return Reference(features, training)

    def _cached(
        self, batches: Callable[[], Iterable[torch.Tensor]], count: int, images: str, part: str, what: str
    ) -> np.ndarray:
        """Return features of `count` images, from the cache if it has them. images, part: identify the images."""
        key = self.network.key
        identity = f"{VERSION}/{images}/{key}/{self.network.weights}/{part}"
        file = downloads.cache_directory() / "evaluate" / f"{key}-{short_hash(identity.encode())}.npy"
        try:
            return np.load(file, allow_pickle=False)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError):
            tell(f"{file} is damaged and is made again.", err=True)
        found = extract(self.network, batches(), count, None if self.quiet else f"{key}: {what}")["features"]
        with whole(file) as out:
            np.save(out, found)
        return found


def floor_of(metric: Metric, reference: Reference | None) -> dict[str, float]:
    """Return the floor for a line of results; empty without a reference, or if it is too small."""
    floor = reference.floor if reference is not None and metric.reads == "features" else None
    return {"floor_fid": floor} if floor is not None and records.is_finite(floor) else {}


# The command. -------------------------------------------------------------------------------------


def results(
    path: Path,
    data: str | None,
    *,
    metrics: str,
    features: str,
    samples: int | None,
    most: int | None,
    every: bool,
    outdir: Path | None,
    device: torch.device,
    report: Callable[[str], None],
    network: Extractor | None = None,
) -> tuple[dict[str, dict[str, Result]], dict[str, Result], float | None, Path]:
    """Return the results by pickle and metric, the best result by metric, the floor, and the path of best.json. All are
    written beside the pickles or to `outdir`.

    samples, most   number of generated images, and the most real images; None: `default_samples`, and all
    every           evaluate all snapshots of a run, not only the newest one. One that cannot be evaluated is left
                    out and reported, for example if its weights are not finite
    report          called with lines about the progress
    network         the network of `features`, if it is already loaded; None: load it

    Raises DataError or OptionError."""
    chosen = metrics_of(metrics)
    wanted = {metric.reads for metric in chosen.values()}
    require_libraries()
    # As in the hosts' loops, so that figures in training and in this command are the same.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    pickles = run_folders.snapshots(path) if every else [run_folders.newest_pickle(path)]
    network = network or extractors.load(features, wanted, device)
    data = find.data_of(path, data)
    local, dataset = find.open_dataset(data, path)
    count = min(len(dataset), most or len(dataset))
    samples = samples or default_samples(count)
    check_numbers(chosen, "--metrics", count, samples)
    training, fingerprint = None, datasets.fingerprint(local)
    for name in (name for name, metric in chosen.items() if metric.training):
        flag = f"--metrics={name}"
        training = training or Training.of(pickles[0].parent, flag)
        check_held_out(chosen[name], flag, fingerprint == training.fingerprint)
    comparison = Comparison(network, dataset, fingerprint, count, samples, training=training)
    labels = {name: label_of(name, metric, network.key) for name, metric in chosen.items()}
    report(f"{samples} generated images, {count} of {len(dataset)} real ones of {data}.")
    reference = comparison.reference if "features" in wanted else None
    floor = None if reference is None else reference.floor

    def scores(pickle: Path, missing: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return figures and times by metric. Raises DataError if the network or a figure is not finite."""
        began = time.time()
        G, sampler, _ = sample.load_generator(pickle, device)
        images = sample.Generator(G, sampler, dataset).images(samples)
        seen = extract(network, images, samples, f"{network.key}: {pickle.name}")
        shared = time.time() - began
        found = {}
        for name in missing:
            began = time.time()
            figures = _finite_score(chosen[name], labels[name], reference, seen, pickle)
            seconds = shared + time.time() - began
            text = host_module("dnnlib").util.format_time(seconds)
            found[name] = {"results": figures, "metric": labels[name], "total_time": seconds, "total_time_str": text}
        return found

    folder = outdir or pickles[0].parent
    rows: dict[str, dict[str, Result]] = {}
    for pickle in pickles:
        drawn = sample.sampler_of(pickle.parent)
        identities = {name: comparison.identity(pickle, drawn, metric) for name, metric in chosen.items()}
        found: dict[str, Result] = {}
        for name, label in labels.items():
            for line in records.read_lines(folder / f"metric-{label}.jsonl"):
                if line.get("of") == identities[name] and _is_complete(line, label, chosen[name]):
                    found[name] = line
        missing = [name for name in chosen if name not in found]
        try:
            new = scores(pickle, missing) if missing else {}
        except DataError as error:
            if pickle == pickles[-1] and not rows:
                raise
            report(f"{pickle.name} is left out: {error}")
            continue
        for name, line in new.items():
            found[name] = dict(
                **line,
                num_gpus=1,
                snapshot_pkl=os.path.relpath(pickle, folder),
                timestamp=time.time(),
                of=identities[name],
                **floor_of(chosen[name], reference),
            )
            records.append_line(folder / f"metric-{labels[name]}.jsonl", found[name])
        rows[pickle.name] = found
    best: dict[str, Result] = {}
    *_, last = rows.values()
    for name, label in labels.items():
        if (higher := chosen[name].higher) is None:
            continue
        main, tops = records.mark_best(folder, label, label + chosen[name].decides, higher)
        key = records.key_of(last[name])
        if key in tops:
            best[name] = tops[key]
        if main != key and main in tops:
            report(
                f"{label}: best.json ranks snapshots by other results ({records.described(tops[main])}); these "
                f"({records.described(last[name])}) are there as {label}:{key}."
            )
    return rows, best, floor, folder / records.BEST


def _is_complete(line: Result, label: str, metric: Metric) -> bool:
    """Return whether a line has all figures of a metric, each of them finite."""
    return line.get("metric") == label and all(
        records.is_finite(line["results"].get(label + end)) for end in metric.ends
    )


def _finite_score(
    metric: Metric, label: str, reference: Reference | None, seen: Outputs, pickle: Path
) -> dict[str, float]:
    """Return the figures of a metric. Raises DataError if features or figures are not finite."""
    results = score(metric, label, reference, seen) if np.isfinite(seen[metric.reads]).all() else {label: float("nan")}
    odd = [figure for figure, value in results.items() if not records.is_finite(value)]
    if odd:
        raise DataError(
            f"{odd[0]} of {pickle} is {results[odd[0]]}, so it was not written. Evaluate another snapshot, or use more "
            "images or other --features."
        )
    return results


def run(path: Path, data: str | None, **how: Any) -> str:
    """Return a table for `stylegan-plugins evaluate`. Arguments as for `results`."""
    rows, best, floor, marked = results(path, data, **how)
    end = [] if floor is None else [f"Floor, FID of two halves of the real images: {floor:.5g}"]
    return "\n".join([as_markdown(rows, best), "", *end, str(marked)])


def best_of(path: Path, data: str, figure: Figure, **how: Any) -> float:
    """Return a figure of the run's best snapshot by its metric. Arguments as for `results`."""
    rows, *_ = results(path, data, metrics=figure.metric, most=None, every=True, outdir=None, **how)
    lines = [row[figure.metric] for row in rows.values()]
    best = max if metrics_of(figure.metric)[figure.metric].higher else min
    return best(line["results"][line["metric"] + figure.end] for line in lines)


def of_newest(path: Path, data: str, **how: Any) -> dict[str, Result]:
    """Return the results of the newest snapshot by metric. Arguments as for `results`."""
    rows, *_ = results(path, data, most=None, every=False, outdir=None, **how)
    return next(iter(rows.values()))


def check_numbers(chosen: Mapping[str, Metric], flag: str, real: int, generated: int) -> None:
    """Raise DataError or OptionError if there are fewer images than a metric needs. chosen: metrics by name."""
    for name, metric in chosen.items():
        if real < metric.real:
            raise DataError(f"{flag}={name} takes {metric.real} real images; --data has {real} to compare with.")
        if generated < metric.generated:
            raise OptionError(
                f"{flag}={name} takes {metric.generated} generated images; the number of samples is {generated}."
            )


def check_held_out(metric: Metric, flag: str, same: bool) -> None:
    """Raise OptionError if a metric needs held-out images as reference and the reference is the training images."""
    if metric.held_out and same:
        raise OptionError(
            f"{flag} compares with held-out images, and these are the training images. Give others, with --reference "
            "of compare or --data of evaluate."
        )


def as_markdown(rows: dict[str, dict[str, Result]], best: dict[str, Result]) -> str:
    """Return a table of results by pickle and metric. Of several pickles, the best is bold."""
    known = metrics.known()
    first = next(iter(rows.values()))
    keys = [(name, key) for name in known if name in first for key in first[name]["results"]]

    def cell_of(line: Result, name: str, key: str) -> str:
        decides = name in best and key == line["metric"] + known[name].decides
        bold = "**" if decides and len(rows) > 1 and line["of"] == best[name]["of"] else ""
        return f"{bold}{line['results'][key]:.5g}{bold}"

    cells = ([pickle, *(cell_of(found[name], name, key) for name, key in keys)] for pickle, found in rows.items())
    return markdown.table(["pickle", *(key for _, key in keys)], cells)
