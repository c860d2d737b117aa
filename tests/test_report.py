"""`stylegan-plugins report`: one self-contained file, made of any files that a run has left."""

from __future__ import annotations

import base64
import html
import html.parser
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import PIL.EpsImagePlugin
import PIL.Image
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.report_mutants import FILES, mutate
from support.reports import (
    NAMES,
    Page,
    add_diagnostics,
    add_metric,
    command,
    decoded,
    line_of,
    make_run,
    page_of,
    statistic,
)
from support.scripts import run_script

from stylegan_plugins.analysis import records, sample
from stylegan_plugins.errors import DataError, OptionError
from stylegan_plugins.files import datasets
from stylegan_plugins.report import charts, history, tables, thumbnails
from stylegan_plugins.report import page as report_page
from stylegan_plugins.report.configurations import configurations

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FEW = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three long runs with metrics, two of them with diagnostics."""
    top = tmp_path_factory.mktemp("runs")
    folders = [make_run(top / f"0000{i}-faces", ticks=1000, sheets=8, side=128, batch_size=8 << i) for i in range(3)]
    for index, folder in enumerate(folders):
        add_metric(folder, "fid50k_full", {kimg: 50.0 - kimg / 400 + index for kimg in range(0, 6000, 40)})
        if index:
            add_diagnostics(folder, 1000)
    return folders


@pytest.fixture(scope="module")
def written(three, tmp_path_factory):
    """(the finished command, the page that it wrote) of the three runs."""
    file = tmp_path_factory.mktemp("page") / "a" / "report.html"
    return command(*three, f"--out={file}"), file


@pytest.fixture(scope="module")
def page(written):
    return Page(written[1].read_text(encoding="utf-8"))


@pytest.mark.unit
def test_three_long_runs_weigh_less_than_10_mb(written):
    done, file = written
    assert done.exit_code == 0, done.output
    assert file.stat().st_size < 10e6
    assert str(file) in done.stdout


@pytest.mark.unit
def test_every_run_and_every_statistic_is_on_the_page(page, three):
    for folder in three:
        assert folder.name in page.text
    for name in [
        *NAMES,
        "Progress/kimg",
        "fid50k_full",
        "diagnostics: scores/held_out",
        "diagnostics: r_v",
        "batch_size",
    ]:
        assert name in page.text, name


@pytest.mark.unit
def test_nothing_is_loaded_and_nothing_else_may_be(page):
    assert not page.all("link") and not page.all("iframe") and not page.all("base")
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,")), attributes
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes)
    assert (
        "url(" not in page.text
        and "@import" not in page.text
        and "http" not in page.text.replace("http://www.w3.org", "")
    )
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy


@pytest.mark.unit
def test_pictures_are_small_have_their_true_size_and_a_text(page, three):
    images = page.all("img")
    assert len(images) == len(three) * thumbnails.MOST_PICTURES
    for image in images:
        data = base64.b64decode(image["src"].split(",")[1])
        assert len(data) <= thumbnails.MOST_BYTES
        assert PIL.Image.open(io.BytesIO(data)).size == (int(image["width"]), int(image["height"])) == (512, 256)
        assert image["alt"].startswith("Samples of 0000")
    assert all(plot["aria-label"] for plot in page.all("svg") if plot.get("class") == "plot")


@pytest.mark.unit
def test_a_run_has_one_color_everywhere(page):
    """The number of a run stands in the class of its lines, and their names are its letter."""
    lines = [attributes for attributes in page.all("g") if "run" in attributes.get("class", "").split()]
    assert {line["class"].split()[0] for line in lines} == {"r0", "r1", "r2"}
    assert all(line["data-name"][0] == "ABC"[int(line["class"][1])] for line in lines)


@pytest.mark.unit
def test_only_what_differs_is_in_the_first_table_of_settings(three):
    runs = [history.read(folder) for folder in three]
    assert tables.differing(configurations(runs)) == [("batch_size", ["8", "16", "32"])]
    assert tables.differing(configurations(runs[:1] * 2)) == []


@pytest.mark.unit
def test_the_best_snapshot_is_marked_and_which_way_is_best_follows_from_the_name(tmp_path):
    folder, other = make_run(tmp_path / "a", sheets=0), make_run(tmp_path / "b", sheets=0)
    add_metric(folder, "fid50k_full", {0: 90.0, 200: 31.5, 400: 33.0})
    add_metric(other, "fid50k_full", {0: 95.0, 200: 44.0, 400: 42.25})
    add_metric(folder, "pr50k3_full_recall", {0: 0.01, 200: 0.42, 400: 0.4}, "pr50k3_full")
    text = re.sub(r"\s+", " ", page_of(folder, other).text)
    assert "31.5 ★" in text and "42.25 ☆" in text and "0.42 ★" in text
    assert text.count("★") - text.count("★ the best of all") == 2
    assert "31.5at 200 kimg" in text


@pytest.mark.unit
@pytest.mark.parametrize(
    "name, higher",
    [
        ("pr_efficientnet_lite0_f_score", True),
        *[("fid50k_full", False), ("kid50k_full", False), ("ppl2_wend", False), ("fid", False), ("kid_std", None)],
        *[("eqt50k_int", True), ("eqr50k", True), ("unknown50k", None), ("kid50k_full", False), ("fid_clean", False)],
        *[("is50k_mean", True), ("is50k_std", None), ("is", True), ("pr50k3_full_precision", True), ("recall", True)],
    ],
)
def test_metrics_know_which_way_is_better(name, higher):
    assert history.is_higher_better(name) is higher


@pytest.mark.unit
def test_the_second_result_for_a_snapshot_replaces_the_first(tmp_path):
    folder = make_run(tmp_path / "a", sheets=0)
    add_metric(folder, "fid", {200: 9.0, 0: 20.0})
    add_metric(folder, "fid", {200: 8.0})
    assert history.read(folder).metrics["fid"][""].points("fid") == [(0, 20.0), (200, 8.0)]


@pytest.mark.unit
def test_whatever_comes_from_files_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    folder = make_run(tmp_path / "<b onmouseover=alert(1)>run", sheets=1, note=evil, plugins={"active": [evil]})
    line = {"Progress/kimg": statistic(99.0), f"{evil}/real": statistic(1.0), f"Loss/{evil}": statistic(2.0)}
    with open(folder / "stats.jsonl", "a") as file:
        for kimg in (99.0, 100.0):
            file.write(json.dumps({**line, "Progress/kimg": statistic(kimg), f"{evil}/real": statistic(kimg)}) + "\n")
    add_metric(folder, evil, {0: 1.0, 200: 2.0})
    (folder / "diagnostics.jsonl").write_text(json.dumps({"kimg": 1, evil: {"train": 1.0}}) + "\n")
    page = page_of(folder, make_run(tmp_path / "other"))
    assert len(page.all("script")) == 1 and not page.all("b")
    assert evil in page.text


@pytest.mark.unit
def test_a_run_that_is_being_written_is_shown_with_a_note(tmp_path):
    folder = make_run(tmp_path / "run", sheets=0)
    with open(folder / "stats.jsonl", "a") as file:
        file.write('{"Loss/G/loss": {"num": 32, "me')
    run = history.read(folder)
    assert len(run.stats.kimg) == 5 and run.kimg == 16
    assert any("last line of stats.jsonl is not whole" in note for note in run.notes)
    assert "of 25000, not complete" in page_of(folder).text


@pytest.mark.unit
def test_broken_lines_and_odd_values_leave_gaps_and_are_counted(tmp_path):
    folder = make_run(tmp_path / "run", ticks=0, sheets=0)
    row = lambda kimg, loss: {"Progress/kimg": statistic(kimg), "Loss/G/loss": loss}
    odd = [statistic(math.nan), statistic(math.inf), None, "1", True, [], {}, 10**400, statistic(math.nan, num=0)]
    lines = [json.dumps(row(float(kimg), loss)) for kimg, loss in enumerate([statistic(1.0), *odd, 2.0])]
    lines[3:3] = ["not JSON", "[1]", "\x00", "[" * 100_000, '{"Loss/G/loss": 3}', ""]
    (folder / "stats.jsonl").write_text("\n".join(lines) + "\n")
    run = history.read(folder)
    values = [value for _, value in run.stats.points("Loss/G/loss")]
    assert values[0] == 1.0 and values[-1] == 2.0 and values[1:-1] == [None] * len(odd)
    notes = " ".join(run.notes)
    assert "4 broken lines of stats.jsonl" in notes and "1 lines of stats.jsonl have no kimg" in notes
    assert "Loss/G/loss (6)" in notes  # a missing measurement (None, {}, num of 0) is not a fault
    assert "Loss/G/loss (6)" in page_of(folder).text


@pytest.mark.unit
def test_a_run_that_went_back_is_shown_as_it_went_on(tmp_path):
    folder = make_run(tmp_path / "run", ticks=5, sheets=0)
    again = line_of(8.0, np.random.RandomState(9))
    with open(folder / "stats.jsonl", "a") as file:
        file.write(json.dumps(again) + "\n")
    table = history.read(folder).stats
    assert table.kimg == [0.0, 4.0, 8.0]
    assert table.values["Loss/G/loss"][-1] == again["Loss/G/loss"]["mean"]


@pytest.mark.unit
def test_runs_of_the_same_name_are_told_apart_and_one_given_twice_is_shown_once(tmp_path):
    first, second = make_run(tmp_path / "x" / "run", sheets=0), make_run(tmp_path / "y" / "run", sheets=0)
    out = tmp_path / "report.html"
    assert report_page.write([first, second, tmp_path / "y" / ".." / "x" / "run"], out) == out.stat().st_size
    text = Page(out.read_text()).text
    assert "x/run" in text and "y/run" in text and "2 runs, side by side" in text


@pytest.mark.unit
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda top: top / "none", "is not a folder"),
        (lambda top: (top / "file").write_text("x") and top / "file", "is not a folder"),
        (lambda top: (top / "empty").mkdir() or top / "empty", "neither stats.jsonl nor training_options.json"),
        (
            lambda top: (top / "a/b/c").mkdir(parents=True) or top,
            "neither stats.jsonl nor training_options.json, nor runs",
        ),
        (lambda top: make_run(top / "runs/00000-a", ticks=0, sheets=0).parent, "not one of its 1 runs can be read yet"),
        (lambda top: make_run(top / "young", ticks=0, sheets=0), "after the first tick"),
    ],
    ids=["missing", "file", "empty", "folders", "outdir", "young"],
)
def test_what_is_no_run_is_one_line(make, message, tmp_path):
    done = command(make(tmp_path), f"--out={tmp_path / 'report.html'}")
    assert done.exit_code == 2 and re.search(message, done.stderr) and done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.unit
def test_a_run_without_statistics_beside_another_is_a_note(tmp_path):
    young, old = make_run(tmp_path / "young", ticks=0, sheets=1), make_run(tmp_path / "old")
    (young / "training_options.json").write_text("{")
    (young / "fakes000000.png").write_bytes(b"no picture")
    (old / "fakes000000.png").rename(old / "fakes_init.png")
    page = page_of(young, old)
    assert "There are no statistics" in page.text and "fakes000000.png cannot be read" in page.text
    assert "training_options.json is not a JSON" in page.text
    assert [image["alt"] for image in page.all("img")] == [
        "Samples of old, 200 kimg",
        "Samples of old, before training",
    ]


@pytest.mark.unit
def test_an_output_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", sheets=0)
    for out in (tmp_path, ".", folder / "stats.jsonl" / "report.html"):
        done = command(folder, f"--out={out}")
        assert done.exit_code == 2 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    folders = [make_run(tmp_path / str(index), ticks=1, sheets=0, batch_size=index) for index in range(9)]
    with pytest.raises(OptionError, match="9 different runs are too many"):
        report_page.write(folders, tmp_path / "report.html")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"needs jinja2: pip install 'stylegan-plugins\[report\]'"):
        report_page.write([folder], tmp_path / "report.html")


@pytest.mark.unit
def test_a_folder_that_is_no_host_is_one_line(tmp_path):
    folder, out = make_run(tmp_path / "run"), f"--out={tmp_path / 'report.html'}"
    done = command(folder, f"--host={tmp_path}", "--generate", out)
    assert done.exit_code == 2 and "No host in" in done.stderr
    for flag in (f"--host={tmp_path}", "--device=cpu"):
        done = command(folder, flag, out)
        assert done.exit_code == 2 and f"{flag} has no effect without --generate" in done.stderr


@pytest.mark.run
def test_with_a_host_there_are_newest_samples_and_an_interpolation(family, fetched, pickles, tmp_path):
    folder, out = make_run(tmp_path / "run", sheets=0, plugins={}), tmp_path / "report.html"
    shutil.copy(pickles[family], folder / "network-snapshot-000016.pkl")
    other = make_run(tmp_path / "no-pickle", sheets=1)
    code = "import sys; from stylegan_plugins.cli import main; sys.argv[0] = 'stylegan-plugins'; main()"
    args = [folder, other, "--generate", f"--host={fetched[family]}", f"--out={out}", "--device=cpu"]
    run_script(Path.cwd(), "-c", code, "report", *args)
    page = Page(out.read_text())
    newest, strip = [image for image in page.all("img") if "images of run, 16 kimg" in image["alt"]]
    assert newest["alt"].startswith("Seeds 0 to 31") and strip["alt"].startswith("From seed 0 to 1")
    assert [(image["width"], image["height"]) for image in (newest, strip)] == [("256", "128"), ("256", "64")]
    first, last = (np.asarray(decoded(image).convert("RGB"))[:32] for image in (newest, strip))
    assert np.array_equal(first[:, :32], last[:, :32])  # seed 0
    assert np.array_equal(first[:, 32:64], last[:, -32:])  # seed 1
    assert "No images were made with the generator" in page.text  # of the other run


@pytest.mark.unit
@pytest.mark.parametrize("side", [16, 32, 128, 256, 512, 1024])
@pytest.mark.parametrize("known", [True, False])
def test_the_side_of_an_image_is_found_in_every_sheet_of_the_host(side, known):
    size = tuple(min(max(most // side, least), 32) * side for most, least in ((7680, 7), (4320, 4)))
    assert thumbnails.side_of(size, side if known else None) == (256 if side == 512 and not known else side)
    assert thumbnails.side_of((999, 333), side if known else None) is None


@pytest.mark.unit
def test_an_excerpt_is_the_upper_left_of_the_sheet_and_images_do_not_run_into_each_other():
    rows, columns, side = 8, 15, 512
    shades = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
    sheet = PIL.Image.fromarray(np.kron(shades, np.ones((side, side), np.uint8)))
    image, small = thumbnails.excerpt(sheet, side)
    assert image.size == (8 * 128, 4 * 128) and not small
    assert np.array_equal(np.asarray(image), np.kron(shades[:4, :8], np.ones((128, 128), np.uint8)))


POINTS = st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=400)


@pytest.mark.unit
@FEW
@given(POINTS, st.integers(5, 60))
def test_thinning_keeps_ends_extremes_order_and_gaps(values, most):
    points = [(float(index), value) for index, value in enumerate(values)]
    thinned = charts.thin(points, most)
    assert len(thinned) <= max(most, 5)
    assert thinned[0] == points[0] and thinned[-1] == points[-1]
    assert set(thinned) <= set(points) and thinned == sorted(thinned, key=lambda point: point[0])
    measured = [value for value in values if value is not None]
    kept = [value for _, value in thinned if value is not None]
    if measured:
        assert (min(kept), max(kept)) == (min(measured), max(measured))
    assert (None in values) == any(value is None for _, value in thinned)


@pytest.mark.unit
@FEW
@given(POINTS)
@example([1e308, -1e308])
@example([5e-324, 1e308])
@example([0.0, 5e-324])
@example([1.0, 1.0000000000000002])
def test_any_finite_values_are_drawn_inside_the_frame(values):
    points = [(float(index), value) for index, value in enumerate(values)]
    drawn = charts.chart("Title", "key", [charts.Line(0, "", points)])
    if all(value is None for value in values):
        assert drawn is None
        return
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", drawn.lines[0].path.replace("h0", ""))]
    assert all(charts.LEFT <= x <= charts.WIDTH - charts.RIGHT for x in numbers[::2])
    assert all(charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM for y in numbers[1::2])
    assert 1 <= len(drawn.y_ticks) <= 6 and 1 <= len(drawn.x_ticks) <= 7
    assert all(charts.TOP - 0.1 <= y <= charts.HEIGHT - charts.BOTTOM + 0.1 for y, _ in drawn.y_ticks)


TINY = [0.0, 5e-324, -5e-324, 1e-310, 2.2250738585072014e-308, 2.225073858507202e-308, 1.7976931348623157e308]
ANY = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(TINY))


@pytest.mark.unit
@FEW
@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=5))
@example([(5e-324, 1.0)])
@example([(0.0, 0.0), (1e-323, 1e-323)])
@example([(2.2250738585072014e-308, 5e-324), (2.225073858507202e-308, 1.0)])
def test_values_at_any_kimg_are_drawn_inside_the_frame(points):
    drawn = charts.chart("Title", "key", [charts.Line(0, "", sorted(points))])
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", drawn.lines[0].path.replace("h0", ""))]
    assert all(charts.LEFT <= x <= charts.WIDTH - charts.RIGHT for x in numbers[::2])
    assert all(charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM for y in numbers[1::2])
    assert 1 <= len(drawn.x_ticks) <= 7 and 1 <= len(drawn.y_ticks) <= 6
    assert all(charts.LEFT - 0.1 <= x <= charts.WIDTH - charts.RIGHT + 0.1 for x, _ in drawn.x_ticks)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@pytest.mark.unit
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["a/real", "a/fake", "b", "kimg", "Progress/kimg", ""]), JSON), max_size=6)
)
@example([{"kimg": 1, "b": {"mean": 3}}, {"kimg": 1.5, "b": {"mean": {"mean": 3}}}])
def test_any_json_makes_a_page_or_one_line(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("odd")
    for name in ("stats.jsonl", "diagnostics.jsonl", "metric-x.jsonl", "training_options.json"):
        (folder / name).write_text("\n".join(map(json.dumps, lines)))
    try:
        run = history.read(folder)
    except DataError:
        return
    assert all(value is None or math.isfinite(value) for values in run.stats.values.values() for value in values)
    assert all(len(values) == len(run.stats.kimg) for values in run.stats.values.values())
    Page(report_page.render([run, run]))


TEMPLATE = Path(report_page.__file__).with_name("report.html.jinja")


@pytest.mark.unit
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(FILES), st.integers(0, 2**32))
def test_a_mutant_of_any_file_makes_a_page_or_one_line(mutated, file, seed):
    folder, sound = mutated
    draw = random.Random(seed)
    (folder / file).write_bytes(mutate(draw, sound[file]))
    done = command(folder, f"--out={folder.parent / 'report.html'}")
    (folder / file).write_bytes(sound[file])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 0 or (done.exit_code == 2 and done.stderr.count("\n") == 1), done.stderr
    if done.exit_code == 0:
        written = (folder.parent / "report.html").read_text(encoding="utf-8")
        assert written.count("<script") == TEMPLATE.read_text(encoding="utf-8").count("<script")  # others are escaped


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    """A run directory with all files that a report reads, and their contents."""
    folder = make_run(tmp_path_factory.mktemp("mutants") / "run", ticks=4, sheets=1, side=16)
    add_metric(folder, "fid50k_full", {0: 90.0, 4: 80.0})
    add_metric(folder, "kid_x", {0: 0.5, 4: 0.25}, "kid_x")
    add_diagnostics(folder, 3)
    return folder, {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.unit
def test_lone_surrogates_and_control_characters_are_no_traceback(tmp_path):
    """In a folder's name that is not UTF-8, in a statistic, in a setting, and in the folder that an error names."""
    folder = make_run(tmp_path / os.fsdecode(b"run-\xff"), sheets=0, note="\ud800", **{"\udfff": 1})
    with open(folder / "stats.jsonl", "a") as file:
        for kimg in (97.0, 98.0):
            file.write(json.dumps({"Progress/kimg": statistic(kimg), "\ud800/real": statistic(kimg)}) + "\n")
    out = tmp_path / os.fsdecode(b"page-\xff.html")
    done = command(folder, f"--out={out}")
    assert done.exit_code == 0, done.output
    assert "run-?" in Page(out.read_text(encoding="utf-8")).text
    make_run(tmp_path / "runs" / "00000-\x1b[2J\nError", ticks=0, sheets=0)
    done = command(tmp_path / "runs", f"--out={out}")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


