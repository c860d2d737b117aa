"""One HTML file about one or several runs: it holds all that it shows, opens from disk, and loads nothing.

history.py reads the runs, charts.py draws curves, thumbnails.py makes pictures small, report.html.jinja lays the
page out. The template escapes whatever comes from files, and is complete without report.js, which only shows values
under a pointer."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_plugins import __version__
from stylegan_plugins.analysis import records
from stylegan_plugins.errors import DataError, OptionError, UserError, require
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.report import charts, history, thumbnails
from stylegan_plugins.report.charts import Chart, Line
from stylegan_plugins.report.curves import Table, number
from stylegan_plugins.report.history import Run
from stylegan_plugins.report.thumbnails import Picture

HERE = Path(__file__).parent
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
MOST_METRICS = 200
MOST_LETTERS = 300  # of a setting

EARLY = 200  # kimg; statistics.json has other texts for runs that have not come so far

# By name a heading, what it says, and what may be said of an early run: of what the hosts write, and of diagnostics.
STATISTICS: dict[str, dict[str, list[str]]] = json.loads((HERE / "statistics.json").read_text(encoding="utf-8"))
HEADINGS: dict[str, str | None] = {  # of groups of statistics, by how names begin, the first that fits; None: not drawn
    **dict.fromkeys(("Loss/scores/", "Loss/signs/", "Progress/augment"), "What D thinks"),
    **dict.fromkeys(("Progress/", "Timing/total"), None),  # rise with kimg, whatever a run does: in the table alone
    "Loss/": "Losses",
    **dict.fromkeys(("Timing/", "Resources/"), "Time and memory"),
}


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


def write(paths: Sequence[Path], out: Path, with_generator: bool = False) -> int:
    """Write the report of `stylegan-plugins report`, and return its number of bytes. Arguments as of `render`.

    Raises DataError if a path is no run or `out` cannot be written, OptionError for too many runs."""
    require("jinja2", "report")
    if out.is_dir():
        raise DataError(f"--out: {out} is a folder; give the name of a file.")
    paths = list({path.resolve(): path for path in paths}.values())
    if len(paths) > len(COLORS):
        raise OptionError(f"{len(paths)} runs are too many: more than {len(COLORS)} lines cannot be told apart.")
    runs = [history.read(path) for path in paths]
    page = render(runs, with_generator).encode(errors="replace")  # "?" for lone surrogates, which no page may have
    with whole(out) as file:
        file.write(page)
    return len(page)


def render(runs: Sequence[Run], with_generator: bool = False) -> str:
    """Return the page. with_generator: a host is in use, from which generators can be made."""
    template, script = _layout()
    entries = [_entry(index, run, runs, with_generator) for index, run in enumerate(runs)]
    tables = [run.diagnostics for run in runs]
    names = dict.fromkeys(name for table in tables for name in table.values)
    diagnostics = _group("Over-fitting", tables, names, STATISTICS["diagnostics"])
    return template.render(
        title=entries[0].name if len(runs) == 1 else f"{len(runs)} runs",
        entries=entries,
        colors=COLORS,
        charts=charts,
        metrics=_metrics(runs),
        diagnostics=diagnostics if diagnostics.charts or diagnostics.constant else None,
        groups=_stat_groups(runs),
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


@functools.cache
def _layout() -> tuple[Any, str]:
    """Return the template, which takes a quarter of a second to compile, and the script of the page."""
    from jinja2 import StrictUndefined, Template

    layout = (HERE / "report.html.jinja").read_text(encoding="utf-8")
    template = Template(layout, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template, (HERE / "report.js").read_text(encoding="utf-8")


def _stat_groups(runs: Sequence[Run]) -> list[Group]:
    """Return charts of stats.jsonl: the host's losses, D's judgement, then what plug-ins wrote, by the first word of
    its name, and time and memory at the end."""
    names: dict[str, list[str]] = {"Losses": [], "What D thinks": []}
    for name in sorted({name for run in runs for name in run.stats.values}):
        heading = next((HEADINGS[start] for start in HEADINGS if name.startswith(start)), name.split("/")[0])
        if heading is not None:
            names.setdefault(heading, []).append(name)
    names["Time and memory"] = names.pop("Time and memory", [])
    tables = [run.stats for run in runs]
    groups = [_group(heading, tables, these, STATISTICS["host"]) for heading, these in names.items()]
    return [group for group in groups if group.charts or group.further or group.constant]


def _group(title: str, tables: Sequence[Table], names: Iterable[str], known: dict[str, list[str]]) -> Group:
    """Draw one chart for each statistic; what was measured on several kinds of images shares one."""
    lines: dict[str, list[Line]] = {}
    for index, table in enumerate(tables):
        for name in names:
            if name not in table.values:
                continue
            key, _, source = name.rpartition("/")
            if source not in charts.SOURCES or not key:
                key, source = name, ""
            lines.setdefault(key, []).append(Line(index, source, table.points(name)))
    group = Group(title, [], [], [])
    early = max((table.kimg[-1] for table in tables if table.kimg), default=0.0) < EARLY
    for key in sorted(lines, key=[*known, *sorted(lines)].index):
        if (value := charts.is_constant(lines[key])) is not None:
            group.constant.append((key, charts.written(value)))
            continue
        heading, *explained = known.get(key, [key.removeprefix(f"{title}/"), ""])
        if drawn := charts.chart(heading, key, lines[key], explained[-1 if early else 0]):
            few_want_it = title == "Time and memory" and key not in known
            (group.further if few_want_it else group.charts).append(drawn)
    return group


def _entry(index: int, run: Run, runs: Sequence[Run], with_generator: bool) -> Entry:
    path, names = run.path.resolve(), [other.path.resolve().name for other in runs]
    name = path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}"
    notes = list(run.notes)
    pictures = thumbnails.sheets(run, name, notes)
    made: list[Picture] = []
    if with_generator:
        try:
            made = thumbnails.generated(run, name)
        except UserError as error:
            notes.append(f"No images were made with the generator: {error}")
    return Entry(charts.LETTERS[index], name, run, pictures, made, _facts(run, _main_keys(runs)), notes)


def _facts(run: Run, main: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the table at the top: by heading a value, and a remark on it. main: keys of the results that rank."""
    last = lambda name: charts.written(run.stats.last(name))
    setting = lambda name: shown(run.settings[name]) if name in run.settings else "–"
    seconds, total = run.stats.last("Timing/total_sec"), number(run.settings.get("total_kimg"))
    state = ", not complete" if total is not None and (run.kimg or 0) < total else ""
    result = {
        "Plug-ins": (", ".join(run.plugins) or "none", ""),
        "Images": (setting("training_set_kwargs.max_size"), ""),
        "Batch": (setting("batch_size"), ""),
        "kimg": (
            "–" if run.kimg is None else f"{run.kimg:.6g}",
            f"of {'?' if total is None else f'{total:.6g}'}{state}",
        ),
        "Time": ("–" if seconds is None else duration(seconds), ""),
        "Sec/kimg": (last("Timing/sec_per_kimg"), ""),
        "Loss G, D": (f"{last('Loss/G/loss')}, {last('Loss/D/loss')}", ""),
        "Signs real, generated": (f"{last('Loss/signs/real')}, {last('Loss/signs/fake')}", ""),
        "ADA's p": (last("Progress/augment"), ""),
    }
    for name, by_key in list(run.metrics.items())[:MOST_METRICS]:
        table = by_key.get(main[name])
        if table is not None and (best := best_of(table.points(name), name)) is not None:
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


