"""`stylegan-plugins compare`: combinations of plug-ins, each trained with the same budget, and a table of metrics.

The table has the form of the papers' tables: a row for each combination, a column for each share of the data, mean and
standard deviation over seeds. A run is used again only if its arguments, contents of data and files, and versions are
the same."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stylegan_plugins.analysis import (
    captioned,
    cells,
    cluster,
    comparison,
    evaluate,
    loading,
    metrics,
    plan,
    trainings,
)
from stylegan_plugins.analysis.cells import Cell
from stylegan_plugins.analysis.comparison import Column, Measured, Published, Results
from stylegan_plugins.analysis.evaluate import Figure
from stylegan_plugins.analysis.loading import LoadedGenerator
from stylegan_plugins.analysis.records import Result
from stylegan_plugins.analysis.trainings import PlannedRun
from stylegan_plugins.errors import DataError, OptionError, UserError, tell
from stylegan_plugins.files import datasets, prepare, run_folders
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.host import devices, find
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.vision import extractors

PICTURE = f"{comparison.NAME}-samples.png"


@dataclass
class Clock:
    """An estimate of the time left, from completed runs: kimg trained, seconds of training and of evaluation."""

    kimg: float = 0.0
    runs: int = 0
    training: float = 0.0
    evaluating: float = 0.0

    def count(self, kimg: float, training: float, evaluating: float) -> None:
        """Count a completed run: `kimg` thousand images trained, seconds of training and of evaluation."""
        self.kimg, self.runs = self.kimg + kimg, self.runs + 1
        self.training, self.evaluating = self.training + training, self.evaluating + evaluating

    def seconds(self, left: Sequence[float], jobs: int = 1) -> float:
        """Return the seconds that runs will take, `jobs` at once. left: kimg left of each run. Runs are evaluated one
        after the other, while others train if `jobs` is more than 1."""
        training, evaluating = sum(left) * self.training / self.kimg, len(left) * self.evaluating / self.runs
        return max(training / jobs, evaluating) if jobs > 1 else training + evaluating


def reference_path(reference: str, pictures: prepare.How) -> str:
    """Return the path of held-out images, prepared like the training images. Raises UserError, about --reference."""
    try:
        return str(Path(prepare.usable(reference, pictures)).resolve())
    except UserError as error:
        raise type(error)(error.message.replace("--data", "--reference")) from error


def ada_of(run_dir: Path) -> str:
    """Return the host's ADA in a run: `on`, `off`, or the fixed probability of its augmentations."""
    options = run_folders.read_options(run_dir) or {}
    fixed = options.get("augment_p")
    if not isinstance(options.get("augment_kwargs"), dict):
        return "off"
    if options.get("ada_target") is not None:
        return "on"
    return f"p = {fixed:g}" if isinstance(fixed, int | float) and fixed else "off"


