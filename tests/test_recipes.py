"""Recipes of `compare`: the installed ones, recipes of users, and the text of a plan."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.runs import TINY
from support.scripts import invoke, run_many

from stylegan_plugins import commands
from stylegan_plugins.analysis import cells, comparison, plan, recipe
from stylegan_plugins.analysis.cells import Cell
from stylegan_plugins.analysis.comparison import Column, Measured, Published, Results
from stylegan_plugins.cli import cli
from stylegan_plugins.errors import OptionError
from stylegan_plugins.run import rules

EMPTY = dict.fromkeys(("plugins", "data", "reference", "kimg", "seeds", "fractions", "metric", "features", "samples"))
EMPTY |= {"rows": (), "vary": (), "more": (), "dry_run": True}
SCALED = [(name, scale) for name in recipe.names() for scale in recipe.SCALES]


def settings_of(name: str, scale: str, **given) -> list[dict]:
    return [found for _, found in recipe.settings_of(name, scale, {**EMPTY, **given})]


@pytest.mark.unit
@pytest.mark.parametrize("name, scale", SCALED)
def test_every_recipe_has_rows_that_can_be_trained(name, scale, monkeypatch):
    """`compare` takes its settings: each option of a plug-in has a plug-in that takes it, and numbers are in range."""
    if scale == "published" and recipe.read(name).published is None:
        with pytest.raises(OptionError, match="no published settings"):
            settings_of(name, scale)
        return
    needs = recipe.read(name).scale(scale).needs
    given = {"more": tuple(f"--{option}=x.pkl" for option in needs)}
    if scale == "small":
        given["data"] = "mine.zip"
    for found in settings_of(name, scale, **given):
        rows = [cells.row_of(row) for row in found["rows"]]
        variations = cells.variations_of(found["vary"])
        cells.check_arguments(rows, found["more"], variations)
        shares = cells.fractions_of(found["fractions"])
        planned = cells.cells_of(rows, variations, shares, found["seeds"])
        images = found["absent"] or 100_000
        assert len(planned) == len(
            {tuple(cells.command(c, Path("/h"), "d", images, 1, Path("o"), ())) for c in planned}
        )
        quoted = found["published"]
        assert quoted is None or all(len(quoted.of(cell.row)) == 1 + len(quoted.heads) for cell in planned)
        if scale == "published":
            assert found["absent"], "how many images it has, for a plan without them"


def lines_of(name: str, scale: str) -> set[tuple[str, ...]]:
    """Return options of train.py of its runs; a local frozen network replaces networks whose weights are a download."""
    given = {"data": "x.zip"} if scale == "small" else {}
    found = set()
    for these in settings_of(
        name, scale, more=tuple(f"--{x}=x.pkl" for x in recipe.read(name).scale(scale).needs), **given
    ):
        rows = [cells.row_of(row) for row in these["rows"]]
        for cell in cells.cells_of(rows, cells.variations_of(these["vary"]), [1.0], 1):
            line = cells.command(cell, Path("/h"), "d", 1, these["kimg"], Path("o"), these["more"])[2:]
            line = [word for word in line if not word.startswith(("--outdir=", "--data=", "--disp-features="))]
            line = [re.sub("(vision-aided-models)=.*", r"\1=efficientnet_lite0", word) for word in line]
            plugins = cell.plugins.split(",")
            line += ["--disp-features=efficientnet_lite0"] * ("disp" in plugins)
            if not any(word.startswith(("--resume=", "--vision-aided-preset=")) for word in line):
                found.add(tuple(line))
    return found


@pytest.mark.run
def test_train_py_takes_the_options_of_every_row(patched, tmp_path):
    """Except of rows that start from a pretrained network, or choose among several frozen ones."""
    data = write_zip(tmp_path / "data.zip", color_crops(80))
    scaled = [(name, scale) for name, scale in SCALED if scale == "small" or recipe.read(name).published]
    lines = sorted(set().union(*(lines_of(name, scale) for name, scale in scaled)))
    assert len(lines) > 80
    base = [f"--data={data}", "--outdir=no-such-folder", "--dry-run", "--device=cpu"]
    results = run_many(patched[ADA], [[*base, *line] for line in lines])
    assert [(line, result["stderr"]) for line, result in zip(lines, results) if result["code"]] == []


@pytest.mark.unit
def test_published_figures_are_those_of_the_talks():
    """Some of each table, read from the slides."""
    figures = {
        ("low-shot", "100-shot-panda", "augself", "Panda"): 8.36,
        ("low-shot", "AnimalFace-dog", "apa --aug=noaug", "Dog"): 81.16,
        ("transfer", "100-shot-obama", "freezed+diffaugment --resume=ffhq256", "Obama"): 35.75,
        ("ffhq", "FFHQ", "augself --augself-preset=plus", "1K"): 20.39,
        ("lsun-cat", "LSUN-Cat", "none --aug=noaug", "1K"): 182.85,
        ("cifar10", "CIFAR-10", "diffaugment+disp --disp-preset=limited", "10%"): 12.03,
        ("cifar100", "CIFAR-100", "none --aug=noaug", "20%"): 32.30,
        ("contrad-cifar10", "CIFAR-10", "contrad --contrad-preset=cifar", "CIFAR-10"): 9.80,
        ("disp-few-shot", "Faces", "diffaugment+disp", "Faces recall"): 0.19,
    }
    for (name, data, row, head), figure in figures.items():
        (found,) = [these for these in settings_of(name, "published") if these["data"] == data]
        assert found["published"].rows[cells.row_of(row)][1][head] == figure, (name, row)


@pytest.mark.unit
@pytest.mark.parametrize(
    "table, name, prefix",
    [
        ("low-shot", "low-shot", ""),
        ("transfer", "transfer", ""),
        ("subsets", "ffhq", "FFHQ "),
        ("subsets", "lsun-cat", "LSUN-Cat "),
        ("cifar-stylegan2", "cifar10", "CIFAR-10 "),
        ("cifar-stylegan2", "cifar100", "CIFAR-100 "),
    ],
)
def test_recipes_and_rules_quote_the_same_figures(table, name, prefix):
    quoted = {figures for figures in rules.FIGURES[table].rows.values()}
    columns = [at for at, head in enumerate(rules.FIGURES[table].columns) if head.startswith(prefix)]
    found = {tuple(row.published.values()) for row in recipe.read(name).rows}
    others = {(32.21, 17.79, 9.49, 30.89, 49.63)} if name == "low-shot" else set()  # GenCo's, of another source
    assert {tuple(figures[at] for at in columns) for figures in quoted} == found | others


@pytest.mark.unit
def test_what_a_user_gives_wins():
    (found,) = settings_of("where-t", "small", data="mine.zip")
    assert (found["kimg"], found["seeds"], found["samples"], found["data"]) == (96, 3, 1000, "mine.zip")
    assert found["metric"] == "kid,best_kid,pr_precision,pr_recall,distinct,variety" and "--batch=16" in found["more"]
    given = dict(data="m.zip", reference="h.zip", kimg=5, samples=9, more=("--batch=8", "--device=cpu"), vary=("x=1",))
    (found,) = settings_of("where-t", "small", **given)
    assert (found["kimg"], found["samples"], found["vary"]) == (5, 9, ["x=1"])
    assert "--batch=16" not in found["more"] and found["more"][-2:] == ("--batch=8", "--device=cpu")
    assert found["metric"].split(",")[-2:] == ["distance", "variety"]
    # A missing data set of the user is an error of compare, not a plan without it.
    assert settings_of("ffhq", "published", data="nowhere.zip", dry_run=True)[0]["absent"] is None
    # A value may be a separate word, and a varied option replaces an option that the recipe varies or sets.
    (found,) = settings_of("r1", "published", more=("--cbase", "512", "--workers", "0"), vary=("gamma=3,4",))
    assert found["vary"] == ["gamma=3,4"] and found["more"][-2:] == ("--cbase=512", "--workers=0")
    assert settings_of("r1", "published", more=("--gamma=3",))[0]["vary"] == []
    (found,) = settings_of("cifar10", "published", more=("--aug", "ada"), vary=("gamma=3,4",))
    assert found["rows"][0] == "none --aug=ada" and not {"ada", "--aug=ada", "--gamma=0.1"} & set(found["more"])
    # An option of some rows stays one of these.
    mine = settings_of("transfer", "small", data="m.zip", more=("--resume=a b.pkl",))[0]
    rows = [cells.row_of(row) for row in mine["rows"]]
    assert ("freezed", (("resume", "a b.pkl"), ("aug", "noaug"))) in rows and ("diffaugment", ()) in rows
    assert (
        not any("resume" in argument for argument in mine["more"]) and ("freezed", rows[4][1]) in mine["published"].rows
    )
    # One data set of several, with what is its own.
    (cat,) = settings_of("transfer", "published", data="AnimalFace-cat")
    assert (cat["kimg"], cat["published"].heads) == (500, ["Cat"])


@pytest.mark.unit
@pytest.mark.parametrize(
    "name, scale, given, message",
    [
        ("nosuch", "small", {}, "--recipe=nosuch: there is no such recipe. Give one of afhq, "),
        ("./gone.toml", "small", {}, "--recipe=./gone.toml: it cannot be read"),
        ("ffhq", "published", {}, "--recipe=ffhq: FFHQ is not downloaded: 70,000 pictures of .* Give it with --data"),
        ("cifar10", "published", {"data": "x.zip"}, "figures are of the 10,000 test images of CIFAR-10. Give them"),
        (
            "low-shot",
            "small",
            {},
            "--recipe=low-shot --scale=small: give --data, pictures of your own or AnimalFace-dog",
        ),
        (
            "transfer",
            "small",
            {"data": "x.zip"},
            "--recipe=transfer needs a pretrained network .* Add -- --resume=....",
        ),
        ("low-shot", "published", {"plugins": "none"}, "--recipe=low-shot has its own rows"),
    ],
)
def test_what_is_missing_is_one_line(name, scale, given, message):
    with pytest.raises(OptionError, match=message):
        settings_of(name, scale, dry_run=False, **given)


VALID = {"about": '"a"', "source": '"s"', "rows": '[{ plugins = "none", published = { x = 1 } }]'}
VALID["data"] = '[{ name = "d", columns = ["x"] }]'


@pytest.mark.unit
@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, None),
        ({"rows": '[{ plugins = "none", argument = "x" }]'}, "unknown field `argument` - at `\\$.rows"),
        ({"rows": '[{ plugins = "none --gamma" }]'}, "--row=none --gamma: give plug-ins"),
        ({"rows": '[{ plugins = "none", published = { y = 1 } }]'}, "no data set has the column 'y'"),
        ({"published": '{ kimg = "x", metric = "fid" }'}, "Expected `int`, got `str` - at `\\$.published.kimg"),
        ({"small": "{ kmg = 3 }"}, "unknown field `kmg`"),
        ({"small": "{ seeds = 0 }"}, "`int` >= 1 - at `\\$.seeds"),
        ({"published": '{ kimg = -3, metric = "fid" }'}, "`int` >= 1 - at `\\$.published.kimg"),
        (
            {"published": """{ kimg = 1, metric = "fid", arguments = "--x='y" }"""},
            "No closing quotation - at `\\$.publ",
        ),
        (
            {"data": """[{ name = "d", columns = ["x"], arguments = "--x='y" }]"""},
            "No closing quotation - at `\\$.data",
        ),
        ({"rows": "[]"}, "`array` of length >= 1 - at `\\$.rows"),
        ({"about": "[["}, "is not valid|Invalid|Unclosed|Expected"),
    ],
)
def test_a_recipe_of_ones_own_is_read_or_one_line(changes, message, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(f"{name} = {value}" for name, value in {**VALID, **changes}.items()))
    if message is None:
        assert recipe.read(str(file)).rows[0].published == {"x": 1.0}
        return
    with pytest.raises(OptionError, match=message) as error:
        recipe.read(str(file))
    assert str(error.value).startswith(f"--recipe={file}: ") and "\n" not in str(error.value)


@pytest.mark.unit
@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=60) | st.text("abc=[]{}\"'#.1 \n", max_size=40).map(str.encode))
def test_any_file_is_a_recipe_or_one_line(content):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder) / "x.toml").write_bytes(content)
        with pytest.raises(OptionError, match="^--recipe="):
            recipe.read(str(file))


@pytest.mark.unit
def test_the_list_has_a_line_for_each_recipe_and_compare_says_what_it_takes(tmp_path):
    done = CliRunner().invoke(cli, ["recipes"])
    assert [line.split()[0] for line in done.output.splitlines()] == recipe.names() and len(recipe.names()) >= 20
    done = CliRunner().invoke(cli, ["compare", f"--outdir={tmp_path}"])
    assert done.exit_code == 2 and "give --plugins or --row, --data and --kimg; or --recipe=NAME" in done.output
    assert recipe.DEFAULTS.keys() <= {parameter.name for parameter in commands.compare.params}


@pytest.mark.unit
def test_published_figures_stand_beside_ours_and_their_source_below():
    own, varied = (("aug", "noaug"),), (("aug", "noaug"), ("gamma", "1"))
    quoted = Published(["Cat"], {("none", ()): ("other", {}), ("none", own): ("StyleGAN2", {"Cat": 71.71})}, "A table.")
    planned = [Cell("none", 1.0, 0, varied), Cell("none", 1.0, 0), Cell("augself", 1.0, 0)]
    runs = [Measured(cell, "f", {"fid": 5.0 + k}, "off") for k, cell in enumerate(planned)]
    found = Results([Column("fid", "fid_clean", False)], "inception", 1, 2, 3, planned, runs, published=quoted)
    text = comparison.as_markdown(found)
    assert "| plug-ins | aug | gamma | FID ↓ | published as | published, Cat |" in text
    rows = ["| none | noaug | 1 | **5** | StyleGAN2 | 71.71 |", "| none | – | – | 6 | other | – |"]
    assert "\n".join([*rows, "| augself | – | – | 7 | – | – |"]) in text
    below = "Published figures are quoted, and not ours: A table."
    assert text.endswith(f"|\n\n{below}") and f'</table>\n</div>\n<p class="caption">{below}' in comparison.as_html(
        found, None
    )


@pytest.mark.unit
def test_the_estimate_is_that_of_each_rows_speed():
    left = {Cell("none", 1.0, 0): 10.0, Cell("none", 1.0, 1): 5.0, Cell("augself", 1.0, 0): 10.0}
    lines = plan.estimate(left, {("none", ()): 100.0, ("augself", ()): 50.0}, lambda seconds: f"{seconds:g} s")
    assert lines == [
        "none: 15 kimg at 100 images/s, 150 s",
        "augself: 10 kimg at 50 images/s, 200 s",
        "About 350 s of training in all, one run after the other; metrics come on top.",
    ]
    assert plan.estimate(left, {("none", ()): "too dark"}, str) == ["none: no estimate (too dark)"]
    assert plan.estimate(left, {("none", ()): 0.0}, str) == ["none: no estimate (its speed was too low to measure)"]


@pytest.mark.unit
def test_a_trial_ends_when_its_speed_is_known_and_leaves_nothing(tmp_path):
    lines = [f"print('progress: 1 of 2 kimg (4%)  {speed} images/s  6m left', flush=True)" for speed in (2.5, 57.3)]
    code = "; ".join(["import time", *lines, "time.sleep(600)"])
    assert plan.speed_of([sys.executable, "-c", code, "--outdir=x"], tmp_path) == 57.3
    assert plan.speed_of([sys.executable, "-c", "print('Error: too dark.'); exit(2)"], tmp_path) == "too dark."
    assert not list(tmp_path.iterdir())


@pytest.mark.unit
def test_a_speed_is_measured_once(tmp_path, monkeypatch):
    speeds, told = iter([2.5, "too dark", 7.0, 9.0, 8.0]), []
    monkeypatch.setattr(plan, "speed_of", lambda arguments, outdir: next(speeds))
    left = {cells.Cell(name, 1.0, seed): 1.0 for name in ("none", "apa") for seed in (0, 1)}
    measure = lambda: list(
        plan.speeds_of(left, lambda cell: [cell.plugins, str(cell.seed)], tmp_path, told.append).values()
    )
    assert measure() == [2.5, "too dark"] and len(told) == 2
    assert measure() == [2.5, 7.0] and len(told) == 3  # a failed measurement is tried again
    assert measure() == [2.5, 7.0] and len(told) == 3
    (tmp_path / plan.SPEEDS).write_text('{"x": ')
    assert measure() == [9.0, 8.0]


@pytest.mark.run
def test_a_plan_without_data_and_one_with_an_estimate_train_nothing(ada_host, small_zip, tmp_path):
    flags = [f"--outdir={tmp_path / 'out'}", f"--host={ada_host}", "--dry-run"]
    done = invoke(tmp_path, "compare", "--recipe=ffhq", *flags)
    assert done.returncode == 0, done.stderr
    assert "published as AugSelf-StyleGAN2+: 30K 5.82, 10K 6.65, 5K 9.15, 1K 20.39" in done.stdout
    assert "--subset=30000" in done.stdout and "Source: Hou et al. 2023" in done.stdout and "No estimate" in done.stdout
    held = write_zip(tmp_path / "held.zip", color_crops(9, side=16, seed=5))
    tiny = [flag for flag in TINY[ADA] if not flag.startswith(("--kimg", "--snap"))]
    (tmp_path / "mine.toml").write_text(
        'about = "a"\nsource = "s"\nrows = [{ plugins = "diffaugment", arguments = "--diffaugment-where=d" }]\n'
        'small = { metric = "kid,distance", arguments = "" }\n'
    )
    mine = [
        "--recipe=./mine.toml",
        "--scale=small",
        f"--data={small_zip}",
        f"--reference={held}",
        "--samples=16",
        "--kimg=2",
    ]
    done = invoke(tmp_path, "compare", *mine, *flags, "--", *tiny, "--batch=128", "--device=cpu")
    assert done.returncode == 0, done.stderr
    assert re.search(r"diffaugment --diffaugment-where=d: 6 kimg at [\d.]+ images/s", done.stdout)
    assert re.search(r"About .* of training in all", done.stdout) and "(--seed=0 to 2)" in done.stdout
    assert not list((tmp_path / "out").glob("*seed*")) and not list((tmp_path / "out").glob("trial-*"))
    assert not (tmp_path / "out" / "compare.json").exists()
