"""One HTML file about one or several runs: it contains all that it shows, opens from disk, and loads nothing.

history.py reads the runs, configurations.py joins seeds, verdict.py judges, tables.py and charts.py prepare text and
drawings, thumbnails.py makes pictures small, report.html.jinja is the layout. The template escapes all text from files.
It is complete without report.js, which only shows values under a pointer."""

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
from stylegan_plugins.errors import DataError, NotYetError, OptionError, UserError, require
from stylegan_plugins.files.atomic import whole
from stylegan_plugins.report import charts, history, tables, thumbnails
from stylegan_plugins.report.charts import Chart, Line
from stylegan_plugins.report.configurations import Configuration, configurations, seed_of
from stylegan_plugins.report.curves import Table
from stylegan_plugins.report.history import Run
from stylegan_plugins.report.tables import Facts
from stylegan_plugins.report.thumbnails import Picture
from stylegan_plugins.report.verdict import Sentence, verdict

HERE = Path(__file__).parent
COLORS = [  # on light and dark background, and a mark at the end of lines: no two lines differ by color alone
    ("#0067b1", "#5aa9f0", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
    ("#c94f00", "#ff9350", "M-3.5-3.5h7v7h-7z"),
    ("#00805c", "#3ecf9f", "M0-4.6L4.4 3.4H-4.4z"),
    ("#b03a8b", "#ee85c8", "M0-5L5 0L0 5L-5 0z"),
    ("#776300", "#d9c04a", "M0 4.6L4.4-3.4H-4.4z"),
    ("#2b7fae", "#9fdcff", "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"),
    ("#5b5b5b", "#c0c0c0", "M-4.5-2.5h9v5h-9z"),
    ("#7b2d12", "#e0a090", "M-2.5-4.5h5v9h-5z"),
]
EARLY = 200  # kimg; statistics.json has other texts for shorter runs
RELOAD = 30  # seconds after which the page of a training run loads itself again
PAGE = "report.html"  # file name in the directory of a run

# By name: a heading, an explanation, and one for an early run. Statistics of the hosts, and of diagnostics.
STATISTICS: dict[str, dict[str, list[str]]] = json.loads((HERE / "statistics.json").read_text(encoding="utf-8"))
HEADINGS: dict[str, str | None] = {  # by beginnings of statistics' names, the first that fits; None: not drawn
    **dict.fromkeys(("Loss/scores/", "Loss/signs/", "Progress/augment"), "Scores of D"),
    **dict.fromkeys(("Progress/", "Timing/total"), None),  # always rise with kimg: only in the table
    "Loss/": "Losses",
    **dict.fromkeys(("Timing/", "Resources/"), "Time and memory"),
}


@dataclass(frozen=True)
class Group:
    """Charts under a heading. further: charts that few readers want. constant: statistics that never changed."""

    title: str
    charts: list[Chart]
    further: list[Chart]
    constant: list[tuple[str, str]]


@dataclass(frozen=True)
class Stage:
    """The progress of a run. name: of its folder; done: share in [0, 1], None if it is not known; text: in words."""

    name: str
    done: float | None
    text: str


@dataclass(frozen=True)
class Entry:
    """A configuration on the page.

    letter      its short name
    name        name of the folder of its only run; of several runs, the name of the configuration
    label       plug-ins, settings that differ, seeds
    made        pictures made with its generator; empty if not asked for"""

    letter: str
    name: str
    label: str
    verdict: list[Sentence]
    progress: list[Stage]
    pictures: list[Picture]
    made: list[Picture]
    facts: Facts
    notes: list[str]


def refresh(run_dir: Path) -> None:
    """Write report.html into a run directory. Meant for each tick of training: it reads only new lines, draws no random
    numbers, and needs no host.

    Raises DataError if it cannot be written, or the run has nothing to show yet."""
    try:
        write([run_dir], run_dir / PAGE, live=True, known=_KNOWN)
    except OSError as error:
        raise DataError(f"{run_dir / PAGE} cannot be written ({error.strerror or error}).") from error


_KNOWN: dict[Path, history.Folder] = {}  # the folder of the run that this process trains


def write(
    paths: Sequence[Path],
    out: Path,
    with_generator: bool = False,
    live: bool = False,
    known: dict[Path, history.Folder] | None = None,
) -> int:
    """Write the report of `stylegan-plugins report`, and return its number of bytes.

    paths           run directories, or folders with runs in them
    with_generator  make pictures with the generators; a host is in use
    live            the page is written repeatedly, so it loads itself again while a run trains
    known           run folders that earlier calls have read, by path; this call adds to it. None: start without

    Raises DataError if a path is not a run or `out` cannot be written, OptionError for too many runs."""
    require("jinja2", "report")
    if out.is_dir():
        raise DataError(f"--out: {out} is a folder; give the name of a file.")
    runs, notes = read(paths, {} if known is None else known)
    return save(runs, notes, out, with_generator, live)


def read(paths: Sequence[Path], known: dict[Path, history.Folder]) -> tuple[list[Run], list[str]]:
    """Return the runs of these paths, and notes on runs of a folder that were left out, such as runs without a tick.

    Raises DataError if a path is not a run, NotYetError for a folder of which no run can be read yet."""
    runs: dict[Path, Run] = {}
    notes = []
    for path in paths:
        inner = history.runs_in(path)
        errors = []
        for folder in inner or [path]:
            at = folder.resolve()
            try:
                runs[at] = known.setdefault(at, history.Folder(folder)).read()
            except DataError as error:
                if not inner:
                    raise
                errors.append(error.message)
        if errors and len(errors) == len(inner):
            raise NotYetError(f"{path}: not one of its {len(inner)} runs can be read yet. {errors[0]}")
        notes += [f"A run is left out. {error}" for error in errors]
    return list(runs.values()), notes


def save(runs: Sequence[Run], notes: Sequence[str], out: Path, with_generator: bool, live: bool) -> int:
    """Write the page of given runs, and return its number of bytes. Arguments and errors as for `write`."""
    page = render(runs, with_generator, live, notes)
    content = page.encode(errors="replace")  # "?" for lone surrogates, which are not allowed in a page
    with whole(out) as file:
        file.write(content)
    return len(content)


def render(runs: Sequence[Run], with_generator: bool = False, live: bool = False, notes: Sequence[str] = ()) -> str:
    """Return the page. Raises OptionError for more configurations than colors. Arguments as for `write`."""
    shown = configurations(runs)
    if len(shown) > len(COLORS):
        raise OptionError(
            f"{len(shown)} different runs are too many: more than {len(COLORS)} lines cannot be told apart. Name some "
            "of the runs; those that differ in their seed alone count as one."
        )
    template, script = _layout()
    main = tables.main_keys(runs)
    entries = [_entry(index, shown, main, with_generator) for index in range(len(shown))]
    logs = [one.diagnostics for one in shown]
    names = dict.fromkeys(name for table in logs for name in table.values)
    diagnostics = _group("Over-fitting", logs, names, STATISTICS["diagnostics"])
    many = f"{len(shown)} runs" if len(runs) == len(shown) else f"{len(shown)} configurations, {len(runs)} runs"
    return template.render(
        title=entries[0].name if len(shown) == 1 else many,
        entries=entries,
        notes=notes,
        colors=COLORS,
        charts=charts,
        metrics=tables.metrics(shown, main),
        diagnostics=diagnostics if diagnostics.charts or diagnostics.constant else None,
        groups=_stat_groups(shown),
        has_seeds=len(runs) > len(shown),
        differing=tables.differing(shown),
        settings=tables.settings(shown),
        statistics=tables.last_values(shown),
        with_generator=with_generator,
        reload=RELOAD if live and not all(run.is_complete for run in runs) else None,
        made=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        version=__version__,
        script=script,
        # The page may run this script and no other, whatever text gets into it.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@functools.cache
def _layout() -> tuple[Any, str]:
    """Return the template, which takes a quarter of a second to compile, and the script of the page."""
    from jinja2 import StrictUndefined, Template

    layout = (HERE / "report.html.jinja").read_text(encoding="utf-8")
    template = Template(layout, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template, (HERE / "report.js").read_text(encoding="utf-8")


def _stat_groups(of: Sequence[Configuration]) -> list[Group]:
    """Return charts of stats.jsonl: the host's losses, scores of D, then statistics of plug-ins, by the first word of
    their names, and time and memory at the end."""
    names: dict[str, list[str]] = {"Losses": [], "Scores of D": []}
    for name in sorted({name for one in of for name in one.stats.values}):
        heading = next((HEADINGS[start] for start in HEADINGS if name.startswith(start)), name.split("/")[0])
        if heading is not None:
            names.setdefault(heading, []).append(name)
    names["Time and memory"] = names.pop("Time and memory", [])
    logs = [one.stats for one in of]
    groups = [_group(heading, logs, these, STATISTICS["host"]) for heading, these in names.items()]
    return [group for group in groups if group.charts or group.further or group.constant]


def _group(title: str, logs: Sequence[Table], names: Iterable[str], known: dict[str, list[str]]) -> Group:
    """Draw one chart for each statistic. Statistics of several kinds of images share a chart."""
    lines: dict[str, list[Line]] = {}
    for index, table in enumerate(logs):
        for name in names:
            if name not in table.values:
                continue
            key, _, source = name.rpartition("/")
            if source not in charts.SOURCES or not key:
                key, source = name, ""
            line = Line(index, source, table.points(name), spread=table.spread(name))
            lines.setdefault(key, []).append(line)
    group = Group(title, [], [], [])
    early = max((table.kimg[-1] for table in logs if table.kimg), default=0.0) < EARLY
    for key in sorted(lines, key=[*known, *sorted(lines)].index):
        if (value := charts.is_constant(lines[key])) is not None:
            group.constant.append((key, charts.written(value)))
            continue
        heading, *explained = known.get(key, [key.removeprefix(f"{title}/"), ""])
        if drawn := charts.chart(heading, key, lines[key], explained[-1 if early else 0]):
            few_want_it = title == "Time and memory" and key not in known
            (group.further if few_want_it else group.charts).append(drawn)
    return group


def _entry(index: int, of: Sequence[Configuration], main: Mapping[str, str], with_generator: bool) -> Entry:
    mine = of[index]
    folders = [run.path.resolve() for one in of for run in one.runs]
    known = [folder.name for folder in folders]
    names = [
        folder.name if known.count(folder.name) == 1 else f"{folder.parent.name}/{folder.name}"
        for folder in (run.path.resolve() for run in mine.runs)
    ]
    name = names[0] if len(names) == 1 else mine.name
    notes = [*mine.notes]
    pictures: list[Picture] = []
    made: list[Picture] = []
    for run, folder in zip(mine.runs, names, strict=True):
        before = f"{folder}: " if len(names) > 1 else ""
        found = list(run.notes)
        is_first = run is mine.runs[0]  # of the other runs, only the newest samples are shown
        pictures += thumbnails.sheets(run, folder, found, None if is_first else f"Seed {seed_of(run)}")
        if with_generator and is_first:
            try:
                made = thumbnails.generated(run, folder)
            except UserError as error:
                found.append(f"No images were made with the generator: {error}")
        notes += [before + note for note in found]
    progress = [_progress(run, folder) for run, folder in zip(mine.runs, names, strict=True)]
    letter = charts.LETTERS[index]
    label = mine.label
    return Entry(letter, name, label, verdict(mine, main), progress, pictures, made, tables.facts(mine, main), notes)


def _progress(run: Run, name: str) -> Stage:
    """Return the progress of a run: how far it is, the time left after its last tick, and when that tick was."""
    total, kimg = run.total_kimg, run.kimg or 0.0
    if total is None or total <= 0:
        return Stage(name, None, f"{kimg:.6g} kimg")
    done = min(max(kimg / total, 0.0), 1.0)
    if run.is_complete:
        return Stage(name, 1.0, f"complete, {kimg:.6g} kimg")
    text = f"{kimg:.6g} of {total:.6g} kimg, {100 * done:.0f}%"
    if (left := run.seconds_left) is not None:
        text += f", about {tables.duration(left)} left"
    if (last := _clock(run.last_time)) is not None:
        text += f"; last tick on {last}"
    return Stage(name, done, text)


def _clock(seconds: float | None) -> str | None:
    try:
        return None if seconds is None else f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d at %H:%M}"
    except (ValueError, OverflowError, OSError):  # a number that is not a time
        return None