def run(
    host: Path,
    outdir: Path,
    *,
    plugins: str | None,
    data: str,
    reference: str | None,
    kimg: int,
    seeds: int,
    fractions: str,
    metric: str,
    features: str,
    samples: int | None,
    pictures: prepare.How,
    more: Sequence[str],
    device: torch.device,
    report: Callable[[str], None],
    vary: Sequence[str] = (),
    rows: Sequence[str] = (),
    jobs: int | None = None,
    executor: str | None = None,
    executor_options: Sequence[str] = (),
    dry_run: bool = False,
    about: Sequence[str] = (),
    published: Published | None = None,
    after: Sequence[str] = (),
    absent: int | None = None,
) -> str:
    """Train and evaluate the missing runs. Return the table, which is also written to `outdir` after each run, as
    compare.md, .html, .csv and .json. compare-samples.png shows samples of the first run of each row.

    reference   images that metrics compare with; None: the whole data set, whatever share of it a run trains on
    vary        options of train.py with several values, `gamma=0.1,1,10`
    rows        rows with their options, `augself --augself-preset=plus`, after the rows of `plugins`
    jobs        runs that train at once; None: one, or all with Slurm
    executor    `slurm` or `local`: runs are jobs of submitit, with `executor_options`, as NAME=VALUE
    dry_run     return the plan, with an estimate of the time
    about, published, after     of a recipe: its description, published figures, commands for each run at the end
    absent      number of images of a data set that is not on this machine, for a dry run

    Raises OptionError or DataError."""
    if executor_options and executor is None:
        raise OptionError(f"--executor-option={executor_options[0]} has no effect without --executor. Leave it out.")
    combinations = cells.combinations_of(plugins) if plugins else []
    table: list[cells.Row] = [*((names, ()) for names in combinations), *map(cells.row_of, rows)]
    variations, shares = cells.variations_of(vary), cells.fractions_of(fractions)
    figures = evaluate.figures_of(metric, "--metric")
    chosen = {figure.metric: metrics.known()[figure.metric] for figure in figures.values()}
    cells.check_arguments(table, more, variations)
    planned = cells.cells_of(table, variations, shares, seeds)
    settings = f"{kimg} kimg each, {seeds} seeds; {metric} on {features}, data {data}"
    if absent is not None:
        command_of = lambda cell: cells.command(cell, host, data, absent, kimg, outdir, more)
        return plan.described(about, planned, command_of, published, settings) + f"\n\nNo estimate: {data} is not here."
    evaluate.require_libraries()
    comparison.require_libraries()
    # Load it now: an error after training would be late.
    network = extractors.load(features, {known.reads for known in chosen.values()}, device)
    path = str(Path(prepare.usable(data, pictures)).resolve())
    images, *shape = datasets.check_dataset(path)
    judged_by = path if reference is None else reference_path(reference, pictures)
    real, *others = datasets.check_dataset(judged_by)
    if shape != others:
        raise DataError(
            f"--reference={reference}: pictures of {others[0]} pixels and {others[1]} channels; the pictures of --data "
            f"have {shape[0]} and {shape[1]}. Give --size and --colors for both."
        )
    samples = samples or evaluate.default_samples(real)
    evaluate.check_numbers(chosen, "--metric", real, samples)
    same = datasets.fingerprint(judged_by) == datasets.fingerprint(path)
    for name, known in chosen.items():
        evaluate.check_held_out(known, f"--metric={name}", same)
    datasets.check_output(outdir)
    outdir = outdir.resolve()
    how: dict[str, Any] = dict(features=features, samples=samples)
    submitted = None
    if executor is not None:
        in_job = partial(measured_in_job, host=host, judged_by=judged_by, figures=figures, **how)
        submitted = cluster.Jobs(executor, executor_options, outdir, in_job)

    def command(cell: Cell, folder: Path = outdir) -> list[str]:
        return cells.command(cell, host, path, images, kimg, folder, more)

    identities: dict[Cell, dict[str, Any]] = {}
    for cell in planned:
        plain = [part for part in command(cell)[2:] if part != f"--outdir={outdir}"]
        identities[cell] = cells.identity_of(cell, plain, host, path)
    folders = {cell: cell.folder(identity) for cell, identity in identities.items()}
    missing = {
        (*cell.row, cell.fraction): cell for cell in planned if not (outdir / folders[cell] / trainings.CELL).exists()
    }
    for number, cell in enumerate(missing.values(), 1):  # before hours of training
        report(f"Trying the options, {number} of {len(missing)}: {folders[cell]}")
        trainings.call([*command(cell), "--dry-run"], outdir / "dry-run.log", "Nothing was trained.")
    left = {cell: kimg - trainings.progress_of(outdir / folders[cell])[1] / 1000 for cell in planned}
    left = {cell: part for cell, part in left.items() if part > 0}
    format_time = host_module("dnnlib").util.format_time
    expected = []
    if dry_run or about:
        outdir.mkdir(parents=True, exist_ok=True)
        expected = plan.estimate(left, plan.speeds_of(left, command, outdir, report), format_time)
    if dry_run:
        return "\n".join([plan.described(about, planned, command, published, settings), "", *expected])
    for line in [*about, *expected]:
        report(line)
    how |= dict(network=network, device=device, report=report)
    clock, text, run_dirs = Clock(), "", []
    columns: list[Column] = []
    measured: list[Measured] = []
    shown: dict[Cell, tuple[str, LoadedGenerator]] = {}  # the first run of each row
    runs = [
        PlannedRun(cell, command(cell, outdir / name), outdir / name, f"{n} of {len(planned)}", identities[cell])
        for n, (cell, name) in enumerate(folders.items(), 1)
    ]
    place = {cell: number for number, cell in enumerate(planned)}
    at_once = jobs or (len(runs) if executor == "slurm" else 1)
    if submitted is None:
        cluster.refuse_going(one.folder for one in runs)
        ended = trainings.trained(runs, kimg, at_once, report)
    else:
        ended = cluster.trained(runs, kimg, at_once, report, submitted)
    for cell, last, seconds in ended:
        which, begun = runs[place[cell]].about, time.monotonic()
        run_dirs.append(last.parent)
        lines, values = measure(last, judged_by, figures, **how)
        if cell in left:
            clock.count(left.pop(cell), seconds, time.monotonic() - begun)
            time_left = format_time(clock.seconds(list(left.values()), at_once))
            told = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
            report(f"{which}: {told}" + (f"; about {time_left} left for all" if left else ""))
        if not measured:
            compared = evaluate.Comparison(
                network, find.open_dataset(judged_by, last)[1], datasets.fingerprint(judged_by), real, samples
            )
            columns = _columns(figures, lines, compared)
        measured.append(Measured(cell, folders[cell], values, ada_of(last.parent)))
        measured.sort(key=lambda one: place[one.cell])
        if (cell.fraction, cell.seed) == (planned[0].fraction, planned[0].seed):
            shown[cell] = plan.named(cell.row), loading.loaded(last)
            picture = captioned.of_networks([shown[one] for one in planned if one in shown], path)
            with whole(outdir / PICTURE) as out:
                picture.save(out, format="PNG")
        of: dict[str, Any] = dict(features=features, kimg=kimg, samples=samples, real=real, published=published)
        results = Results(columns, **of, held_out=not same, planned=planned, runs=measured)
        text = comparison.write(results, outdir, {"data": data, "reference": reference, "arguments": list(more)})
    commands = [line.replace("RUN", shlex.quote(str(run_dir))) for line in after for run_dir in run_dirs]
    then = "\n".join(["", "", "Next:", *(f"    {line}" for line in commands)]) if commands else ""
    return f"{text}\n\n{outdir / comparison.NAME}.md, .html, .csv, {PICTURE}{then}"


