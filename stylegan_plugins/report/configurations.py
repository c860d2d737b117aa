"""Runs that differ only in their seed, as one configuration: mean curves with standard deviations, and a name that
tells it from others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylegan_plugins.report.curves import Curve, Table
from stylegan_plugins.report.history import Run

SEED = "random_seed"
# Settings, or beginnings of their names, that do not change the training, and the seeds.
IGNORED = (
    *(SEED, "training_set_kwargs.random_seed", "run_dir", "host", "device", "data_loader_kwargs", "metrics"),
    *("kimg_per_tick", "image_snapshot_ticks", "network_snapshot_ticks", "trust_pickle", "plugins.files", "cache"),
    *("state_minutes", "keep_states", "metric_samples", "on_nan", "image_minutes", "no_report"),
)
SHORT = {  # short names of well-known settings: the options of train.py
    "loss_kwargs.r1_gamma": "gamma",
    "training_set_kwargs.path": "data",
    "training_set_kwargs.max_size": "images",
    "batch_size": "batch",
    "total_kimg": "kimg",
    "G_kwargs.synthesis_kwargs.channel_max": "cmax",
    "G_kwargs.synthesis_kwargs.channel_base": "cbase",
    "G_kwargs.channel_max": "cmax",
    "G_kwargs.channel_base": "cbase",
    "G_kwargs.mapping_kwargs.num_layers": "map-depth",
    "ada_target": "ADA target",
    "augment_p": "augment p",
    "resume_pkl": "resume",
    "loss_kwargs.gan_loss": "GAN loss",
    "loss_kwargs.r2_gamma": "R2",
    "loss_kwargs.gradient_penalty": "gradient penalty",
    "loss_kwargs.d_spectral_norm": "spectral norm",
    "loss_kwargs.g_interval": "steps of D for each of G",
    "D_reg_interval": "D's interval",
}
MOST_NAMED = 3  # further settings in a name, at most
MOST_LETTERS = 80  # letters of a name, at most


@dataclass(frozen=True)
class Configuration:
    """A configuration and its runs, one or more.

    runs            in the order of their seeds
    name            plug-ins, and settings that tell it from the others on the page
    stats, diagnostics, metrics     means over the runs where all have a value, in the form of `Run`'s
    notes           sentences that a reader of the means should know"""

    runs: list[Run]
    name: str
    stats: Table
    diagnostics: Table
    metrics: dict[str, dict[str, Table]]
    notes: list[str]

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the first run: the other runs' differ only in seed and settings that do not matter."""
        return self.runs[0].settings

    @property
    def kimg(self) -> float | None:
        """Return the kimg that all runs have reached."""
        return min((run.kimg for run in self.runs if run.kimg is not None), default=None)

    @property
    def is_complete(self) -> bool:
        return all(run.is_complete for run in self.runs)

    @property
    def seeds(self) -> str:
        """Return `seed 0`, `seeds 0 to 2`, `seeds 0, 4`; "" if no seed is known."""
        found = [seed for run in self.runs if (seed := seed_of(run)) is not None]
        if len(found) > 2 and found == list(range(found[0], found[0] + len(found))):
            return f"seeds {found[0]} to {found[-1]}"
        return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}" if found else ""

    @property
    def label(self) -> str:
        """Return the name with the seeds."""
        return ", ".join(filter(None, (self.name, self.seeds)))


def seed_of(run: Run) -> int | None:
    seed = run.settings.get(SEED)
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Return runs grouped by their settings, in the order of the first run of each group."""
    groups = grouped(runs)
    names = names_of(groups)
    return [_configuration(these, name) for these, name in zip(groups, names, strict=True)]


def grouped(runs: Iterable[Run]) -> list[list[Run]]:
    """Return runs of equal settings together, in the order of seeds. Runs of one seed are in different groups: a
    repetition does not count as another seed."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        seed, settings = seed_of(run), json.dumps(_compared(run), sort_keys=True)
        turn = 0
        while any(seed is None or seed_of(other) in (None, seed) for other in found.get((settings, turn), [])):
            turn += 1
        found.setdefault((settings, turn), []).append(run)
    return [sorted(these, key=lambda run: seed_of(run) or 0) for these in found.values()]


def _compared(run: Run) -> dict[str, Any]:
    """Return the settings that change the training."""
    ignored = tuple(f"{name}." for name in IGNORED)
    return {name: value for name, value in run.settings.items() if not f"{name}.".startswith(ignored)}


