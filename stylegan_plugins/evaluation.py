"""`stylegan-plugins evaluate`: metrics of generators against a reference set, computed by torch-fidelity's functions.

What is done is never done again: features of the reference are kept in the cache, results are lines of
metric-<name>.jsonl, in the host's format, with what they are of."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from stylegan_plugins import datacheck, downloads, priors, runs, sampling
from stylegan_plugins import features as networks
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import whole
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.probe import require
from stylegan_plugins.scores import BEST, FEWEST, Reference, Values, score
from stylegan_plugins.selection import real_batches

LOW_SHOT = 5000  # a smaller reference is compared with as many generated images, any other with 50,000
VERSION = 1
Row = tuple[str, str, dict[str, dict[str, Any]]]  # a pickle's name, its digest, and its results by metric


def default_samples(reference: int) -> int:
    """How many images are generated for a reference of so many: 5000 in low-shot papers, 50,000 in others."""
    return LOW_SHOT if reference < LOW_SHOT else 50_000


def metrics_of(text: str) -> list[str]:
    """`fid,kid` -> names. Raises OptionError."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in FEWEST]
    if unknown or not names:
        raise OptionError(
            f"--metrics={text}: {unknown[0] if unknown else 'nothing'} is no metric of {', '.join(FEWEST)}."
        )
    return names


def see(network: networks.Features, batches: Iterable[torch.Tensor], count: int, label: str) -> Values:
    """What a network sees of `count` uint8 images in batches, with progress on standard error."""
    parts: list[Values] = []
    with click.progressbar(length=count, label=label, file=sys.stderr) as bar, torch.no_grad():
        for images in batches:
            parts.append({name: value.cpu().numpy() for name, value in network(images).items()})
            bar.update(len(images))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def reference_of(network: networks.Features, dataset: Any, fingerprint: str, count: int) -> Reference:
    """Features of `count` different images of a data set of the host, from the cache if they are there."""
    identity = f"{VERSION}/{fingerprint}/{network.key}/{network.weights}/{count}"
    file = downloads.cache_directory() / "evaluate" / f"{network.key}-{_short(identity.encode())}.npy"
    try:
        return Reference(np.load(file, allow_pickle=False))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError):
        click.echo(f"{file} is damaged and is made anew.", err=True)
    found = see(network, real_batches(dataset, count), count, f"{network.key}: real")["features"]
    with whole(file) as out:
        np.save(out, found)
    return Reference(found)


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# Lines of results. --------------------------------------------------------------------------------


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Results in a metric-*.jsonl that say what they are of; a line that a kill cut off is none."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "of" in record:
            found.append(record)
    return found


def append_line(file: Path, record: dict[str, Any]) -> None:
    """Raises DataError if it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a+b") as out:
            end = out.seek(0, os.SEEK_END)
            if end:
                out.seek(end - 1)
                if out.read(1) != b"\n":
                    out.write(b"\n")
            out.write(json.dumps(record).encode() + b"\n")
    except OSError as error:
        raise DataError(f"{file} cannot be written ({error.strerror or error}).") from error


def best_of(metric: str, label: str, lines: list[dict[str, Any]], of: dict[str, Any]) -> dict[str, Any]:
    """The best of all results that are of another pickle at most."""
    suffix, more = BEST[metric]
    same = [line for line in lines if {**line["of"], "pickle": None} == {**of, "pickle": None}]
    return (max if more else min)(same, key=lambda line: line["results"][label + suffix])


def mark_best(folder: Path, best: dict[str, dict[str, Any]]) -> Path:
    """Write best.json: by metric, the result of the best snapshot. Other metrics' stay as they are."""
    file = folder / "best.json"
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        known = {}
    with whole(file) as out:
        out.write((json.dumps({**known, **best}, indent=2) + "\n").encode())
    return file


# The command. -------------------------------------------------------------------------------------


