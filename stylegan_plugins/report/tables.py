"""The tables of a report. If a configuration has several runs, a value is their mean ± standard deviation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stylegan_plugins.analysis import records
from stylegan_plugins.report import charts, history
from stylegan_plugins.report.charts import Line
from stylegan_plugins.report.configurations import Configuration
from stylegan_plugins.report.curves import Table
from stylegan_plugins.report.history import Run

MOST_ROWS = 12  # rows of a configuration in a table of metrics
MOST_METRICS = 200
MOST_LETTERS = 300  # letters of a setting
Facts = dict[str, tuple[str, str]]  # by heading, a value and a remark on it


def mean(values: Iterable[float | None]) -> str:
    """Return the mean of measured values as text, with the standard deviation of a sample if there are two or more."""
    found = [value for value in values if value is not None]
    if len(found) < 2:
        return charts.written(found[0] if found else None)
    try:
        return with_deviation(statistics.fmean(found), statistics.stdev(found))
    except OverflowError:  # values near the largest number
        return "–"


def with_deviation(value: float | None, deviation: float | None) -> str:
    """Return a value and its standard deviation, if it has one, as text."""
    return charts.written(value) if deviation is None else f"{charts.written(value)} ± {deviation:.2g}"


def facts(of: Configuration, main: Mapping[str, str]) -> Facts:
    """Return the table at the top. main: by figure, the key of the results that rank snapshots."""
    last = lambda name: mean(run.stats.last(name) for run in of.runs)
    setting = lambda name: shown(of.settings[name]) if name in of.settings else "–"
    done = [run.kimg for run in of.runs]
    kimg = sorted({f"{value:.6g}" if value is not None else "–" for value in done}, key=lambda text: (len(text), text))
    total = of.runs[0].total_kimg
    state = ", not complete" if total is not None and not of.is_complete else ""
    result = {
        "Plug-ins": (", ".join(of.runs[0].plugins) or "none", ""),
        **({"Seeds": (of.seeds.partition(" ")[2], "")} if of.seeds else {}),
        "Images": (setting("training_set_kwargs.max_size"), ""),
        "Batch": (setting("batch_size"), ""),
        "kimg": (" to ".join(kimg[:: max(len(kimg) - 1, 1)]), f"of {'?' if total is None else f'{total:.6g}'}{state}"),
        "Time": (_longest(run.stats.last("Timing/total_sec") for run in of.runs), ""),
        "Sec/kimg": (last("Timing/sec_per_kimg"), ""),
        "Loss G, D": (f"{last('Loss/G/loss')}, {last('Loss/D/loss')}", ""),
        "Signs real, generated": (f"{last('Loss/signs/real')}, {last('Loss/signs/fake')}", ""),
        "ADA's p": (last("Progress/augment"), ""),
    }
    for name in list(of.metrics)[:MOST_METRICS]:
        best = [best_of_run(run, name, main[name]) for run in of.runs]
        found = [point for point in best if point is not None]
        if found:
            at = sorted({point[0] for point in found})
            where = " to ".join(f"{kimg:.6g}" for kimg in at[:: max(len(at) - 1, 1)])
            result[f"Best {name}"] = (mean(point[1] for point in found), f"at {where} kimg")
    return result


def _longest(seconds: Iterable[float | None]) -> str:
    found = [value for value in seconds if value is not None]
    return duration(max(found)) if found else "–"


def best_of_run(run: Run, name: str, key: str) -> tuple[float, float] | None:
    table = run.metrics.get(name, {}).get(key)
    return None if table is None else best_of(table.points(name), name)


def best_of(points: Iterable[charts.Point], metric: str) -> tuple[float, float] | None:
    """Return (kimg, value) of the best point, the earliest of equal ones. None if there are no values or the metric
    does not rank."""
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
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def main_keys(runs: Sequence[Run]) -> dict[str, str]:
    """Return, by figure, the key of the results that rank snapshots, the same key for all runs."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for line in run.results:
            for name in line["results"]:
                by_name.setdefault(name, []).append(line)
    return {name: key for name, these in by_name.items() if (key := records.main_key(these)) is not None}


