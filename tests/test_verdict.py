"""The verdict of a report: both sides of each threshold, and silence without figures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylegan_plugins.report import tables, verdict
from stylegan_plugins.report.configurations import configurations
from stylegan_plugins.report.curves import Table
from stylegan_plugins.report.history import Run
from stylegan_plugins.report.verdict import IN_A_ROW

pytestmark = pytest.mark.unit
DOCS = Path(__file__).parents[1] / "docs/reference/report.md"
CLAIMS = {"finite", "over-fits", "copies", "fits", "p", "best", "worse", "only"}


def said(
    kimg=400.0,
    images=100,
    held_out=50,
    r_v=(),
    right=0.9,
    ratio=(),
    metric=(),
    name="fid50k_full",
    total=None,
    p=None,
    not_finite=None,
    **settings,
):
    """Return the verdict, {rule: text}, on a run whose last measurements, 4 kimg apart, are these."""
    count = max(len(r_v), len(ratio))
    log = Table()
    for index in range(count):
        row = {"accuracy/train": right, "accuracy/generated": right}
        row |= {"r_v": r_v[index] if index < len(r_v) else None}
        row |= {"nearest/samples": ratio[index] if index < len(ratio) else None, "nearest/held_out": 1.0}
        log.add(kimg - 4.0 * (count - 1 - index), row)
    stats = Table()
    if kimg is not None:
        stats.add(kimg, {"Loss/G/loss": 1.0, "Progress/augment": p})
    stats.not_finite |= not_finite or {}
    known = {"training_set_kwargs.max_size": images, "plugins.options.diagnostics.holdout": held_out}
    results = [{"results": {name: value}, "kimg": 4.0 * index} for index, value in enumerate(metric)]
    run = Run(Path("run"), {**known, "total_kimg": total, **settings}, stats, log, results, [], [])
    (one,) = configurations([run])
    found = verdict.verdict(one, tables.main_keys([run]))
    assert len({sentence.about for sentence in found}) == len(found)
    assert [s.kind for s in found] == sorted((s.kind for s in found), key=lambda kind: kind != "bad")
    return {sentence.about: sentence.text for sentence in found}


FEW = [1.0] * (IN_A_ROW - 1)


@pytest.mark.parametrize(
    ("rule", "holds", "fails"),
    [
        # r_v: high enough, often enough, in a row, of a D that tells images apart, with enough held-out images.
        ("over-fits", {"r_v": [0.1, 0.5, 0.5, 0.5]}, {"r_v": [0.1, 0.5, 0.49, 0.5]}),
        ("over-fits", {"r_v": [1.0] * IN_A_ROW}, {"r_v": FEW}),
        ("over-fits", {"r_v": [1.0] * IN_A_ROW}, {"r_v": [1.0, None, *FEW]}),
        ("over-fits", {"r_v": [1.0] * 4, "right": 0.6}, {"r_v": [1.0] * 4, "right": 0.59}),
        ("over-fits", {"r_v": [1.0] * 4, "held_out": 16}, {"r_v": [1.0] * 4, "held_out": 15}),
        ("over-fits", {"r_v": [1.0] * 4, "kimg": 10.0}, {"r_v": [1.0] * 4, "kimg": 9.9}),
        (
            "over-fits",
            {"r_v": [1.0] * 4, "kimg": 50.0, "images": 1000},
            {"r_v": [1.0] * 4, "kimg": 49.0, "images": 1000},
        ),
        ("fits", {"r_v": [0.25] * 4}, {"r_v": [0.25, 0.25, 0.26]}),
        ("fits", {"r_v": [0.1] * IN_A_ROW}, {"r_v": [0.1] * (IN_A_ROW - 1)}),
        ("fits", {"r_v": [0.1] * 4, "ratio": [0.8] * 4}, {"r_v": [0.1] * 4, "ratio": [0.79] * 4}),
        ("fits", {"r_v": [0.1] * 4, "right": 0.6}, {"r_v": [0.1] * 4, "right": 0.59}),
        # Copies: near enough, often enough, and not before samples are sharp.
        ("copies", {"ratio": [0.5] * 4}, {"ratio": [0.5, 0.5, 0.51]}),
        ("copies", {"ratio": [0.1] * IN_A_ROW}, {"ratio": [0.1] * (IN_A_ROW - 1)}),
        ("copies", {"ratio": [0.1] * 4, "kimg": 200.0}, {"ratio": [0.1] * 4, "kimg": 199.0}),
        ("early", {"r_v": [1.0] * 4, "kimg": 9.9}, {"r_v": [1.0] * 4, "kimg": 10.0}),
        ("early", {"r_v": FEW}, {"r_v": [1.0] * IN_A_ROW}),
        # Metrics.
        ("best", {"metric": [50.0, 40.0]}, {"metric": [50.0]}),
        ("only", {"metric": [50.0]}, {"metric": [50.0, 40.0]}),
        ("worse", {"metric": [40.0, 44.0, 44.0, 44.0]}, {"metric": [40.0, 44.0, 43.9, 44.0]}),
        ("worse", {"metric": [40.0, 90.0, 90.0, 90.0]}, {"metric": [40.0, 90.0, 90.0]}),
        (
            "worse",
            {"name": "recall", "metric": [0.44, 0.39, 0.39, 0.39]},
            {"name": "recall", "metric": [0.44, 0.39, 0.41, 0.39]},
        ),
        ("unmeasured", {}, {"metric": [1.0]}),
        # ADA.
        ("p", {"p": 0.8, "ada_target": 0.6}, {"p": 0.79, "ada_target": 0.6}),
        ("p", {"p": 0.8, "ada_target": 0.6}, {"p": 0.8}),
        # Losses.
        ("finite", {"not_finite": {"Loss/G/loss": 8.0}}, {"not_finite": {"Method/share": 8.0}}),
    ],
)
def test_each_rule_holds_at_its_threshold_and_not_below(rule, holds, fails):
    assert rule in said(**holds)
    assert rule not in said(**fails)


def test_what_is_said():
    assert said(metric=[50.0, 34.2, 36.0])["best"] == "Best so far: 4 kimg, FID 34.2 (fid50k_full)."
    assert said(metric=[50.0, 34.2], total=400)["best"] == "Best: 4 kimg, FID 34.2 (fid50k_full)."
    assert said(metric=[0.1, 0.4, 0.2], name="recall")["best"] == "Best so far: 4 kimg, recall 0.4."
    assert said(metric=[40.0, 44.0, 44.0, 46.0])["worse"] == "Worse since: FID 46 (fid50k_full) at 12 kimg."
    found = said(r_v=[0.1, 0.2, 0.6, 0.7, 0.8, 0.72])
    assert found["over-fits"].startswith("D over-fits since 388 kimg: ") and "(r_v 0.72)" in found["over-fits"]
    assert said(r_v=[0.05] * 4)["fits"].startswith("No sign of memorising: D scores held-out images like training")
    assert "ratio 0.9" in said(r_v=[0.05] * 4, ratio=[0.9] * 4)["fits"]
    assert "since 8 kimg (Loss/G/loss)" in said(not_finite={"Loss/D/loss": 9.0, "Loss/G/loss": 8.0})["finite"]
    assert list(said(r_v=[1.0] * 4, metric=[3.0, 2.0])) == ["over-fits", "best"]


def test_it_never_says_both_that_a_run_memorises_and_that_there_is_no_sign_of_it():
    assert "fits" not in said(r_v=[0.1] * 4, ratio=[0.4] * 4)
    assert "fits" not in said(r_v=[1.0] * 4, ratio=[1.0] * 4)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
OTHER = st.dictionaries(st.sampled_from(["Loss/G/loss", "Loss/signs/real", "Method/x", "Timing/total_sec"]), FINITE)


@settings(max_examples=60, deadline=None)
@given(st.lists(OTHER, max_size=8), st.dictionaries(st.text(max_size=9), st.integers() | st.text(), max_size=4))
def test_without_measured_figures_nothing_is_claimed(rows, others):
    """A run without metrics, diagnostics and ADA's p, with any length and any finite losses."""
    stats = Table()
    for index, row in enumerate(rows):
        stats.add(1000.0 * index, dict(row))
    known = {"training_set_kwargs.max_size": 10, "plugins.options.diagnostics.holdout": 50, "ada_target": 0.6}
    (one,) = configurations([Run(Path("run"), {**others, **known}, stats, Table(), [], [], [])])
    assert not CLAIMS & {sentence.about for sentence in verdict.verdict(one, {})}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), max_size=6),
    st.lists(st.none() | st.floats(0, 1e6), max_size=6),
    st.lists(FINITE, max_size=6),
    st.floats(0, 1e5),
    st.sampled_from([None, 0, -5, 10, 1000, math.inf]),
)
def test_any_figures_give_sentences_that_do_not_contradict_each_other(r_v, ratio, metric, kimg, images):
    found = said(kimg=kimg, images=images, r_v=r_v, ratio=ratio, metric=metric)
    assert not {"fits", "over-fits"} <= found.keys() and not {"fits", "copies"} <= found.keys()
    if "early" in found:
        assert not {"fits", "over-fits", "copies"} & found.keys()


def test_every_threshold_is_explained_in_the_docs():
    text = DOCS.read_text(encoding="utf-8")
    names = [name for name, value in vars(verdict).items() if name.isupper() and isinstance(value, int | float)]
    assert len(names) >= 13
    for name in names:
        assert f"`{name}` {getattr(verdict, name):g}" in text, name