def names_of(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return a name for each group of runs: its plug-ins, and well-known settings that differ between groups. Groups
    that are alike in these get further settings."""
    firsts = [these[0] for these in groups]
    compared = [_compared(run) for run in firsts]
    differ = [name for name in SHORT if len({json.dumps(one.get(name)) for one in compared}) > 1]
    found = []
    for run, mine in zip(firsts, compared, strict=True):
        of_run = [_named(name, mine.get(name)) for name in differ]
        found.append(", ".join([" + ".join(run.plugins) or "no plug-ins", *of_run]))
    for name in {name for name in found if found.count(name) > 1}:
        alike = [index for index, other in enumerate(found) if other == name]
        keys = dict.fromkeys(key for index in alike for key in compared[index])
        further = [key for key in keys if len({json.dumps(compared[index].get(key)) for index in alike}) > 1]
        for index in alike:
            more = [f"{key.rsplit('.', 1)[-1]} {_written(key, compared[index].get(key))}" for key in further]
            found[index] = ", ".join([name, *more[:MOST_NAMED], *["..."] * (len(more) > MOST_NAMED)])
    cut = [_shortened(name) for name in found]
    # Names that are still alike, for example of a repeated run, get the folder of the run.
    return [
        name if cut.count(name) == 1 else f"{name} ({run.path.resolve().name})"
        for name, run in zip(cut, firsts, strict=True)
    ]


def _shortened(name: str) -> str:
    """Cut a long name between two settings: half a value would look like another value."""
    if len(name) <= MOST_LETTERS:
        return name
    return f"{name[: MOST_LETTERS + 1].rpartition(', ')[0] or name[:MOST_LETTERS]}, ..."


def _named(name: str, value: Any) -> str:
    """Return a well-known setting as a part of a name."""
    return "no ADA" if name == "ada_target" and value is None else f"{SHORT[name]} {_written(name, value)}"


def _written(name: str, value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    if name in ("training_set_kwargs.path", "resume_pkl"):
        text = text.replace("\\", "/").rsplit("/", 1)[-1]
    return text if len(text) <= 30 else f"{text[:30]}..."


def _configuration(runs: list[Run], name: str) -> Configuration:
    stats, diagnostics = (mean_of([table(run) for run in runs]) for table in (_stats, _diagnostics))
    by_name: dict[str, dict[str, Table]] = {}
    for figure in dict.fromkeys(figure for run in runs for figure in run.metrics):
        tables = [run.metrics.get(figure, {}) for run in runs]
        for key in dict.fromkeys(key for of_run in tables for key in of_run):
            mean = mean_of([of_run.get(key, Table([], {figure: []})) for of_run in tables])
            if mean.kimg:
                by_name.setdefault(figure, {})[key] = mean
    notes = []
    ends = [run.kimg for run in runs if run.kimg is not None]
    if len(runs) > 1 and stats.kimg and ends and max(ends) > stats.kimg[-1]:
        notes.append(
            f"Curves end at {stats.kimg[-1]:.6g} kimg, as far as all {len(runs)} seeds are; one is at {max(ends):.6g}."
        )
    if len(runs) > 1 and not stats.kimg:
        notes.append("There are no curves: its seeds have no tick at the same kimg.")
    return Configuration(runs, name, stats, diagnostics, by_name, notes)


def _stats(run: Run) -> Table:
    return run.stats


def _diagnostics(run: Run) -> Table:
    return run.diagnostics


def mean_of(tables: Sequence[Table]) -> Table:
    """Return means over tables, with standard deviations of a sample, where all tables have the kimg and a value. A
    single table is returned as it is."""
    if len(tables) == 1:
        return tables[0]
    shared = sorted(set.intersection(*(set(table.kimg) for table in tables)))
    rows = [{kimg: row for row, kimg in enumerate(table.kimg)} for table in tables]
    result = Table(shared)
    for name in dict.fromkeys(name for table in tables for name in table.values):
        if all(name in table.values for table in tables):
            columns = [
                [table.values[name][row[kimg]] for kimg in shared] for table, row in zip(tables, rows, strict=True)
            ]
            stacked = np.array(columns, dtype=float)  # None becomes NaN
            with np.errstate(all="ignore"):
                result.values[name] = _curve(stacked.mean(axis=0))
                result.deviations[name] = _curve(stacked.std(axis=0, ddof=1))
        else:
            result.values[name] = [None] * len(shared)
    for table in tables:
        for name, kimg in table.not_finite.items():
            result.not_finite[name] = min(kimg, result.not_finite.get(name, kimg))
    return result


def _curve(values: np.ndarray) -> Curve:
    return [value if math.isfinite(value) else None for value in values.tolist()]
