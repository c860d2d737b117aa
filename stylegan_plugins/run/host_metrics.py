"""The metrics of `evaluate` in the host's --metrics (`fid_clean`, `kid_efficientnet_lite0`, ...), and the best snapshot
of a run, by these and by the host's metrics.

The host calls a metric on each process of a run. Each process makes its share of the images, and the first one computes
the metric. The run's random numbers stay as they are."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import os
import re
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch

from stylegan_plugins.analysis import evaluate, metrics, records, sample
from stylegan_plugins.analysis.metrics import Metric
from stylegan_plugins.errors import OptionError
from stylegan_plugins.files import datasets
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.report import history
from stylegan_plugins.vision import backbones, extractors
from stylegan_plugins.vision.backbones import Model
from stylegan_plugins.vision.extractors import Outputs
from training_ext.distributed import broadcast_value, gather_objects, merged

FLAG = "--metrics"
ADDRESS = re.compile(r"""^[^#\n]*["'](https?://[^"']+)["']""", re.MULTILINE)  # an address in a line of code
SECONDS = 10.0  # timeout of a host's download
# Environment variables, for processes that a script starts.
SAMPLES = "STYLEGAN_PLUGINS_METRIC_SAMPLES"
RUN = "STYLEGAN_PLUGINS_METRIC_RUN"  # directory of the run, whose plug-ins may have a sampler


@dataclass(frozen=True)
class Named:
    """A metric of this package, which the host calls by its label."""

    label: str
    metric: Metric
    features: str

    def __call__(self, options: Any) -> dict[str, float]:
        return _JUDGE.measure(self, options)

    def network(self, device: torch.device) -> extractors.Extractor:
        return extractors.load(self.features, {self.metric.reads}, device, f"{FLAG}={self.label}: features")

    def check(self, data: str | None, samples: int | None) -> None:
        """Raise DataError or OptionError if the metric cannot be computed. data: the reference; None: not known."""
        evaluate.require_libraries()
        self.network(torch.device("cpu"))
        if data is not None:
            count, _, _ = datasets.check_dataset(data)
            evaluate.check_numbers({self.label: self.metric}, FLAG, count, samples or evaluate.default_samples(count))


def named() -> dict[str, Named]:
    """Return our metrics by label: each on Inception and on each backbone whose weights need no file. Metrics that read
    training images are left out: here the reference is the whole data set."""
    found = {}
    with_weights = (name for name, recipe in backbones.known().items() if not recipe.source)
    known = (extractors.Inception.key, *with_weights)
    for name, metric in metrics.known().items():
        for features in () if metric.training else known:
            label = evaluate.label_of(name, metric, Model(features).key)
            found[label] = Named(label, metric, features)
    return found


class Judge:
    """Our metrics in this process. It keeps the references, and a network's outputs for a generator until the next
    generator comes."""

    def __init__(self) -> None:
        self.comparisons: dict[tuple[str, str], evaluate.Comparison] = {}
        self.seen: tuple[Callable[[], Any], dict[tuple[str, str], Outputs]] = (lambda: None, {})
        self.details: dict[str, Callable[[Path], dict[str, Any]]] = {}
        self.reference: dict[str, Any] = {}  # data set arguments of the host's own metrics

    def measure(self, this: Named, options: Any) -> dict[str, float]:
        """Return the figures of a metric. options: the host's MetricOptions. Called on all processes."""
        figures = torch.zeros([len(this.metric.ends)], dtype=torch.float64)
        sampler = _sampler()
        with torch.random.fork_rng(devices=[options.device] if options.device.type == "cuda" else []):
            comparison = self._comparison(this, options)
            seen = self._see(this, options, comparison, sampler)
            if options.rank == 0:
                reference = comparison.reference if this.metric.reads == "features" else None
                floor = evaluate.floor_of(this.metric, reference)
                self.details[this.label] = lambda pickle: {"of": comparison.identity(pickle, sampler), **floor}
                found = metrics.score(this.metric, "", reference, seen)
                figures[:] = torch.tensor(list(found.values()), dtype=torch.float64)
        values = broadcast_value(figures, options.num_gpus, options.device).tolist()
        return {this.label + end: value for end, value in zip(this.metric.ends, values, strict=True)}

    def _comparison(self, this: Named, options: Any) -> evaluate.Comparison:
        key = (this.features, this.metric.reads)
        if key not in self.comparisons:
            kwargs = {**options.dataset_kwargs, "max_size": None, "xflip": False, "use_labels": True}
            dataset = host_module("dnnlib").util.construct_class_by_name(**kwargs)
            count = len(dataset)
            samples = int(os.environ.get(SAMPLES, 0)) or evaluate.default_samples(count)
            evaluate.check_numbers({this.label: this.metric}, FLAG, count, samples)
            fingerprint, network = datasets.fingerprint(kwargs["path"]), this.network(options.device)
            self.comparisons[key] = evaluate.Comparison(network, dataset, fingerprint, count, samples, quiet=True)
        return self.comparisons[key]

    def _see(
        self, this: Named, options: Any, comparison: evaluate.Comparison, sampler: sample.Sampler | None
    ) -> Outputs:
        """Return a network's outputs for the images of all processes; empty except on the first process."""
        if self.seen[0]() is not options.G:
            self.seen = (weakref.ref(options.G), {})
        key = (this.features, this.metric.reads)
        if key not in self.seen[1]:
            G = copy.deepcopy(options.G).to(options.device)  # the hosts' loops give one on the CPU
            generator = sample.Generator(G, sampler, comparison.dataset)
            share = (options.rank, options.num_gpus)
            with torch.no_grad():
                images = generator.images(comparison.samples, share)
                mine = [comparison.network(batch)[this.metric.reads].cpu() for batch in images]
            shares = gather_objects(mine, options.num_gpus, options.device)
            self.seen[1][key] = {this.metric.reads: merged(shares).numpy()} if options.rank == 0 else {}
        return self.seen[1][key]

    def report(self, theirs: Callable[..., None], result: Any, run_dir: str | None, snapshot: str | None) -> None:
        """Report a result by the host's report_metric, `theirs`. Add the identity of our result, and mark the best
        snapshot."""
        label = result["metric"]
        if label in self.details and snapshot is not None and os.path.isfile(snapshot):  # it may be an address
            result = type(result)({**result, **self.details[label](Path(snapshot))})
        elif label not in self.details and (of := self._of_hosts(label)):
            result = type(result)({**result, "of": of})
        theirs(result, run_dir=run_dir, snapshot_pkl=snapshot)
        decides = _decides(label, list(result["results"]))
        if decides is not None and run_dir is not None and os.path.isdir(run_dir):
            main, best = records.mark_best(Path(run_dir), label, *decides)
            if main in best:
                top = best[main]
                print(f"Best by {decides[0]}: {top.get('snapshot_pkl')} ({top['results'][decides[0]]:.5g})")

    def _of_hosts(self, label: str) -> dict[str, Any]:
        """Return the identity of a result of the host's own metric: its name says all but the data set. Empty if the
        data set is not known."""
        path = self.reference.get("path")
        if not isinstance(path, str) or not os.path.exists(path):
            return {}
        mirrored = {} if label.endswith("_full") else {"xflip": bool(self.reference.get("xflip"))}
        return {"data": datasets.fingerprint(path), **mirrored}


def _decides(label: str, keys: list[str]) -> tuple[str, bool] | None:
    """Return the figure that ranks snapshots, and whether higher is better; None if none does or several might."""
    ours = host_module("metrics.metric_main")._metric_dict.get(label)
    if isinstance(ours, Named):
        higher = ours.metric.higher
        return None if higher is None else (label + ours.metric.decides, higher)
    ways = {key: higher for key in keys if (higher := history.is_higher_better(key)) is not None}
    return next(iter(ways.items())) if len(ways) == 1 else None


def mark_best_again(run_dir: Path, label: str) -> None:
    """Remove results from best.json of a run that are no longer in a metric's log. Raises DataError."""
    lines = records.read_lines(run_dir / f"metric-{label}.jsonl")
    decides = _decides(label, list(lines[0]["results"])) if lines else (label, True)
    if decides is not None:
        records.mark_best(run_dir, label, *decides)


_JUDGE = Judge()


def register() -> None:
    """Add our metrics to the host's metric_main, and let it mark the best snapshot. Call it again after adding a
    plug-in. A host without metrics stays as it is; a metric of the same name is not replaced."""
    try:
        metric_main: Any = host_module("metrics.metric_main")
    except ModuleNotFoundError:
        return
    for label, this in named().items():
        metric_main._metric_dict.setdefault(label, this)
    theirs = metric_main.report_metric
    if hasattr(theirs, "__wrapped__"):  # wrapped by an earlier call
        return

    @functools.wraps(theirs)
    def report_metric(result_dict: Any, run_dir: str | None = None, snapshot_pkl: str | None = None) -> None:
        _JUDGE.report(theirs, result_dict, run_dir, snapshot_pkl)

    calc = metric_main.calc_metric

    @functools.wraps(calc)
    def calc_metric(metric: str, **options: Any) -> Any:
        _JUDGE.reference = dict(options.get("dataset_kwargs") or {})
        ours = isinstance(metric_main._metric_dict.get(metric), Named)
        with contextlib.nullcontext(options) if ours else _labels_of_samples(options) as given:
            return calc(metric, **given)

    metric_main.report_metric, metric_main.calc_metric = report_metric, calc_metric


def begin(run_dir: Path | None, samples: int | None) -> None:
    """Record the run whose networks are measured, for this process and those that it starts; None: no run. samples:
    number of generated images; None: `evaluate.default_samples`."""
    os.environ[RUN], os.environ[SAMPLES] = str(run_dir or ""), str(samples or 0)


def _sampler() -> sample.Sampler | None:
    return sample.sampler_of(Path(os.environ[RUN])) if os.environ.get(RUN) else None


@contextlib.contextmanager
def _labels_of_samples(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Let a metric of the host judge the images that `sample` makes: yield its arguments with a G whose labels come
    from the sampler of the run's plug-in, if it has one.

    The host takes labels of generated images from the data set, one by one, and may use one label for several images.
    So the data set gives numbers meanwhile, and G's mapping network embeds number k as the sampler's k-th draw."""
    G, sampler, rank = options.get("G"), _sampler(), options.get("rank", 0)
    if G is None or not G.c_dim or sampler is None:
        yield options
        return
    cls = host_module("dnnlib").util.get_obj_by_name(options["dataset_kwargs"]["class_name"])
    numbers = itertools.count()

    def get_label(dataset: Any, index: int) -> np.ndarray:
        return np.array([next(numbers)] + [0] * (G.c_dim - 1), dtype=np.float32)

    def drawn(embed: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        draws = [np.random.RandomState([int(k), rank]) for k in inputs[0][:, 0].tolist()]
        return torch.stack([sampler.draw(G, random) for random in draws]).to(output)

    judged = copy.deepcopy(G)  # a copy: the sampler embeds with the G that it gets
    judged.mapping.embed.register_forward_hook(drawn)
    theirs, cls.get_label = cls.get_label, get_label
    try:
        yield {**options, "G": judged}
    finally:
        cls.get_label = theirs


# Downloads of metrics. ----------------------------------------------------------------------------


def check_samples(samples: int | None, names: Sequence[str] | None) -> None:
    """Raise OptionError if a number of images is given and no metric of `names` uses it."""
    known = host_module("metrics.metric_main")._metric_dict if names else {}
    if samples is not None and not any(isinstance(known.get(name), Named) for name in names or ()):
        theirs = ",".join(names or ()) or "none"
        raise OptionError(
            f"--metric-samples={samples} has no effect with --metrics={theirs}: the host's own metrics have fixed "
            "numbers. Leave it out, or name one of ours, such as fid_clean."
        )


def check_metrics(names: Sequence[str], data: str | None, samples: int | None = None) -> None:
    """Download the files of these metrics before training starts: the host's detectors into the host's cache, backbones
    into ours.

    data, samples: for our metrics. Raises OptionError or DataError if a file is not available."""
    if not names:
        return
    metric_main = host_module("metrics.metric_main")
    util = host_module("dnnlib").util
    for name in names:
        function = metric_main._metric_dict.get(name)
        if function is None:
            continue  # the host reports it
        if isinstance(function, Named):
            function.check(data, samples)
            continue
        for url in detector_urls(function):
            try:
                with _not_waiting_forever(util), util.open_url(url, num_attempts=1, verbose=False):
                    pass
            except (OSError, requests.RequestException) as error:
                raise OptionError(
                    f"--metrics={name} needs {url}, which is not available ({type(error).__name__}). "
                    "Use --metrics=none, or connect to the network once: it is kept in a cache."
                ) from error


@contextlib.contextmanager
def _not_waiting_forever(util: Any) -> Iterator[None]:
    """Let the host's downloads time out: they would wait for ever in a network that drops packets."""

    class Session(requests.Session):
        request = functools.partialmethod(requests.Session.request, timeout=SECONDS)  # type: ignore[assignment]

    module, util.requests = util.requests, types.SimpleNamespace(Session=Session, compat=requests.compat)
    try:
        yield
    finally:
        util.requests = module


def detector_urls(metric: types.FunctionType) -> list[str]:
    """Return the addresses in the source of those modules of the host that a metric uses."""
    modules = [metric.__globals__.get(name) for name in metric.__code__.co_names]
    sources = [
        inspect.getsource(module)
        for module in modules
        if isinstance(module, types.ModuleType) and module.__name__.startswith("metrics.")
    ]
    return sorted({url for source in sources for url in ADDRESS.findall(source)})