def results(
    path: Path,
    data: str,
    *,
    metrics: str,
    features: str,
    samples: int | None,
    most: int | None,
    every: bool,
    outdir: Path | None,
    device: torch.device,
    report: Callable[[str], None],
) -> tuple[list[Row], dict[str, dict[str, Any]], float | None, Path]:
    """Results of each pickle, the best by metric, the floor, and best.json, after all of them are written beside the
    pickles or to `outdir`.

    samples, most   numbers of generated images, and of real ones at most; None: `default_samples`, and all
    every           of all snapshots of a run; else of the newest one
    report          is told what goes on

    Raises DataError or OptionError."""
    names = metrics_of(metrics)
    wanted = {"logits" if name == "is" else "features" for name in names}
    for package in ("torch_fidelity", "cleanfid"):
        require(package, "metrics")
    pickles = runs.snapshots(path) if every else [runs.newest_pickle(path)]
    network = networks.load(features, wanted, device)
    local = downloads.local_data(data)
    datacheck.check_dataset(local)
    dataset = host_module("training.dataset").ImageFolderDataset(local, use_labels=True)
    count = min(len(dataset), most or len(dataset))
    samples = samples or default_samples(count)
    check_numbers(names, count, samples)
    fingerprint = datacheck.fingerprint(local)
    labels = np.stack([dataset.get_label(index) for index in range(len(dataset))])
    report(f"{samples} generated images, {count} of {len(dataset)} real ones of {data}.")
    reference = reference_of(network, dataset, fingerprint, count) if "features" in wanted else None
    floor = None if reference is None else reference.floor
    rows, lines = [], {}
    for pickle in pickles:
        folder = outdir or pickle.parent
        of = {
            **{"version": VERSION, "pickle": priors.digest_of(str(pickle)), "data": fingerprint, "real": count},
            **{"labels": _short(labels.tobytes()), "weights": network.weights, "samples": samples},
        }
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            lines[name] = read_lines(folder / f"metric-{network.label(name)}.jsonl")
            for line in lines[name]:
                if line["of"] == of:
                    found[name] = line
        missing = [name for name in names if name not in found]
        began = time.time()
        if missing:
            generator = sampling.generator_for(pickle, dataset, data, device)
            seen = see(network, generator.images(samples), samples, f"{network.key}: {pickle.name}")
        shared = time.time() - began
        for name in missing:
            began, label = time.time(), network.label(name)
            results = score(name, label, reference, seen)
            seconds = shared + time.time() - began
            found[name] = dict(
                results=results,
                metric=label,
                total_time=seconds,
                total_time_str=host_module("dnnlib").util.format_time(seconds),
                num_gpus=1,
                snapshot_pkl=os.path.relpath(pickle, folder),
                timestamp=time.time(),
                of=of,
                **({} if floor is None or name == "is" else {"floor_fid": floor}),
            )
            append_line(folder / f"metric-{label}.jsonl", found[name])
            lines[name].append(found[name])
        rows.append((pickle.name, str(of["pickle"]), found))
    best = {name: best_of(name, network.label(name), lines[name], of) for name in names}
    marked = mark_best(folder, {network.label(name): line for name, line in best.items()})
    return rows, best, floor, marked


def run(path: Path, data: str, **how: Any) -> str:
    """`stylegan-plugins evaluate`: a table of `results`, whose arguments it takes."""
    rows, best, floor, marked = results(path, data, **how)
    end = [] if floor is None else [f"Floor, FID of two halves of the real images: {_number(floor)}"]
    return "\n".join([table(rows, best), "", *end, str(marked)])


def value_of(path: Path, data: str, *, metric: str, **how: Any) -> float:
    """The figure of one metric that says which snapshot is best, of the newest one. Arguments of `results`."""
    rows, *_ = results(path, data, metrics=metric, most=None, every=False, outdir=None, **how)
    ((_, _, found),) = rows
    return found[metric]["results"][found[metric]["metric"] + BEST[metric][0]]


def check_numbers(names: list[str], real: int, generated: int) -> None:
    """Raise DataError or OptionError if there are fewer images than a metric needs."""
    for name in names:
        of_real, of_generated = FEWEST[name]
        if real < of_real:
            raise DataError(f"--metrics={name} takes {of_real} real images; --data has {real} to compare with.")
        if generated < of_generated:
            raise OptionError(f"--samples={generated}: --metrics={name} takes {of_generated} generated images.")


def table(rows: list[Row], best: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of pickles (name, digest, results by metric); the best of several is bold."""
    keys = [(name, key) for name, line in rows[0][2].items() for key in line["results"]]
    keys.sort(key=lambda pair: list(best).index(pair[0]))
    lines = [f"| pickle | {' | '.join(key for _, key in keys)} |", "| --- " * (len(keys) + 1) + "|"]
    for pickle, digest, found in rows:
        cells = []
        for name, key in keys:
            decides = key == best[name]["metric"] + BEST[name][0]
            bold = "**" if decides and len(rows) > 1 and best[name]["of"]["pickle"] == digest else ""
            cells.append(f"{bold}{_number(found[name]['results'][key])}{bold}")
        lines.append(f"| {pickle} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.5g}"