@pytest.mark.unit
def test_values_near_0_and_kimg_that_are_no_numbers_of_a_run_are_drawn(tmp_path):
    folder = make_run(tmp_path / "run", ticks=0, sheets=0)
    rows = [{"kimg": 5e-324, "a": 5e-324, "b": 1e-310}, {"kimg": 1e-323, "a": 1e-310, "b": 1e308}]
    (folder / "stats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for snapshot in ("9" * 400, "7"):
        line = {"results": {"fid": 1.0}, "snapshot_pkl": f"network-snapshot-{snapshot}.pkl"}
        with open(folder / "metric-fid.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
    run = history.read(folder)
    assert run.metrics["fid"][""].kimg == [7.0] and "1 lines of metric-fid.jsonl name no snapshot" in run.notes[-1]
    page_of(folder)


@pytest.mark.unit
def test_a_recorded_side_that_no_host_has_is_not_believed(tmp_path):
    folder = make_run(tmp_path / "run", sheets=1, side=256)
    text = json.loads((folder / "training_options.json").read_text())
    sizes = {}
    for side in (None, -256, -1, 0, 1, 1e300, "16", True, [16]):
        text["training_set_kwargs"]["resolution"] = side
        (folder / "training_options.json").write_text(json.dumps(text))
        (image,) = page_of(folder).all("img")
        sizes[str(side)] = decoded(image).size
    assert set(sizes.values()) == {sizes["None"]}, sizes


@pytest.mark.unit
def test_no_program_is_started_for_an_image_whatever_its_name_and_no_pipe_is_opened(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: started.append(args))
    folder = make_run(tmp_path / "run", sheets=2, side=16)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    (folder / "fakes000001.png").write_bytes(postscript)
    PIL.Image.new("RGB", (9, 9)).save(folder / "fakes000002.png", "bmp")
    os.mkfifo(folder / "fakes000003.png")
    PIL.Image.new("1", (30_000, 30_000)).save(folder / "fakes000004.png")
    page = page_of(folder)
    for index in (1, 2, 3, 4):
        assert f"fakes00000{index}.png cannot be read as an image and was left out" in page.text
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.png").write_bytes(postscript)
    with pytest.raises(DataError, match="neither PNG nor JPEG"):
        datasets.check_dataset(tmp_path / "set")
    with pytest.raises(DataError, match=r"--like: .*0.png is neither PNG nor JPEG. Convert it."):
        sample.read_image(tmp_path / "set" / "0.png", None)
    assert started == []


@pytest.mark.unit
@pytest.mark.parametrize("name", ["stats.jsonl", "diagnostics.jsonl", "metric-x.jsonl", "training_options.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    folder = make_run(tmp_path / "run", sheets=0)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    done = command(folder, f"--out={tmp_path / 'report.html'}")
    assert "is not a regular file" in done.stderr if name.endswith("jsonl") else done.exit_code == 0


@pytest.mark.unit
def test_a_device_is_written_to_and_not_replaced(tmp_path):
    """The device that is always full was replaced by the page, with exit code 0."""
    folder, full = make_run(tmp_path / "run", sheets=0), tmp_path / "full"
    try:
        os.mknod(full, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        full.open("wb").close()
    except PermissionError:
        pytest.skip("devices can be made by root alone")
    done = command(folder, f"--out={full}")
    assert done.exit_code == 2 and "full cannot be written (no space left, " in done.stderr
    assert full.is_char_device()


@pytest.mark.unit
def test_results_of_other_images_are_curves_of_their_own_and_never_the_best(tmp_path):
    folder, other = make_run(tmp_path / "a", sheets=0), make_run(tmp_path / "b", sheets=0)
    of = {"data": "x", "real": 100, "samples": 5000, "seed": 0}
    quick = {**of, "samples": 8}
    for run, values in ((folder, [(of, 0, 90.0), (of, 200, 30.0), (quick, 200, 3.0)]), (other, [(quick, 0, 2.0)])):
        for these, kimg, value in values:
            line = {"results": {"fid_clean": value}, "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl"}
            line |= {"metric": "fid_clean", "of": {**these, "pickle": f"{kimg}"}}
            with open(run / "metric-fid_clean.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
    runs = [history.read(folder), history.read(other)]
    keys = {samples: records.key_of({"of": {**of, "samples": samples}}) for samples in (8, 5000)}
    assert runs[0].metrics["fid_clean"][keys[5000]].points("fid_clean") == [(0, 90.0), (200, 30.0)]
    first, second = tables.metrics(configurations(runs), tables.main_keys(runs))
    assert (first["name"], second["name"]) == ("fid_clean", f"fid_clean:{keys[8]}")
    assert second["runs"] == [0, 1] and not any(best for _, cells in second["rows"] for _, best, _ in cells)
    text = re.sub(r"\s+", " ", page_of(folder, other).text)
    assert "30 ★" in text and "3 ★" not in text and "2 ★" not in text and "30at 200 kimg" in text
    assert "8 generated, 100 real" in text


@pytest.mark.unit
@pytest.mark.parametrize("kimg, alarm", [(2.0, False), (4000.0, True)])
def test_an_early_run_is_not_said_to_over_fit(tmp_path, kimg, alarm):
    folder = make_run(tmp_path / "run", sheets=0)
    add_diagnostics(folder, 3)
    for name in ("stats.jsonl", "diagnostics.jsonl"):
        text = (folder / name).read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        for index, line in enumerate(lines):
            key = "kimg" if "kimg" in line else "Progress/kimg"
            line[key] = kimg * (index + 1) / len(lines)
        (folder / name).write_text("\n".join(map(json.dumps, lines)))
    text = page_of(folder).text
    said = [phrase for phrase in ("is over-fitting", "rises: over-fitting", "D wins") if phrase in text]
    assert len(said) == (3 if alarm else 0) and ("In the first 200 kimg" in text) is not alarm


def luminance(color: np.ndarray) -> float:
    """Return the relative luminance of WCAG 2 of linear RGB."""
    return float(color @ [0.2126, 0.7152, 0.0722])


def linear(color: str) -> np.ndarray:
    srgb = np.array([int(color[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.unit
@pytest.mark.parametrize("theme, ground", [(0, "#ffffff"), (1, "#1c1f23")])
def test_colors_of_runs_are_seen_on_their_ground(theme, ground):
    """Contrast of 3:1, what WCAG 2 asks of graphics, and of 4.5:1 for letters of the first five."""
    for index, color in enumerate(report_page.COLORS):
        high, low = sorted([luminance(linear(color[theme])), luminance(linear(ground))], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= (4.5 if index < 5 else 3), color


# Machado, Oliveira and Fernandes 2009, severity 1: how linear RGB looks without one kind of cones.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.unit
@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("kind", BLIND)
def test_three_runs_are_told_apart_by_the_color_blind(kind, theme):
    """CIE 1976 difference of 15 or more; 2.3 is just noticeable. Marks and letters tell further runs apart."""

    def lab(color: str) -> np.ndarray:
        seen = np.clip(np.array(BLIND[kind]) @ linear(color), 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
        f = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-3))
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for one, other in itertools.combinations([color[theme] for color in report_page.COLORS[:3]], 2):
        assert np.linalg.norm(lab(one) - lab(other)) >= 15, (one, other)


@pytest.mark.host
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_the_page_fits_the_window_and_values_appear_under_the_pointer(width, three, tmp_path):
    out = tmp_path / "report.html"
    method = {"active": ["a-method-with-a-long-name"] * 4, "options": {}}
    names = [f"{'long-name-' * 9}{seed}" for seed in range(2)]
    seeds = [make_run(tmp_path / name, ticks=3, random_seed=seed, plugins=method) for seed, name in enumerate(names)]
    report_page.write([*three, *seeds], out)
    driver = """
      const plot = document.querySelector("svg.plot"), box = plot.getBoundingClientRect();
      plot.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 9}));
      const seen = {width: document.documentElement.scrollWidth, window: innerWidth,
        values: document.querySelector(".values")?.innerText ?? null};
      document.getElementById("show1").click();
      seen.hidden = [...document.querySelectorAll("g.run.r1")].every((g) => getComputedStyle(g).display == "none");
      parent.document.title = JSON.stringify(seen);
    """
    text = re.sub(r"<meta http-equiv=[^>]*>", "", out.read_text())  # which forbids scripts that are not the page's own
    inner = html.escape(text.replace("</body>", f"<script>{driver}</script></body>"))
    # In a frame: a browser's own window cannot be made as narrow as a phone.
    out.write_text(f'<title></title><iframe width="{width}" height="900" style="border: 0" srcdoc="{inner}"></iframe>')
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([BROWSER, *flags, out.as_uri()], capture_output=True, text=True, timeout=120)
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&quot;", '"'))
    assert seen["width"] <= seen["window"] == width
    assert re.search(r"^[\d.]+ kimg\nA [\d.]+\nB [\d.]+\nC [\d.]+$", seen["values"])
    assert seen["hidden"]
