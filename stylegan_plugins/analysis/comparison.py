"""The results of `stylegan-plugins compare`: one table as Markdown, HTML and CSV, and a figure of a varied option."""

from __future__ import annotations

import base64
import csv
import functools
import io
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stylegan_plugins.analysis import markdown, metrics
from stylegan_plugins.analysis.cells import Cell, Row, share_name
from stylegan_plugins.errors import require
from stylegan_plugins.files.atomic import whole, write_json

TITLES = {"fid": "FID", "kid": "KID", "pr": "F-score of precision and recall", "is": "Inception Score"}
TITLES |= {f"pr_{name}": name for name in ("precision", "recall")}
NAME = "compare"  # name of the files, before their endings


def require_libraries() -> None:
    """Raise DataError if the libraries for the page and the figure are not installed."""
    for package in ("jinja2", "matplotlib"):
        require(package, "metrics")


@dataclass(frozen=True)
class Column:
    """A figure that is compared.

    name, key   in --metric, and in lines of results
    higher      True if higher is better, False if lower is; None: no value is best
    floor       figure of one half of the real images against the other; None if there is none"""

    name: str
    key: str
    higher: bool | None
    floor: float | None = None

    @property
    def title(self) -> str:
        """Return the figure with an arrow in the better direction."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher]
        best, name = self.name.startswith(metrics.BEST), self.name.removeprefix(metrics.BEST)
        return f"{TITLES.get(name, name)}{', best snapshot' if best else ''}{arrow}"


@dataclass(frozen=True)
class Published:
    """Published figures for some rows.

    heads    names of the published columns
    rows     by row of our table, plug-ins and options: the published name of the row, and its figures by column
    source   publication and table"""

    heads: Sequence[str]
    rows: Mapping[Row, tuple[str, Mapping[str, float]]]
    source: str

    def of(self, row: Row) -> list[str]:
        """Return the published cells for a row of the table, which may have varied options, too."""
        plugins, varied = row
        matches = [own for names, own in self.rows if names == plugins and varied[: len(own)] == own]
        if not matches:
            return ["–"] * (1 + len(self.heads))
        name, figures = self.rows[plugins, max(matches, key=len)]
        return [name or "–", *(f"{figures[head]:g}" if head in figures else "–" for head in self.heads)]


@dataclass(frozen=True)
class Measured:
    """A run and its figures by column. folder: name of its cell's folder; ada: `on`, `off`, or the fixed probability of
    ADA's augmentations."""

    cell: Cell
    folder: str
    values: Mapping[str, float]
    ada: str


@dataclass(frozen=True)
class TableCell:
    """A cell of the table. tied: not distinguished from the best of its column."""

    text: str
    best: bool = False
    tied: bool = False


