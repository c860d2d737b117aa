"""`compare`: its runs, its continuation after an interruption, its table, and its refusals."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.runs import TINY
from support.scripts import DRIVERS, invoke, run_script, start_script

from stylegan_plugins.analysis import captioned, cells, compare, comparison, evaluate, metrics, trainings
from stylegan_plugins.analysis.cells import Cell
from stylegan_plugins.analysis.comparison import Column, Measured, Results
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import prepare

HOST = Path("/host")
QUICK = str(DRIVERS / "quick_compare.py")


@pytest.mark.unit
def test_combinations_and_fractions():
    assert cells.combinations_of("none, augself,diffaugment+freezed,none") == [
        "none",
        "augself",
        "diffaugment,freezed",
    ]
    assert cells.fractions_of("1.0,0.2") == [1.0, 0.2]
    assert cells.fractions_of("1,1000") == [1.0, 1000.0]
    assert [cells.share_name(share) for share in (0.2, 1000.0)] == ["20% of the data", "1000 images"]
    with pytest.raises(OptionError, match="^--fraction=9: --data has 8 images"):
        cells.subset_of(9, 8)
    for text in ("0", "1.5", "x", "0.2,,1"):
        with pytest.raises(OptionError, match="--fraction"):
            cells.fractions_of(text)
    with pytest.raises(OptionError, match="--plugins"):
        cells.combinations_of(" , ")


@pytest.mark.unit
@settings(deadline=None, max_examples=30)  # the first time plug-ins are imported
@given(st.sampled_from(["none", "augself", "disp,freezed"]), st.floats(0.01, 1), st.integers(1, 10_000))
def test_a_share_of_the_data_is_as_many_images_as_it_says(plugins, share, images):
    found = cells.command(Cell(plugins, share, 3), HOST, "d.zip", images, 5, Path("runs"), ["--batch=8"])
    subset = [int(part.partition("=")[2]) for part in found if part.startswith("--subset=")]
    assert subset == ([] if share == 1 else [max(round(share * images), 1)])
    assert ("--plugin=none" not in found) and (f"--plugin={plugins}" in found) is (plugins != "none")
    assert found[-1] == "--batch=8" and "--seed=3" in found


@pytest.mark.unit
def test_options_of_a_plugin_go_to_the_combinations_that_have_it():
    given = ["--gamma=1", "--contrad-warmup=50", "--snap", "9", "--diffaugment-cutout", "0.2", "--mirror=1", "--x-y=1"]
    rest = ["--gamma=1", "--snap", "9", "--mirror=1", "--x-y=1"]
    assert cells.arguments_for([], given) == rest
    assert cells.arguments_for(["contrad"], given) == [rest[0], "--contrad-warmup=50", *rest[1:]]
    # augself brings diffaugment along.
    assert cells.arguments_for(["augself"], given) == [*rest[:3], "--diffaugment-cutout", "0.2", *rest[3:]]


@pytest.mark.unit
def test_varied_options_are_rows_of_the_combinations_that_have_them():
    varied = cells.variations_of(["gamma=0.1,1", "--contrad-warmup=5"])
    found = cells.cells_of([("none", ()), ("contrad", ())], varied, [1.0, 0.2], 2)
    assert list(dict.fromkeys(cell.row for cell in found)) == [
        *[("none", (("gamma", value),)) for value in ("0.1", "1")],
        *[("contrad", (("gamma", value), ("contrad-warmup", "5"))) for value in ("0.1", "1")],
    ]
    assert len(set(found)) == len(found) == 4 * 2 * 2
    assert [(cell.fraction, cell.seed) for cell in found[:2]] == [(1.0, 0), (1.0, 1)]
    command = cells.command(found[6], HOST, "d.zip", 64, 5, Path("runs"), ["--batch=8", "--contrad-x=2"])
    assert command[1] == "/host/train.py" and command[-3:] == ["--contrad-x=2", "--gamma=1", "--contrad-warmup=5"]


@pytest.mark.unit
def test_a_row_has_options_of_its_own_and_varies_like_others():
    rows = [cells.row_of(text) for text in ("none", "augself --augself-preset=plus --aug=noaug")]
    assert rows == [("none", ()), ("augself", (("augself-preset", "plus"), ("aug", "noaug")))]
    varied = cells.variations_of(["gamma=1,2"])
    cells.check_arguments(rows, ["--batch=8"], varied)
    found = cells.cells_of(rows, varied, [1.0], 1)
    assert [cell.varied for cell in found[:2]] == [(("gamma", "1"),), (("gamma", "2"),)]
    command = cells.command(found[-1], HOST, "d.zip", 64, 5, Path("runs"), ["--batch=8"])
    assert command[-4:] == ["--batch=8", "--augself-preset=plus", "--aug=noaug", "--gamma=2"]


@pytest.mark.unit
@pytest.mark.parametrize("text", ["", "none,augself", "none --gamma", "none --gamma 1", "none --a=1 --a=2", "none 'x"])
def test_a_row_that_is_none_is_one_line(text):
    with pytest.raises(OptionError, match="^--row=.*: give plug-ins, joined by"):
        cells.row_of(text)


@pytest.mark.unit
@pytest.mark.parametrize(
    "row, more, vary, message",
    [
        ("none --augself-d-weight=1", [], [], "--row: --augself-d-weight=1 has no effect: none lacks its plug-in"),
        ("none --gamma=1", ["--gamma=2"], [], "--row: --gamma is given for all rows, or varied, too"),
        ("none --gamma=1", [], ["gamma=1,2"], "--row: --gamma is given for all rows, or varied, too"),
        ("none --kimg=1", [], [], "--kimg: compare gives this option to train.py itself"),
    ],
)
def test_options_of_a_row_that_cannot_be_are_one_line(row, more, vary, message):
    with pytest.raises(OptionError, match=f"^{message}"):
        cells.check_arguments([cells.row_of(row)], more, cells.variations_of(vary))


NAMES = st.sampled_from(["gamma", "cmax", "contrad-warmup", "b2"])
VALUES = st.text("ab09.-+/=", min_size=1, max_size=4)


@pytest.mark.unit
@settings(max_examples=30)
@given(st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=4, unique=True), max_size=3), st.sampled_from(",;"))
def test_variations_are_read_as_they_are_written(wanted, separator):
    written = [f"{name}={separator.join(values)}" for name, values in wanted.items()]
    assert cells.variations_of(written) == wanted
    assert cells.variations_of(["a-b=c;d,e"]) == {"a-b": ["c", "d,e"]}


@pytest.mark.unit
@settings(max_examples=50)
@given(st.text(max_size=12))
def test_any_text_is_a_variation_or_one_line(text):
    try:
        assert all(values and all(values) for values in cells.variations_of([text]).values())
    except OptionError as error:
        assert str(error).startswith(f"--vary={text}")


@pytest.mark.unit
@pytest.mark.parametrize(
    "vary, more, message",
    [
        (["gamma"], [], "--vary=gamma: give an option"),
        (["gamma=1,,2"], [], "--vary=gamma=1,,2: give an option"),
        (["gamma=1", "gamma=2"], [], "gamma is varied twice"),
        (["gamma=1,2"], ["--gamma=1"], "--vary=gamma: --gamma is among the other arguments"),
        (["gamma=1,2"], ["--gamma", "1"], "--vary=gamma: --gamma is among the other arguments"),
        (["seed=1,2"], [], "--seed: compare gives this option to train.py itself. Use --seeds of compare."),
        ([], ["--kimg=5"], "--kimg: compare gives this option to train.py itself. Use --kimg of compare."),
        ([], ["--resume-run", "x"], "--resume-run: compare gives .* Leave it out."),
        (["contrad-warmup=1,2"], [], "--contrad-warmup=1 has no effect"),
    ],
)
def test_a_variation_that_cannot_be_is_one_line(vary, more, message):
    with pytest.raises(OptionError, match=message):
        cells.check_arguments([("none", ()), ("augself", ())], more, cells.variations_of(vary))


# The files. ---------------------------------------------------------------------------------------


FID = Column("fid", "fid_clean", False, 7.25)
KID, DISTANCE = Column("kid", "kid_clip", False, 0.5), Column("distance", "distance_clip", None)


def results(values: dict[Cell, Any], planned: list[Cell] | None = None, **how) -> Results:
    """Return the results of a comparison. Runs of the plug-in `b` have no ADA."""
    columns = how.pop("columns", [FID])
    known = dict(features="inception", kimg=1000, samples=50, real=100, planned=planned or list(values))
    of = lambda value: value if isinstance(value, dict) else {column.name: value for column in columns}
    runs = [
        Measured(cell, "folder", of(value), "off" if cell.plugins == "b" else "on") for cell, value in values.items()
    ]
    return Results(columns, **known, runs=runs, **how)


def by_seed(**rows: Sequence[float]) -> dict[Cell, float]:
    return {Cell(name, 1.0, seed): value for name, values in rows.items() for seed, value in enumerate(values)}


@pytest.mark.unit
def test_the_table_says_what_is_compared():
    text = comparison.as_markdown(results(by_seed(none=(10, 14), **{"a,b": (3, 3.5)})))
    assert text.splitlines()[:4] == [
        "FID ↓ (fid_clean), lower is better; features: inception.",
        "1000 kimg a run, 50 generated and 100 real images.",
        "Split-half floor, one half of the real images against the other: 7.25.",
        "ADA: on.",
    ]
    head = ["| plug-ins | FID ↓ |", "| --- | --- |"]
    assert text.splitlines()[-4:] == [*head, "| none | 12 ± 2.83 |", "| a + b | **3.25 ± 0.354** |"]
    one = results({Cell("none", 0.5, 0): 10, Cell("b", 0.5, 0): 14}, columns=[Column("pr", "pr_clip_f_score", True)])
    text = comparison.as_markdown(one)
    assert "One seed, so differences may be chance" in text and "floor" not in text and "ADA:" not in text
    assert "| plug-ins | ADA | F-score of precision and recall ↑, 50% of the data |" in text
    assert text.splitlines()[-1] == "| b | off | **14** |"


@pytest.mark.unit
def test_several_metrics_are_columns_of_one_table(tmp_path):
    cells_ = [Cell(name, share, 0) for share in (1.0, 0.2) for name in ("none", "b")]
    values = {cell: {"kid": k + 1.0, "distance": 5.0 - k} for k, cell in enumerate(cells_)}
    found = results(values, columns=[KID, DISTANCE], held_out=True)
    text = comparison.write(found, tmp_path, {})
    assert text.splitlines()[:3] == [
        "KID ↓ (kid_clip), lower is better; distance (distance_clip); features: inception.",
        "1000 kimg a run, 50 generated and 100 held-out images.",
        "Split-half floor, one half of the real images against the other: KID ↓ 0.5.",
    ]
    shares = [f"{title}, {share}% of the data" for share in (100, 20) for title in ("KID ↓", "distance")]
    assert f"| plug-ins | ADA | {' | '.join(shares)} |" in text
    # None is the best by distance.
    assert text.splitlines()[-2:] == ["| none | on | **1** | 5 | **3** | 3 |", "| b | off | 2 | 4 | 4 | 2 |"]
    with open(tmp_path / "compare.csv", newline="") as file:
        line = next(csv.DictReader(file))
        assert (line["kid_clip"], line["distance_clip"]) == ("1.0", "5.0")


@pytest.mark.unit
def test_a_metric_or_one_figure_of_it_is_compared():
    assert evaluate.figures_of("kid, pr_recall,pr,kid", "--metric") == {
        **{"kid": ("kid", "", False), "pr_recall": ("pr", "_recall", False), "pr": ("pr", "_f_score", False)}
    }
    assert evaluate.figures_of("best_kid", "--metric") == {"best_kid": ("kid", "", True)}
    with pytest.raises(OptionError, match="best_variety is not a metric"):  # of which neither more nor less is better
        evaluate.figures_of("best_variety", "--metric")
    with pytest.raises(OptionError, match="^--metric=kid,pr_x: pr_x is not a metric of fid, kid, pr, is, distinct"):
        evaluate.figures_of("kid,pr_x", "--metric")


@pytest.mark.unit
def test_rows_that_are_not_distinguished_from_the_best_say_so():
    _, rows = results(by_seed(a=(1, 2), c=(1.5, 3), d=(8, 8.1), e=(1, 9))).table()
    marks = [(row[0].text, row[-1].best, row[-1].tied) for row in rows]
    assert marks == [("a", True, False), ("c", False, True), ("d", False, False), ("e", False, True)]
    _, rows = results(by_seed(a=[2], c=[2])).table()
    assert not any(entry.best or entry.tied for row in rows for entry in row)  # nothing is better than anything
    part = comparison.as_markdown(results(by_seed(a=[2]), [Cell("a", 1.0, 0), Cell("c", 1.0, 0)]))
    assert "1 of 2 runs so far" in part and part.splitlines()[-1] == "| c | – |"


@pytest.mark.unit
@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=2, max_size=4), st.booleans())
def test_the_best_mean_is_bold_and_no_tie_is_farther_than_a_deviation(table, higher):
    column = Column("x", "x", higher)
    _, rows = results(by_seed(**{f"p{i}": row for i, row in enumerate(table)}), columns=[column]).table()
    means, spread = [statistics.fmean(row) for row in table], [statistics.stdev(row) for row in table]
    best = [i for i, row in enumerate(rows) if row[-1].best]
    assert len(best) == (len(set(means)) > 1)
    for i in best:
        assert means[i] == (max if higher else min)(means)
        near = [abs(mean - means[i]) <= max(one, spread[i]) for mean, one in zip(means, spread)]
        assert [row[-1].tied for row in rows] == [near[k] and k != i for k in range(len(rows))]


@pytest.mark.unit
def test_all_formats_have_the_same_figures_and_nothing_of_a_name_is_markup(tmp_path):
    varied = [(("gamma", value),) for value in ("0.1", "1", "10")]
    planned = [Cell(name, 1.0, seed, row) for name in ("none", "<b>x$y$.py") for row in varied for seed in (0, 1)]
    planned.append(Cell("b", 1.0, 0))
    found = results({cell: 5.0 + index for index, cell in enumerate(planned)}, planned)
    text = comparison.write(found, tmp_path, {"data": "d.zip"})
    assert "![FID ↓](compare.svg)" in text and "| none | 0.1 | on | **5.5 ± 0.707** |" in text
    assert (tmp_path / "compare.md").read_text() == f"{text}\n"
    page = (tmp_path / "compare.html").read_text()
    assert "<strong>5.5 ± 0.707</strong>" in page and "&lt;b&gt;x" in page and "<b>" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "<script" not in page
    with open(tmp_path / "compare.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 13 and lines[0]["gamma"] == "0.1" and (lines[-1]["gamma"], lines[-1]["ada"]) == ("", "off")
    assert [float(line["fid_clean"]) for line in lines] == [5.0 + index for index in range(13)]
    record = json.loads((tmp_path / "compare.json").read_text())
    assert record["cells"][2]["varied"] == {"gamma": "1"} and record["data"] == "d.zip"
    assert record["metrics"] == [{"name": "fid", "key": "fid_clean", "higher": False, "floor": 7.25}]
    assert record["cells"][0]["values"] == {"fid": 5.0}
    assert ElementTree.parse(tmp_path / "compare.svg").getroot().tag.endswith("svg")
    # An option with words makes no figure, and that of another comparison does not stay.
    words = results({Cell("none", 1.0, 0, (("mode", value),)): 1.0 for value in ("a", "b")})
    assert "svg" not in comparison.write(words, tmp_path, {}) and not (tmp_path / "compare.svg").exists()


@pytest.mark.unit
def test_the_figure_has_a_line_for_each_combination_and_a_level_for_one_without_the_option(monkeypatch):
    from matplotlib.axes import Axes

    drawn, levels, plot = [], [], Axes.errorbar
    level = lambda self, y, **how: levels.append((y, how["label"]))

    def line(self, x, y, deviation, **how):
        drawn.append((x, y, deviation, how["label"]))
        return plot(self, x, y, deviation, **how)

    monkeypatch.setattr(Axes, "errorbar", line)
    monkeypatch.setattr(Axes, "axhline", level)
    rows = [(("gamma", gamma), ("kind", kind)) for gamma in ("10", "0.1") for kind in "ab"]
    values = {Cell("none", 1.0, seed, row): float(row[0][1]) + seed for row in rows for seed in (0, 1)}
    assert b"<svg" in comparison.as_figure(results(values | {Cell("c", 1.0, 0): 4.0}))
    assert [label for *_, label in drawn] == ["none, kind a", "none, kind b"] and levels == [(4.0, "c")]
    x, y, deviation, _ = drawn[0]
    assert x == [0.1, 10.0] and [*y, *deviation] == pytest.approx([0.6, 10.5, 0.5**0.5, 0.5**0.5])


@pytest.mark.unit
def test_the_floor_of_fid_is_that_of_evaluate_and_a_small_set_has_none():
    reference = metrics.Reference(np.random.default_rng(0).normal(size=[40, 3]).astype(np.float32))
    assert metrics.split_half(metrics.METRICS["fid"], reference) == {"": pytest.approx(reference.floor, rel=1e-5)}
    assert metrics.split_half(metrics.METRICS["pr"], reference).keys() == {"_precision", "_recall", "_f_score"}
    assert metrics.split_half(metrics.METRICS["fid"], metrics.Reference(np.zeros([7, 3], np.float32))) == {}


@pytest.mark.unit
def test_ada_is_read_from_the_run(tmp_path):
    pipe = {"augment_kwargs": {"class_name": "x"}}
    cases = [({}, "off"), (pipe, "off"), (pipe | {"ada_target": 0.6}, "on"), (pipe | {"augment_p": 0.2}, "p = 0.2")]
    cases += [({"augment_kwargs": None, "ada_target": 0.6}, "off"), (pipe | {"augment_p": "x"}, "off")]
    for options, ada in cases:
        (tmp_path / "training_options.json").write_text(json.dumps(options))
        assert compare.ada_of(tmp_path) == ada


# Progress. ----------------------------------------------------------------------------------------


@pytest.mark.unit
def test_the_estimate_is_of_kimg_and_of_evaluations():
    clock = compare.Clock()
    clock.count(10, training=100, evaluating=5)
    clock.count(30, training=300, evaluating=15)
    assert clock.seconds([20.0, 4.0]) == 24 * 10 + 2 * 10 and clock.seconds([]) == 0
    assert clock.seconds([20.0, 4.0], jobs=4) == 60 and clock.seconds([0.5, 0.5], jobs=4) == 2 * 10


@pytest.mark.unit
def test_progress_of_a_run_is_told_once_a_minute_if_it_is_new(tmp_path):
    log, told = tmp_path / "train.log", []
    log.write_text("progress: of an earlier run\n")
    relay = trainings.Relay(log, log.stat().st_size, "2 of 6", told.append)
    relay()
    assert told == []
    with open(log, "a") as file:
        file.write("tick 0\nprogress: 0.5 of 1.0 kimg (50%)  5m 2s left\nprogress: not yet who")
    for _ in range(2):
        relay()
    assert told == ["2 of 6: 0.5 of 1.0 kimg (50%)  5m 2s left"]
    with open(log, "a") as file:
        file.write("le\nprogress: 0.6 of\n")
    relay()
    assert len(told) == 1
    relay._at -= trainings.LINES_SECONDS
    relay()
    assert told[1:] == ["2 of 6: 0.6 of"]


@pytest.mark.run
def test_combinations_are_trained_and_after_ctrl_c_the_same_command_goes_on(ada_host, small_zip, tmp_path):
    """The interrupted run writes its state; finished runs are not repeated. The folder is not the host's."""
    tiny = [flag for flag in TINY[ADA] if not flag.startswith(("--kimg", "--snap"))]
    out = tmp_path / "out"
    flags = ["--plugins=none,diffaugment", f"--data={small_zip}", "--kimg=1", "--fraction=0.5", f"--outdir={out}"]
    flags += [
        f"--host={ada_host}",
        "--features=efficientnet_lite0",
        "--samples=16",
        "--metric=kid,best_kid,distinct",
        "--",
        *tiny,
    ]
    flags.insert(0, f"--reference={write_zip(tmp_path / 'held.zip', color_crops(9, side=16, seed=5))}")
    flags += ["--batch=128", "--device=cpu", "--snap=9"]
    running = start_script(tmp_path, QUICK, *flags)
    deadline = time.monotonic() + 300
    while not any("tick 0" in log.read_text() for log in out.glob("none-0.5-seed0-*/train.log")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGINT and "Traceback" not in said
    (first,) = out.glob("none-0.5-seed0-*")
    run_dir, seen = trainings.progress_of(first)
    assert run_dir is not None and 0 <= seen < 1000
    assert not list(run_dir.glob("*.tmp"))

    done = run_script(tmp_path, QUICK, *flags, check=False)
    assert done.returncode == 0, done.stderr
    assert f"1 of 2: {first.name}, from {seen / 1000:g} of 1 kimg" in done.stderr
    assert re.search(r"1 of 2: [\d.]+ of 1.0 kimg \(\d+%\)", done.stderr)  # at most a line a minute
    assert re.search(r"1 of 2: kid [\d.]+, best_kid [\d.]+, distinct \d+; about .+ left", done.stderr)
    assert [path.name for path in first.glob("0*")] == [run_dir.name]
    record = json.loads((out / "compare.json").read_text())
    runs = [(cell["plugins"], cell["seed"], cell["ada"]) for cell in record["cells"]]
    assert runs == [("none", 0, "on"), ("diffaugment", 0, "off")]
    assert [column["key"] for column in record["metrics"]] == [
        f"{name}_efficientnet_lite0" for name in ("kid", "best_kid", "distinct")
    ]
    for cell in record["cells"]:
        (lines,) = out.glob(f"{cell['folder']}/0*/metric-kid_efficientnet_lite0.jsonl")
        kids = [json.loads(line)["results"]["kid_efficientnet_lite0"] for line in lines.read_text().splitlines()]
        assert len(kids) == 2 and (cell["values"]["kid"], cell["values"]["best_kid"]) == (kids[0], min(kids))
    assert all(cell["values"]["kid"] > record["metrics"][0]["floor"] for cell in record["cells"])
    assert all(1 <= cell["values"]["distinct"] <= 16 for cell in record["cells"])
    assert "| diffaugment | off | " in done.stdout and "16 generated and 9 held-out images" in done.stdout
    options = next(out.glob("diffaugment-0.5-seed0-*/0*/training_options.json"))
    saved = json.loads(options.read_text())
    assert saved["training_set_kwargs"]["max_size"] == 32 and saved["plugins"]["active"] == ["diffaugment"]

    with PIL.Image.open(out / compare.PICTURE) as shown:  # training images, none, diffaugment: 8 by 4 of 64 pixels
        assert shown.size == (3 * 512 + 2 * captioned.GAP, captioned.TEXT + captioned.GAP + 256)
        assert all(np.asarray(shown)[100:, left : left + 512].std() > 5 for left in (0, 528, 1056))
    kept = next(first.glob("0*/network-snapshot-*.pkl"))
    before = kept.stat().st_mtime
    again = run_script(tmp_path, QUICK, *flags, check=False)
    assert again.returncode == 0 and " of 2: " not in again.stderr and kept.stat().st_mtime == before
    assert json.loads((out / "compare.json").read_text())["cells"] == record["cells"]


@pytest.mark.unit
def test_a_run_without_its_last_snapshot_or_its_state_is_not_evaluated(tmp_path, monkeypatch):
    """An older snapshot would be that of a shorter run."""
    last = lambda: trainings.last_snapshot(tmp_path, 2)
    monkeypatch.setattr(trainings, "progress_of", lambda folder: (folder, 2016))
    (tmp_path / "network-snapshot-000001.pkl").touch()
    with pytest.raises(DataError, match="network-snapshot-000002.pkl is missing, the snapshot at the end of the run"):
        last()
    (tmp_path / "network-snapshot-000002.pkl").touch()
    assert last() == tmp_path / "network-snapshot-000002.pkl"
    monkeypatch.setattr(trainings, "progress_of", lambda folder: (None, 0))
    with pytest.raises(DataError, match="the run has left no state"):
        last()


@pytest.fixture
def together(tmp_path, monkeypatch):
    """Makes runs of which each ends only after another one of them has begun."""
    monkeypatch.setattr(
        trainings, "progress_of", lambda folder: (folder, 2000) if list(folder.glob("*.pkl")) else (None, 0)
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os, sys, time, pathlib; folder = pathlib.Path(sys.argv[1]); (folder / 'begun').touch()\n"
    code += "if folder.name == 'fails': sys.exit('Error: too dark.')\n"
    code += "while len(list(folder.parent.glob('*/begun'))) < 2: time.sleep(0.01)\n"
    code += "(folder / 'threads').write_text(os.environ.get('OMP_NUM_THREADS', ''))\n"
    code += "if folder.name == 'stays': time.sleep(60)\n"
    code += "(folder / 'network-snapshot-000002.pkl').touch()"

    def make(*names: str) -> list[trainings.PlannedRun]:
        return [
            trainings.PlannedRun(name, [sys.executable, "-c", code, str(tmp_path / name)], tmp_path / name, name, {})
            for name in names
        ]

    return make


@pytest.mark.unit
def test_runs_go_on_at_once_and_share_the_cores(together, tmp_path, monkeypatch):
    monkeypatch.setattr(trainings.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(trainings.torch.cuda, "device_count", lambda: 0)
    runs, told = together("a", "b", "c"), []
    found = {key: last for key, last, _ in trainings.trained(runs, 2, 2, told.append)}
    assert found == {name: tmp_path / name / "network-snapshot-000002.pkl" for name in "abc"}
    assert [(tmp_path / name / "threads").read_text() for name in "abc"] == ["3"] * 3
    assert len(told) == 3
    assert [key for key, *_ in trainings.trained(runs, 2, 2, told.append)] == list("abc") and len(told) == 3
    for jobs, names in ((2, "def"), (1, "gh")):
        told.clear()
        next(trainings.trained(together(*names), 2, jobs, told.append))
        assert len(told) == jobs + (jobs > 1)  # with several jobs the next run begins before the caller has one
    monkeypatch.setattr(trainings.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [trainings.environment(slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["5", "7", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [trainings.environment(slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0", "1"]
    assert trainings.environment(0, 1) == {}


@pytest.mark.unit
def test_a_run_that_fails_ends_the_others(together, tmp_path):
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"^train.py: too dark. \(.*fails.train.log\). The same command of compare"):
        list(trainings.trained(together("stays", "fails"), 2, 2, lambda line: None))
    assert time.monotonic() - begun < 30 and not (tmp_path / "stays/network-snapshot-000002.pkl").exists()


@pytest.mark.unit
def test_a_cell_is_its_arguments_its_data_its_files_and_the_versions(tmp_path, monkeypatch):
    """Each of these gave the old number under the new settings."""
    host, cell = tmp_path / "host", Cell("diffaugment", 0.5, 0)
    (host / "training").mkdir(parents=True)
    (host / "training/loss.py").write_text("a = 1")
    (host / "x.pkl").write_bytes(b"weights")
    images = color_crops(6, side=16)
    data = str(write_zip(tmp_path / "a.zip", images, [0, 1] * 3))

    monkeypatch.chdir(host)  # where x.pkl is

    def folder(cell: Cell = cell, data: str = data, kimg: int = 5, more: tuple[str, ...] = ("--resume=x.pkl",)) -> str:
        cells.code_of.cache_clear()
        arguments = cells.command(cell, host, data, 6, kimg, Path("runs"), more)[2:]
        return cell.folder(cells.identity_of(cell, arguments, host, data))

    names = [folder(), folder(more=("--gamma=2",)), folder(more=("--cbase=8",)), folder(kimg=4)]
    names += [folder(cell=Cell("diffaugment", 0.5, 1)), folder(cell=Cell("none", 0.5, 0))]
    assert re.fullmatch(r"diffaugment-0.5-seed0-[0-9a-f]{8}", names[0]) and folder() == names[0]
    write_zip(Path(data), images[::-1], [0, 1] * 3)
    names.append(folder())
    write_zip(Path(data), images[::-1], [1, 0] * 3)
    names.append(folder())
    (host / "x.pkl").write_bytes(b"other weights")
    names.append(folder())
    (host / "training/loss.py").write_text("a = 2")
    names.append(folder())
    monkeypatch.setattr(cells.stylegan_plugins, "__version__", "99")
    names += [folder(), folder(cell=replace(cell, varied=(("gamma", "2"),)))]
    assert re.fullmatch(r"diffaugment-gamma2-0.5-seed0-[0-9a-f]{8}", names[-1])
    assert len(set(names)) == len(names) == 12
    assert "/" not in Cell("../a.py", 1, 0, (("x", "/"),)).folder({})
    monkeypatch.chdir(tmp_path)  # where there is no x.pkl
    assert folder() not in names


@pytest.mark.unit
def test_a_comparison_without_varied_options_keeps_its_folders(tmp_path, monkeypatch):
    """Names and identities are the same as in versions without --vary."""
    monkeypatch.setattr(cells, "code_of", lambda host: "c")
    monkeypatch.setattr(cells, "versions_of", lambda cell: {})
    monkeypatch.setattr(cells.stylegan_plugins, "__version__", "1")
    data = str(write_zip(tmp_path / "a.zip", color_crops(6, side=16)))
    cell = Cell("diffaugment,freezed", 0.2, 3)
    arguments = cells.command(cell, HOST, data, 60, 5, Path("runs"), ["--batch=8"])[2:]
    identity = cells.identity_of(cell, arguments, HOST, data)
    known = ["--outdir=runs", f"--data={data}", "--kimg=5", "--seed=3", "--plugin=diffaugment,freezed", "--subset=12"]
    assert identity.pop("arguments") == [*known, "--batch=8"] and list(identity.pop("data")) == ["images", "labels"]
    assert identity == {"files": {}, "versions": {"stylegan_plugins": "1", "host": "c"}}
    assert cell.folder({"a": 1}) == "diffaugment+freezed-0.2-seed3-f9d86028"


@pytest.mark.unit
def test_a_folder_that_holds_another_cell_is_refused(tmp_path):
    identity = {"arguments": ["--gamma=1"]}
    trainings.claim(tmp_path / "cell", identity)
    trainings.claim(tmp_path / "cell", identity)
    file = tmp_path / "cell" / trainings.CELL
    for content in ('{"arguments": ["--gamma=2"]}', "[]", "", None):
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises(DataError, match="Move this folder away"):
            trainings.claim(tmp_path / "cell", identity)


@pytest.mark.unit
def test_the_error_of_a_run_is_its_own_and_not_that_of_an_earlier_one(tmp_path):
    log = tmp_path / "train.log"
    for code, why in (("print('Error: too dark.'); raise SystemExit(2)", "too dark."), ("1 / 0", "it ended with 1")):
        with pytest.raises(DataError, match=rf": {why} \(.*train.log\). Do this. The command was: .* -c "):
            trainings.call([sys.executable, "-c", code], log, "Do this.")
    assert "too dark" in log.read_text() and "ZeroDivisionError" in log.read_text()


@pytest.mark.host
@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_is_handed_on_and_a_second_one_ends_all_processes(first, tmp_path):
    """The program here has a child, and neither of them ends when it is told to."""
    stubborn = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True)); "
    stubborn += "child = os.fork(); print(os.getpid(), flush=True); [time.sleep(0.1) for _ in range(600)]"
    code = "import sys; from stylegan_plugins.analysis import programs; "
    code += "programs.run([sys.executable, '-c', sys.argv[1]], stdout=open(sys.argv[2], 'wb'))"
    output = tmp_path / "out"
    parent = subprocess.Popen([sys.executable, "-c", code, stubborn, output], stderr=subprocess.PIPE, text=True)

    def wait_for(condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for(lambda: output.exists() and len(output.read_text().split()) == 2)
    pids = [int(pid) for pid in output.read_text().split()]
    parent.send_signal(first)
    wait_for(lambda: "told" in output.read_text())
    parent.send_signal(signal.SIGTERM)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 128 + first and said.count("again ends it at once") == 1
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.run
def test_what_cannot_be_trained_is_said_before_anything_is(ada_host, small_zip, tmp_path):
    """The folder is not the host's, train.py has its own process, and the printed command can be pasted."""
    flags = ["--plugins=freezed", f"--data={small_zip}", "--kimg=1", f"--outdir={tmp_path / 'out'}"]
    flags += [f"--host={ada_host}", "--features=efficientnet_lite0", "--", *TINY[ADA][:2], "--device=cpu"]
    done = invoke(tmp_path, "compare", *flags)
    assert done.returncode == 2
    assert "nothing pretrained is being frozen" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*seed*"))
    command = shlex.split(done.stderr.splitlines()[-1].partition("The command was: ")[2])
    assert Path(command[1]) == ada_host / "train.py" and command[-1] == "--dry-run"


@pytest.mark.unit
def test_errors_of_held_out_images_name_their_option(tmp_path):
    for reference in (str(tmp_path / "gone.zip"), str(tmp_path), ""):
        with pytest.raises(DataError, match="^--reference") as error:
            compare.reference_path(reference, prepare.How())
        assert "--data" not in str(error.value)
