"""One HTML file about one or several runs: it holds all that it shows, opens from disk, and loads nothing.

history.py reads the runs, charts.py draws curves, thumbnails.py makes pictures small, report.html.jinja lays the
page out. The template escapes whatever
comes from files, and is complete without report.js, which only shows values under a pointer."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_plugins import __version__
from stylegan_plugins.errors import DataError, OptionError, UserError, require
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.report import charts, history, thumbnails
from stylegan_plugins.report.charts import Chart, Line
from stylegan_plugins.report.history import Run, Table
from stylegan_plugins.report.thumbnails import Picture

COLORS = [  # on light and on dark ground, and a mark at the end of lines: no run is told apart by color alone
    ("#0067b1", "#5aa9f0", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
    ("#c94f00", "#ff9350", "M-3.5-3.5h7v7h-7z"),
    ("#00805c", "#3ecf9f", "M0-4.6L4.4 3.4H-4.4z"),
    ("#b03a8b", "#ee85c8", "M0-5L5 0L0 5L-5 0z"),
    ("#776300", "#d9c04a", "M0 4.6L4.4-3.4H-4.4z"),
    ("#2b7fae", "#9fdcff", "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    ("#5b5b5b", "#c0c0c0", "M-4.5-2.5h9v5h-9z"),
    ("#7b2d12", "#e0a090", "M-2.5-4.5h5v9h-5z"),
]
MOST_ROWS = 12  # of a run in a table of metrics
MOST_LETTERS = 300  # of a setting

HOST_STATISTICS = {  # what the hosts write, and what it says
    "Loss/G/loss": ("Loss of G", ""),
    "Loss/D/loss": ("Loss of D", ""),
    "Loss/G/reg": ("Regularization of G", "As it enters G's loss."),
    "Loss/D/reg": ("Regularization of D", "As it enters D's loss."),
    "Loss/r1_penalty": ("R1 penalty", "Squared gradient of D's score on real images, without its weight."),
    "Loss/pl_penalty": ("Path length penalty", "Of G, without its weight."),
    "Loss/scores": ("Scores of D", "Above 0, D takes an image for real. Far apart and growing: D wins."),
    "Loss/signs": (
        "Signs of D's scores",
        "1: D takes every image for real, -1: none. Real near 1 early on is over-fitting; ADA holds it at 0.6.",
    ),
    "Progress/augment": ("ADA's p", "Probability of each augmentation. Rising without end: too few images."),
    "Timing/sec_per_kimg": ("Seconds per kimg", "Of training alone."),
    "Resources/cpu_mem_gb": ("Main memory, GB", ""),
    "Resources/peak_gpu_mem_gb": ("GPU memory at its peak, GB", ""),
}
DIAGNOSTICS = {
    "scores": (
        "Scores of D",
        "Held-out images scored like generated ones, training images higher: D knows them by heart.",
    ),
    "r_t": ("r_t", "Mean sign of D's scores of training images (ADA's measure). Near 1: over-fitting."),
    "r_v": (
        "r_v",
        "Where held-out images lie between generated (1) and training images (0), by D's scores. Rising: over-fitting.",
    ),
    "accuracy": (
        "Accuracy of D",
        "Share of images that D takes for what they are. The gap to held-out is over-fitting.",
    ),
    "nearest": (
        "Distance to the nearest training image",
        "Samples nearer than held-out images are: G repeats what it was shown.",
    ),
}
CLOCKS = ("Progress/", "Timing/total")  # rise with kimg, whatever a run does: in the table, not drawn


@dataclass(frozen=True)
class Group:
    """Charts under a heading. further: those that few want to see. constant: statistics that never changed."""

    title: str
    charts: list[Chart]
    further: list[Chart]
    constant: list[tuple[str, str]]


@dataclass(frozen=True)
class Entry:
    """A run on the page. letter: its short name; made: pictures made with its generator, if that was asked for."""

    letter: str
    name: str
    run: Run
    pictures: list[Picture]
    made: list[Picture]
    facts: dict[str, tuple[str, str]]
    notes: list[str]


def write(paths: Sequence[Path], out: Path, host: Path | None = None) -> int:
    """Write the report of `stylegan-plugins report`, and return its number of bytes.

    Raises DataError if a path is no run or `out` cannot be written, OptionError for too many runs, HostError if `host`
    is none."""
    require("jinja2", "report")
    if out.is_dir():
        raise DataError(f"--out: {out} is a folder; give the name of a file.")
    paths = list({path.resolve(): path for path in paths}.values())
    if len(paths) > len(COLORS):
        raise OptionError(f"{len(paths)} runs are too many: more than {len(COLORS)} lines cannot be told apart.")
    runs = [history.read(path) for path in paths]
    if host is not None:
        from stylegan_plugins.host.find import choose_host

        choose_host(host)
    page = render(runs, host is not None).encode()
    with whole(out) as file:
        file.write(page)
    return len(page)


def render(runs: Sequence[Run], with_generator: bool = False) -> str:
    """Return the page. with_generator: a host is in use, from which generators can be made."""
    import jinja2

    here = Path(__file__).parent
    script = (here / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    entries = [_entry(index, run, runs, with_generator) for index, run in enumerate(runs)]
    letters = [entry.letter for entry in entries]
    groups = stat_groups(runs, letters)
    diagnostics = _group("Over-fitting", [run.diagnostics for run in runs], DIAGNOSTICS, letters)
    return environment.from_string((here / "report.html.jinja").read_text(encoding="utf-8")).render(
        title=entries[0].name if len(runs) == 1 else f"{len(runs)} runs",
        entries=entries,
        colors=COLORS,
        charts=charts,
        metrics=_metrics(runs, letters),
        diagnostics=diagnostics if diagnostics.charts or diagnostics.constant else None,
        groups=groups,
        differing=differing(runs),
        settings=_settings(runs),
        statistics=_last_values(runs),
        with_generator=with_generator,
        made=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        version=__version__,
        script=script,
        # The page may run this script and no other, whatever gets into it.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def stat_groups(runs: Sequence[Run], letters: Sequence[str]) -> list[Group]:
    """Return charts of stats.jsonl: the host's losses, D's judgement, then what plug-ins wrote, by the first word of
    its name, and time and memory at the end."""
    tables = [run.stats for run in runs]
    judgement = ("Loss/scores/", "Loss/signs/", "Progress/augment")
    resources = ("Timing/", "Resources/")

    def named(test: Callable[[str], bool]) -> list[Table]:
        return [Table(t.kimg, {name: t.values[name] for name in sorted(t.values) if test(name)}) for t in tables]

    names = sorted({name for table in tables for name in table.values})
    own = dict.fromkeys(name.split("/")[0] for name in names if not name.startswith(("Loss/", "Progress/", *resources)))
    losses = named(lambda name: name.startswith("Loss/") and not name.startswith(judgement))
    measured = named(lambda name: name.startswith(resources) and not name.startswith(CLOCKS))
    found = [
        _group("Losses", losses, HOST_STATISTICS, letters),
        _group("What D thinks", named(lambda name: name.startswith(judgement)), HOST_STATISTICS, letters),
        *(_group(first, named(lambda name, first=first: name.split("/")[0] == first), {}, letters) for first in own),  # type: ignore[misc]
        _group("Time and memory", measured, HOST_STATISTICS, letters, further=lambda key: key not in HOST_STATISTICS),
    ]
    return [group for group in found if group.charts or group.further or group.constant]


def _group(
    title: str,
    tables: Sequence[Table],
    known: dict[str, tuple[str, str]],
    letters: Sequence[str],
    further: Callable[[str], bool] = lambda key: False,
) -> Group:
    """Draw one chart for each statistic; what was measured on several kinds of images shares one."""
    lines: dict[str, list[Line]] = {}
    for index, table in enumerate(tables):
        for name in table.values:
            key, _, source = name.rpartition("/")
            if source not in charts.SOURCES or not key:
                key, source = name, ""
            lines.setdefault(key, []).append(Line(index, source, table.points(name)))
    group = Group(title, [], [], [])
    order = [*known, *sorted(lines)]
    for key in sorted(lines, key=order.index):
        if (value := charts.is_constant(lines[key])) is not None:
            group.constant.append((key, charts.written(value)))
            continue
        heading, explained = known.get(key, (key.removeprefix(f"{title}/"), ""))
        drawn = charts.chart(heading, key, lines[key], letters, explained)
        if drawn is not None:
            (group.further if further(key) else group.charts).append(drawn)
    return group


def _entry(index: int, run: Run, runs: Sequence[Run], with_generator: bool) -> Entry:
    name = run.path.resolve().name
    if [other.path.resolve().name for other in runs].count(name) > 1:
        name = f"{run.path.resolve().parent.name}/{name}"
    letter = chr(ord("A") + index)
    notes = list(run.notes)
    pictures = thumbnails.sheets(run, name, notes)
    made: list[Picture] = []
    if with_generator:
        try:
            made = thumbnails.generated(run, name)
        except UserError as error:
            notes.append(f"No images were made with the generator: {error}")
    return Entry(letter, name, run, pictures, made, facts(run), notes)


def facts(run: Run) -> dict[str, tuple[str, str]]:
    """Return the table at the top: by heading a value, and a remark on it."""

    def last(name: str) -> str:
        measured = [value for value in run.stats.values.get(name, []) if value is not None]
        return charts.written(measured[-1]) if measured else "–"

    def setting(name: str) -> str:
        return shown(run.settings[name]) if name in run.settings else "–"

    seconds = [value for value in run.stats.values.get("Timing/total_sec", []) if value is not None]
    total = run.total_kimg
    state = ", not complete" if total is not None and (run.kimg is None or run.kimg < total) else ""
    kimg = "–" if run.kimg is None else f"{run.kimg:.6g}"
    result = {
        "Plug-ins": (", ".join(run.plugins) or "none", ""),
        "Images": (setting("training_set_kwargs.max_size"), ""),
        "Batch": (setting("batch_size"), ""),
        "kimg": (kimg, f"of {'?' if total is None else f'{total:.6g}'}{state}"),
        "Time": (duration(seconds[-1]) if seconds else "–", ""),
        "Sec/kimg": (last("Timing/sec_per_kimg"), ""),
        "Loss G, D": (f"{last('Loss/G/loss')}, {last('Loss/D/loss')}", ""),
        "Signs real, generated": (f"{last('Loss/signs/real')}, {last('Loss/signs/fake')}", ""),
        "ADA's p": (last("Progress/augment"), ""),
    }
    for name, table in run.metrics.items():
        if (best := best_of(table.points(name), name)) is not None:
            result[f"Best {name}"] = (charts.written(best[1]), f"at {best[0]:.6g} kimg")
    return result


def best_of(points: Iterable[charts.Point], metric: str) -> tuple[float, float] | None:
    """Return (kimg, value) of the best; None if there are no values or the metric is not ranked. Of equals, the
    earliest."""
    higher = history.is_higher_better(metric)
    measured = [(kimg, value) for kimg, value in points if value is not None]
    if higher is None or not measured:
        return None
    return min(measured, key=lambda point: -point[1] if higher else point[1])


def duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(min(seconds, 1e12))), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _metrics(runs: Sequence[Run], letters: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each metric a chart, and a table of snapshots and runs with the best of each run marked."""
    found = []
    for name in sorted({name for run in runs for name in run.metrics}):
        points = {index: run.metrics[name].points(name) for index, run in enumerate(runs) if name in run.metrics}
        values = {index: dict(these) for index, these in points.items()}
        best = {index: best_of(these, name) for index, these in points.items()}
        higher = history.is_higher_better(name)
        best_of_all = best_of([point for point in best.values() if point], name)
        kept = sorted({kimg for these in points.values() for kimg, _ in charts.thin(these, MOST_ROWS)})
        rows = []
        for kimg in kept:
            cells = []
            for index in points:
                value, top = values[index].get(kimg), best[index]
                is_best = top is not None and top[0] == kimg
                is_best_of_all = is_best and best_of_all is not None and value == best_of_all[1]
                cells.append(("–" if value is None else charts.written(value), is_best, is_best_of_all))
            rows.append((f"{kimg:.6g}", cells))
        lines = [Line(index, "", these, dots=len(these) <= 40) for index, these in points.items()]
        found.append(
            {
                "name": name,
                "direction": {True: "higher is better", False: "lower is better", None: ""}[higher],
                "chart": charts.chart(name, name, lines, letters),
                "runs": list(points),
                "rows": rows,
                "left_out": len({kimg for these in values.values() for kimg in these}) - len(rows),
            }
        )
    return found


def shown(value: Any) -> str:
    """Write a setting as text, cut if it is long."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ..."


def _settings(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [(name, [shown(run.settings[name]) if name in run.settings else "–" for run in runs]) for name in names]


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not the same in all runs, but for the folder of the run, which never is."""
    return [(name, values) for name, values in _settings(runs) if len(set(values)) > 1 and name != "run_dir"]


def _last_values(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return every statistic of stats.jsonl and diagnostics.jsonl: the last value and the range, for each run."""
    rows = []
    for kind in ("stats", "diagnostics"):
        tables: list[Table] = [getattr(run, kind) for run in runs]
        for name in sorted({name for table in tables for name in table.values}):
            cells = []
            for table in tables:
                measured = [value for value in table.values.get(name, []) if value is not None]
                ends = [charts.written(function(measured)) for function in (min, max)] if measured else []
                cells.append((charts.written(measured[-1]), " … ".join(ends)) if measured else ("–", ""))
            rows.append((name if kind == "stats" else f"diagnostics: {name}", cells))
    return rows