@dataclass(frozen=True)
class Results:
    """Results so far.

    samples, real      numbers of generated and real images
    held_out           the real images are not the training images
    planned            all runs of the comparison, in the order of the table"""

    columns: Sequence[Column]
    features: str
    kimg: int
    samples: int
    real: int
    planned: Sequence[Cell]
    runs: Sequence[Measured]
    held_out: bool = False
    published: Published | None = None

    @property
    def title(self) -> str:
        return ", ".join(column.title for column in self.columns)

    @functools.cached_property
    def rows(self) -> list[Row]:
        return list(dict.fromkeys(cell.row for cell in self.planned))

    @functools.cached_property
    def shares(self) -> list[float]:
        return list(dict.fromkeys(cell.fraction for cell in self.planned))

    @functools.cached_property
    def options(self) -> list[str]:
        """Return the names of varied options."""
        return list(dict.fromkeys(name for cell in self.planned for name, _ in cell.varied))

    @property
    def seeds(self) -> int:
        return len({cell.seed for cell in self.planned})

    @functools.cached_property
    def ada(self) -> dict[Row, str]:
        return {run.cell.row: run.ada for run in self.runs}

    def values(self, column: Column, row: Row, share: float) -> list[float]:
        return [run.values[column.name] for run in self.runs if (run.cell.row, run.cell.fraction) == (row, share)]

    def caption(self) -> list[str]:
        """Return the caption of the table, in sentences."""
        far = "" if len(self.runs) == len(self.planned) else f" {len(self.runs)} of {len(self.planned)} runs so far."
        better = {True: ", higher is better", False: ", lower is better", None: ""}
        compared = "; ".join(f"{column.title} ({column.key}){better[column.higher]}" for column in self.columns)
        real = f"{self.real} {'held-out' if self.held_out else 'real'}"
        found = [
            f"{compared}; features: {self.features}.",
            f"{self.kimg} kimg a run, {self.samples} generated and {real} images.{far}",
        ]
        floors = {column.title: column.floor for column in self.columns if column.floor is not None}
        if floors:
            several = len(self.columns) > 1
            values = ", ".join(f"{title} {floor:.4g}" if several else f"{floor:.4g}" for title, floor in floors.items())
            found.append(f"Split-half floor, one half of the real images against the other: {values}.")
        if len(set(self.ada.values())) == 1:
            found.append(f"ADA: {next(iter(self.ada.values()))}.")
        if self.seeds == 1:
            found.append("One seed, so differences may be chance. Bold: the best of a column.")
        else:
            found.append(
                f"Mean ± standard deviation over {self.seeds} seeds. Bold: the best mean of a column. ≈: not "
                "distinguished from it, which means no farther from it than the larger of the two standard deviations."
            )
        return found

    def table(self) -> tuple[list[str], list[list[TableCell]]]:
        """Return the head and the rows."""
        differ = len(set(self.ada.values())) > 1
        name = lambda title, share: title if self.shares == [1] else f"{title}, {share_name(share)}"
        published = self.published
        figures = list(itertools.product(self.shares, self.columns))
        columns = [self._column(column, share) for share, column in figures]
        rows = []
        for row in self.rows:
            plugins, chosen = row[0].replace(",", " + "), dict(row[1])
            words = [plugins, *(chosen.get(option, "–") for option in self.options)]
            words += [self.ada.get(row, "")] if differ else []
            quoted = [] if published is None else published.of(row)
            rows.append([*map(TableCell, words), *(column[row] for column in columns), *map(TableCell, quoted)])
        head = [
            "plug-ins",
            *self.options,
            *(["ADA"] if differ else []),
            *(name(column.title, share) for share, column in figures),
        ]
        head += [] if published is None else ["published as", *(f"published, {name}" for name in published.heads)]
        return head, rows

    def below(self) -> list[str]:
        """Return the text below the table, in sentences: the source of published figures."""
        return (
            [] if self.published is None else [f"Published figures are quoted, and not ours: {self.published.source}"]
        )

    def _column(self, figure: Column, share: float) -> dict[Row, TableCell]:
        found = {row: values for row in self.rows if (values := self.values(figure, row, share))}
        means = {row: statistics.fmean(values) for row, values in found.items()}
        spread = {row: statistics.stdev(values) if len(values) > 1 else 0.0 for row, values in found.items()}
        best = (max if figure.higher else min)(means, key=lambda row: means[row], default=None)
        if len(set(means.values())) < 2 or figure.higher is None:
            best = None
        column = {}
        for row in self.rows:
            if row not in found:
                column[row] = TableCell("–")
                continue
            text = f"{means[row]:.4g}" + (f" ± {spread[row]:.3g}" if len(found[row]) > 1 else "")
            near = best is not None and abs(means[row] - means[best]) <= max(spread[row], spread[best])
            column[row] = TableCell(text, row == best, near and row != best and self.seeds > 1)
        return column


def as_markdown(results: Results, figure: bool = False) -> str:
    """Return the table with its caption. figure: link compare.svg, which lies beside it."""
    head, rows = results.table()
    mark = lambda entry: f"**{entry.text}**" if entry.best else f"{entry.text}{' ≈' * entry.tied}"
    table = markdown.table(head, [[mark(entry) for entry in row] for row in rows])
    caption = "\n".join(results.caption())
    return "\n\n".join([caption, table, *results.below(), *([f"![{results.title}]({NAME}.svg)"] if figure else [])])