def metrics(of: Sequence[Configuration], main: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a chart and a table, snapshots by configurations, for each metric and each key of its results. If the key
    ranks snapshots, the best of each configuration is marked."""
    runs = [run for one in of for run in one.runs]
    described = {records.key_of(line): records.described(line) for run in runs for line in run.results}
    keys = {(name, key): key != main[name] for one in of for name, these in one.metrics.items() for key in these}
    found = []
    for name, key in sorted(keys, key=lambda this: (this[0], keys[this], this[1]))[:MOST_METRICS]:
        tables = {index: one.metrics.get(name, {}).get(key) for index, one in enumerate(of)}
        ranked = key == main[name]
        direction = {True: "higher is better", False: "lower is better", None: ""}[history.is_higher_better(name)]
        title = name if ranked else f"{name}:{key or 'unknown'}"
        other = "" if ranked else "not of the images, samples or weights by which snapshots are ranked: none is marked"
        measured = {index: table for index, table in tables.items() if table is not None}
        lines = [
            Line(index, "", table.points(name), dots=len(table.kimg) <= 40, spread=table.spread(name))
            for index, table in measured.items()
        ]
        rows = _rows(measured, name, ranked)
        found.append(
            {
                "name": title,
                "remarks": [text for text in (direction, described[key], other) if text],
                "chart": charts.chart(title, name, lines, described[key]),
                "runs": list(measured),
                "rows": rows,
                "left_out": len({kimg for table in measured.values() for kimg in table.kimg}) - len(rows),
            }
        )
    return found


def _rows(tables: Mapping[int, Table], name: str, ranked: bool) -> list[tuple[str, list[tuple[str, bool, bool]]]]:
    """Return (kimg, cells) of a metric's table. A cell is a value, whether it is best of its column, and of all."""
    points = {index: table.points(name) for index, table in tables.items()}
    best = {index: best_of(these, name) if ranked else None for index, these in points.items()}
    best_of_all = best_of([point for point in best.values() if point], name)
    values = {index: dict(these) for index, these in points.items()}
    spread = {index: table.spread(name) for index, table in tables.items()}
    rows = []
    for kimg in sorted({kimg for these in points.values() for kimg, _ in charts.thin(these, MOST_ROWS)}):
        cells = []
        for index in points:
            value = values[index].get(kimg)
            is_best = best[index] == (kimg, value)
            is_best_of_all = is_best and best_of_all is not None and value == best_of_all[1]
            cells.append((with_deviation(value, spread[index].get(kimg)), is_best, is_best_of_all))
        rows.append((f"{kimg:.6g}", cells))
    return rows


def shown(value: Any) -> str:
    """Return a setting as text, cut if it is long."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} ..."


def settings(of: Sequence[Configuration]) -> list[tuple[str, list[str]]]:
    """Return each setting with its value in each configuration. If values differ between its runs, all are given."""

    def value_of(one: Configuration, name: str) -> str:
        texts = dict.fromkeys(shown(run.settings[name]) if name in run.settings else "–" for run in one.runs)
        return ", ".join(texts)

    names = dict.fromkeys(name for one in of for run in one.runs for name in run.settings)
    return [(name, [value_of(one, name) for one in of]) for name in names]


def differing(of: Sequence[Configuration]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between configurations, except the folder of a run, which always differs."""
    return [(name, values) for name, values in settings(of) if len(set(values)) > 1 and name != "run_dir"]


def last_values(of: Sequence[Configuration]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return every statistic of stats.jsonl and diagnostics.jsonl: its last value and its range, by configuration."""

    def cell_of(tables: Sequence[Table], name: str) -> tuple[str, str]:
        values = [value for table in tables for value in table.measured(name)]
        ends = [charts.written(end(values)) for end in (min, max) if values]
        return mean(table.last(name) for table in tables), " … ".join(ends)

    by_log = (
        ("", [[run.stats for run in one.runs] for one in of]),
        ("diagnostics: ", [[run.diagnostics for run in one.runs] for one in of]),
    )
    return [
        (before + name, [cell_of(tables, name) for tables in columns])
        for before, columns in by_log
        for name in sorted({name for tables in columns for table in tables for name in table.values})
    ]