def measure(
    last: Path, judged_by: str, figures: Mapping[str, Figure], **how: Any
) -> tuple[dict[str, Result], dict[str, float]]:
    """Return the results of a run's last snapshot, and its figures by name. Known results are not measured again. how:
    as for `evaluate.results`"""
    names = dict.fromkeys(figure.metric for figure in figures.values())
    lines = evaluate.of_newest(last, judged_by, metrics=",".join(names), **how)
    values = {
        key: evaluate.best_of(last.parent, judged_by, figure, **how)
        if figure.best
        else lines[figure.metric]["results"][lines[figure.metric]["metric"] + figure.end]
        for key, figure in figures.items()
    }
    return lines, values


def measured_in_job(last: Path, host: Path, judged_by: str, figures: Mapping[str, Figure], **how: Any) -> None:
    """Measure a run on the machine of its job, and keep the results beside the snapshot. Arguments as for `measure`."""
    find.choose_host(host)
    measure(last, judged_by, figures, device=devices.device(), report=tell, **how)


def _columns(figures: Mapping[str, Figure], lines: Mapping[str, Result], compared: evaluate.Comparison) -> list[Column]:
    """Return the columns of the table, with their floors. lines: results by metric."""
    known = metrics.known()
    reads = {name for name in lines if known[name].reads == "features"}
    floors = {name: metrics.split_half(known[name], compared.reference) if name in reads else {} for name in lines}
    found = []
    for key, (name, end, best) in figures.items():
        higher = None if end.endswith("_std") else known[name].higher
        in_lines = f"{metrics.BEST if best else ''}{lines[name]['metric']}{end}"
        found.append(Column(key, in_lines, higher, floors[name].get(end)))
    return found
