"""Seeds of one configuration in a report: which runs are one, what it is called, means and bands."""

from __future__ import annotations

import re
import statistics as plain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reports import Page, add_line, add_metric, command, make_run, page_of

from stylegan_plugins.report import charts, configurations, history, tables
from stylegan_plugins.report.curves import Table
from stylegan_plugins.run import identity

pytestmark = pytest.mark.unit


def seeds(top, name="run", numbers=(0, 1, 2), **settings):
    """Return runs of some seeds; the loss is 1, 2, 3, ... by their order, twice as much at 4 kimg."""
    folders = []
    for index, seed in enumerate(numbers):
        folder = make_run(top / f"{name}{seed}", ticks=0, sheets=1, side=16, random_seed=seed, **settings)
        for kimg in (0.0, 4.0, 8.0)[: 3 - index]:
            add_line(folder, kimg, **{"Loss/G/loss": (index + 1.0) * (2 if kimg else 1)})
        folders.append(folder)
    return folders


def grouped(*folders):
    return configurations.configurations([history.read(folder) for folder in folders])


def test_runs_that_differ_in_seed_folder_and_machine_are_one(tmp_path):
    same = [
        make_run(tmp_path / f"a{seed}", sheets=0, random_seed=seed, run_dir=f"a{seed}", **free)
        for seed, free in enumerate(
            [{"host": "x", "device": "cpu"}, {"data_loader_kwargs": {"num_workers": 3}}, {"metrics": ["fid"]}]
        )
    ]
    other = make_run(tmp_path / "b", sheets=0, random_seed=3, loss_kwargs={"r1_gamma": 10})
    again = make_run(tmp_path / "c", sheets=0, random_seed=1)
    unknown = [make_run(tmp_path / f"d{index}", sheets=0) for index in range(2)]
    found = [[run.path.name for run in one.runs] for one in grouped(same[2], other, *same[:2], again, *unknown)]
    assert found == [["a0", "a1", "a2"], ["b"], ["c"], ["d0"], ["d1"]]


def test_what_makes_no_difference_to_a_resumed_run_makes_none_here():
    """The exceptions identify a run: its data, its length, and the pickle that it began with."""
    of_a_run = {"resume_pkl", "total_kimg", "training_set_kwargs.path", "pictures", "class_names"}
    assert set(identity.FREE) - of_a_run <= set(configurations.IGNORED)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, 0, 1, 2, True, "x"]), st.integers(0, 2)), max_size=9))
def test_every_run_is_in_one_group_and_no_seed_twice(kinds):
    runs = [
        history.Run(path, {"random_seed": seed, "batch_size": size}, Table(), Table(), [], [], [])
        for path, (seed, size) in enumerate(kinds)
    ]
    groups = configurations.grouped(runs)
    assert sorted(run.path for these in groups for run in these) == [*range(len(kinds))]
    for these in groups:
        found = [configurations.seed_of(run) for run in these]
        assert len(set(found)) == len(found) and (None not in found or len(found) == 1)
        assert len({run.settings["batch_size"] for run in these}) == 1


def test_names_say_plugins_settings_that_differ_and_seeds(tmp_path):
    plain_ones = seeds(tmp_path, "a", loss_kwargs={"r1_gamma": 1}, plugins={})
    sharp = seeds(tmp_path, "b", (0,), loss_kwargs={"r1_gamma": 10}, plugins={})
    method = {"active": ["disp", "freezed"], "options": {"disp": {"weight": 1.0}}}
    heavy = {"active": ["disp", "freezed"], "options": {"disp": {"weight": 5.0}}}
    first = seeds(tmp_path, "c", (0, 4), loss_kwargs={"r1_gamma": 1}, plugins=method)
    other = seeds(tmp_path, "d", (7,), loss_kwargs={"r1_gamma": 1}, plugins=heavy)
    labels = [one.label for one in grouped(*plain_ones, *sharp, *first, *other)]
    assert labels == [
        "no plug-ins, gamma 1, seeds 0 to 2",
        "no plug-ins, gamma 10, seed 0",
        "disp + freezed, gamma 1, weight 1.0, seeds 0, 4",
        "disp + freezed, gamma 1, weight 5.0, seed 7",
    ]
    page = page_of(*plain_ones, *sharp, *first, *other)
    assert "4 configurations, 7 runs, side by side" in page.text
    for label in labels:  # in verdict, legend, overview, samples, and heads of tables
        assert page.text.count(label) >= 5
    twice = [make_run(tmp_path / name, sheets=0, random_seed=0) for name in ("x", "y")]
    assert [one.label for one in grouped(*twice)] == ["method (x), seed 0", "method (y), seed 0"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abc1. ", min_size=1, max_size=40).map(str.strip).filter(bool), max_size=8))
def test_a_long_name_is_cut_between_settings_not_within_a_value(parts):
    name = ", ".join(["diffaugment", *parts])
    cut = configurations._shortened(name)
    assert cut == name or cut in {", ".join(["diffaugment", *parts[:count], "..."]) for count in range(len(parts))}
    assert len(cut) <= configurations.MOST_LETTERS + len(", ...")
    assert configurations._shortened("diffaugment, " + 9 * "cmax 32, ").endswith("cmax 32, ...")


def test_curves_are_mean_and_deviation_over_kimg_that_all_seeds_have(tmp_path):
    (one,) = grouped(*seeds(tmp_path))
    assert one.stats.kimg == [0.0]
    (one,) = grouped(*seeds(tmp_path / "two", numbers=(0, 1)))
    assert one.stats.points("Loss/G/loss") == [(0.0, 1.5), (4.0, 3.0)]
    assert one.stats.spread("Loss/G/loss") == {0.0: plain.stdev([1, 2]), 4.0: plain.stdev([2, 4])}
    assert one.notes == ["Curves end at 4 kimg, as far as all 2 seeds are; one is at 8."]
    (single,) = grouped(tmp_path / "run0")
    assert single.stats.spread("Loss/G/loss") == {} and single.notes == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from([0.0, 1.0, 2.0, 5.0]), st.none() | st.floats(-1e3, 1e3), max_size=4),
        min_size=2,
        max_size=4,
    )
)
def test_the_mean_is_of_all_runs_or_of_none(columns):
    mean = configurations.mean_of([Table(sorted(of), {"x": [of[kimg] for kimg in sorted(of)]}) for of in columns])
    assert mean.kimg == sorted(set.intersection(*map(set, columns)))
    for kimg, value in mean.points("x"):
        values = [of[kimg] for of in columns]
        if None in values:
            assert value is None and kimg not in mean.spread("x")
        else:
            assert value == pytest.approx(plain.fmean(values), abs=1e-9)
            assert mean.spread("x")[kimg] == pytest.approx(plain.stdev(values), abs=1e-9)