def _main_keys(runs: Sequence[Run]) -> dict[str, str]:
    """Return by the name of a figure the key of the results that rank snapshots, the same for all runs."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for line in run.results:
            for name in line["results"]:
                by_name.setdefault(name, []).append(line)
    return {name: key for name, these in by_name.items() if (key := records.main_key(these)) is not None}


def _metrics(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a chart and a table of snapshots and runs for each metric, and for each key of its results. The best of
    each run is marked where the key ranks snapshots."""
    main = _main_keys(runs)
    described = {records.key_of(line): records.described(line) for run in runs for line in run.results}
    keys = {(name, key): key != main[name] for run in runs for name, these in run.metrics.items() for key in these}
    found = []
    for name, key in sorted(keys, key=lambda this: (this[0], keys[this], this[1]))[:MOST_METRICS]:
        tables = {index: run.metrics.get(name, {}).get(key) for index, run in enumerate(runs)}
        points = {index: table.points(name) for index, table in tables.items() if table is not None}
        ranked = key == main[name]
        best = {index: best_of(these, name) if ranked else None for index, these in points.items()}
        best_of_all = best_of([point for point in best.values() if point], name)
        rows = []
        for kimg in sorted({kimg for these in points.values() for kimg, _ in charts.thin(these, MOST_ROWS)}):
            cells = []
            for index, these in points.items():
                value = dict(these).get(kimg)
                is_best = best[index] == (kimg, value)
                is_best_of_all = is_best and best_of_all is not None and value == best_of_all[1]
                cells.append((charts.written(value), is_best, is_best_of_all))
            rows.append((f"{kimg:.6g}", cells))
        lines = [Line(index, "", these, dots=len(these) <= 40) for index, these in points.items()]
        direction = {True: "higher is better", False: "lower is better", None: ""}[history.is_higher_better(name)]
        title = name if ranked else f"{name}:{key or 'unknown'}"
        other = "" if ranked else "not of the images, samples or weights by which snapshots are ranked: none is marked"
        found.append(
            {
                "name": title,
                "remarks": [text for text in (direction, described[key], other) if text],
                "chart": charts.chart(title, name, lines, described[key]),
                "runs": list(points),
                "rows": rows,
                "left_out": len({kimg for these in points.values() for kimg, _ in these}) - len(rows),
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

    def cell_of(table: Table, name: str) -> tuple[str, str]:
        ends = [charts.written(end(values)) for end in (min, max) if (values := table.measured(name))]
        return charts.written(table.last(name)), " … ".join(ends)

    rows = []
    for before, tables in (("", [run.stats for run in runs]), ("diagnostics: ", [run.diagnostics for run in runs])):
        for name in sorted({name for table in tables for name in table.values}):
            rows.append((before + name, [cell_of(table, name) for table in tables]))
    return rows