def as_csv(results: Results) -> str:
    """Return the runs as CSV, one line for each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["plugins", *results.options, "fraction", "seed", "ada", "kimg", "samples", "real"]
    head += [*(column.key for column in results.columns), "folder"]
    writer.writerow(head)
    for run in results.runs:
        chosen = dict(run.cell.varied)
        words = [run.cell.plugins, *(chosen.get(name, "") for name in results.options), run.cell.fraction]
        words += [run.cell.seed, run.ada, results.kimg, results.samples, results.real]
        words += [*(run.values[column.name] for column in results.columns), run.folder]
        writer.writerow(words)
    return out.getvalue()


def as_html(results: Results, figure: bytes | None) -> str:
    """Return a page that loads nothing. figure: SVG."""
    from jinja2 import StrictUndefined, Template

    layout = Path(__file__).with_name("compare.html.jinja").read_text(encoding="utf-8")
    template = Template(layout, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    head, rows = results.table()
    drawn = None if figure is None else base64.b64encode(figure).decode()
    return template.render(results=results, head=head, rows=rows, figure=drawn)


def as_figure(results: Results) -> bytes | None:
    """Draw each metric over the first varied option that has numbers as values, as SVG. Each line is one combination of
    plug-ins, other options and share of the data, with standard deviations over seeds. A combination without the option
    is a dashed line. None without such an option."""
    option = next((name for name in results.options if _is_numeric(results, name)), None)
    if option is None:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4 * len(results.columns)), layout="constrained")
    with matplotlib.rc_context({"svg.hashsalt": NAME, "text.parse_math": False}):
        for column, (axes,) in zip(results.columns, figure.subplots(len(results.columns), squeeze=False), strict=True):
            _draw(results, column, option, axes)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw(results: Results, column: Column, option: str, axes: Any) -> None:
    marks = itertools.cycle("os^Dvp*h")
    lines: dict[tuple[Any, ...], list[tuple[float, list[float]]]] = {}
    for (plugins, varied), share in itertools.product(results.rows, results.shares):
        if values := results.values(column, (plugins, varied), share):
            others = tuple(f"{name} {value}" for name, value in varied if name != option)
            place = float(dict(varied).get(option, "nan"))
            data = [] if results.shares == [1] else [share_name(share)]
            lines.setdefault((plugins.replace(",", " + "), *others, *data), []).append((place, values))
    for words, points in lines.items():
        means = [statistics.fmean(values) for _, values in points]
        if math.isnan(points[0][0]):
            axes.axhline(means[0], linestyle="--", color=f"C{len(axes.lines) % 10}", label=", ".join(words))
            continue
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points]
        order = sorted(range(len(points)), key=lambda i: points[i][0])
        x, y, deviation = ([values[i] for i in order] for values in ([at for at, _ in points], means, spread))
        errors = deviation if results.seeds > 1 else None
        axes.errorbar(x, y, errors, marker=next(marks), capsize=3, label=", ".join(words))
    places = sorted({place for points in lines.values() for place, _ in points if not math.isnan(place)})
    if len(places) > 1 and places[0] > 0 and places[-1] >= 8 * places[0]:
        axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.set_xticks([], minor=True)
    axes.set(xlabel=option, ylabel=f"{column.title} ({column.key})")
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False)


def _is_numeric(results: Results, option: str) -> bool:
    """Return whether an option has several values, all of them finite numbers."""
    texts = {value for cell in results.planned for name, value in cell.varied if name == option}
    try:
        return len({number for text in texts if math.isfinite(number := float(text))}) == len(texts) > 1
    except ValueError:
        return False


def write(results: Results, outdir: Path, more: dict[str, Any]) -> str:
    """Write compare.md, .csv, .html, .json, and .svg if there is a figure. more: further fields of the JSON. Returns
    the Markdown."""
    figure = as_figure(results) if results.runs else None
    text = as_markdown(results, figure is not None)
    contents = {"md": f"{text}\n".encode(errors="backslashreplace"), "csv": as_csv(results).encode(errors="replace")}
    contents["html"] = as_html(results, figure).encode(errors="replace")
    if figure is None:
        (outdir / f"{NAME}.svg").unlink(missing_ok=True)
    else:
        contents["svg"] = figure
    for ending, content in contents.items():
        with whole(outdir / f"{NAME}.{ending}") as out:
            out.write(content)
    cells = [{**asdict(run.cell), "varied": dict(run.cell.varied), "folder": run.folder} for run in results.runs]
    measured = [cell | {"ada": run.ada, "values": run.values} for cell, run in zip(cells, results.runs, strict=True)]
    known = {name: getattr(results, name) for name in ("features", "kimg", "samples", "real")}
    metrics = [asdict(column) for column in results.columns]
    write_json(outdir / f"{NAME}.json", {"metrics": metrics, **known, **more, "cells": measured})
    return text