def test_tables_of_metrics_are_mean_and_deviation_and_the_best_mean_is_marked(tmp_path):
    folders = seeds(tmp_path, numbers=(0, 1)) + seeds(tmp_path, "b", (0,), batch_size=4)
    for folder, values in zip(folders, [(90.0, 30.0), (80.0, 34.0), (70.0, 60.0)], strict=True):
        add_metric(folder, "fid50k_full", dict(zip((0, 4), values, strict=True)))
    add_metric(folders[0], "fid50k_full", {8: 1.0})  # one seed alone
    found = grouped(*folders)
    (metric,) = tables.metrics(found, tables.main_keys([history.read(folder) for folder in folders]))
    assert metric["rows"] == [
        ("0", [("85 ± 7.1", False, False), ("70", False, False)]),
        ("4", [("32 ± 2.8", True, True), ("60", True, False)]),
    ]
    text = re.sub(r"\s+", " ", page_of(*folders).text)
    assert "Best fid50k_full" in text and "17.5 ± 23" in text  # of the best of each seed: 1 and 34


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1e300, 1e300) | st.floats(0, 10), min_size=2, max_size=30),
    st.lists(st.floats(0, 1e308) | st.floats(0, 1), min_size=30, max_size=30),
)
def test_bands_of_any_values_are_drawn_inside_the_frame(values, deviations):
    spread = {float(kimg): deviation for kimg, deviation in enumerate(deviations)}
    points = [(float(kimg), value) for kimg, value in enumerate(values)]
    drawn = charts.chart("Title", "key", [charts.Line(0, "", points, spread=spread)])
    for path in (drawn.lines[0].path, drawn.lines[0].band):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.replace("h0", ""))]
        assert all(charts.LEFT <= x <= charts.WIDTH - charts.RIGHT for x in numbers[::2])
        assert all(charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM for y in numbers[1::2])


def test_a_folder_stands_for_its_runs_and_for_those_in_cells_of_compare(tmp_path):
    outdir = tmp_path / "runs"
    seeds(outdir, numbers=(0, 1))
    make_run(outdir / "young", ticks=0, sheets=0)
    (outdir / "notes").mkdir()
    cells = tmp_path / "cells"
    for seed in range(2):
        make_run(cells / f"none-1-seed{seed}" / "00000-a", sheets=0, random_seed=seed)
    out = tmp_path / "report.html"
    done = command(outdir, cells, f"--out={out}")
    assert done.exit_code == 0, done.output
    text = Page(out.read_text()).text
    assert "2 configurations, 4 runs" in text and re.search(r"A run is left out\. .*young", text)
    assert "none-1-seed0/00000-a" in text and "none-1-seed1/00000-a" in text
    assert command(outdir, outdir / "run0", f"--out={out}").exit_code == 0  # given twice
    assert [path.name for path in history.runs_in(outdir)] == ["run0", "run1", "young"]


def test_a_page_of_seeds_draws_a_band_and_tells_values_with_their_deviation(tmp_path):
    page = page_of(*seeds(tmp_path, numbers=(0, 1)))
    assert any(path.get("class") == "band" for path in page.all("path"))
    values = [group["data-values"] for group in page.all("g") if "run" in group.get("class", "")]
    assert "0 1.5±0.71;4 3±1.4" in values
    assert len(page.all("img")) == 2 and page.text.count("Seed 1, 0 kimg") == 1
    assert not any(path.get("class") == "band" for path in page_of(tmp_path / "run0").all("path"))
