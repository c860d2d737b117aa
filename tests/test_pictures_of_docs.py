"""The figures of docs/pictures/: they are as the code says, and complete. A picture checks its own layout when it is
drawn: boxes that overlap, and text that does not fit, are errors."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import pytest

from stylegan_plugins import hookspecs
from stylegan_plugins.manager import builtin

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
PICTURES = sorted(ROOT.glob("docs/pictures/*.svg"))
HOOKS = [
    name
    for name, value in {**vars(hookspecs), **vars(hookspecs.MethodHooks)}.items()
    if hasattr(value, "stylegan_plugins_spec")
]


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch):
    """Return a function that imports a module of docs/drawing."""
    for folder in ("docs", "benchmarks"):
        monkeypatch.syspath_prepend(ROOT / folder)

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"drawing.{name}")

    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] in ("drawing", "claims")]:
        del sys.modules[name]


def test_the_pictures_are_those_that_the_code_draws():
    command = [sys.executable, ROOT / "docs/make_pictures.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_small_and_its_text_can_be_read(picture):
    assert picture.stat().st_size < 60_000
    root = ElementTree.parse(picture).getroot()
    sizes = [float(element.attrib["font-size"]) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert root.attrib["width"] == "800" and min(sizes) >= 12


def test_every_plugin_has_a_family_and_a_place(drawing):
    places = drawing("places")
    assert sorted(name for names in places.FAMILIES.values() for name in names) == sorted(builtin())
    assert {name for names in places.places().values() for name in names} == set(builtin())


def test_every_hook_is_on_the_pictures_or_said_to_be_left_out(drawing):
    places, stops = drawing("places"), drawing("methods").STOPS
    shown = {key for stop in stops for key in stop.keys}
    assert set(HOOKS) == shown & set(HOOKS) | places.NOT_SHOWN
    assert not shown & places.NOT_SHOWN
    assert set(places.PARTS) <= shown


def test_a_place_without_a_stop_is_an_error(drawing, monkeypatch):
    methods = drawing("methods")
    monkeypatch.setattr(methods, "places", lambda: {"register_dreams": ["cr"]})
    with pytest.raises(ValueError, match="no place in .* for register_dreams"):
        methods.methods()


def test_boxes_that_overlap_and_text_that_is_too_long_are_errors(drawing):
    svg = drawing("svg")
    picture, style = svg.Drawing("title", "description"), svg.Style("#fff", "#000")
    picture.box(svg.Box(0, 0, 100, 40), style, "first")
    with pytest.raises(ValueError, match="'second' overlaps"):
        picture.box(svg.Box(90, 30, 100, 40), style, "second")
    with pytest.raises(ValueError, match="does not fit"):
        picture.box(svg.Box(0, 100, 50, 40), style, "a name that is long")
    with pytest.raises(ValueError, match="leaves the picture"):
        picture.text((790, 20), "outside")


def test_the_picture_of_claims_has_each_claim_and_its_interval_agrees_with_the_verdict(drawing):
    rows = drawing("claims").rows()
    assert [row.text for row in rows] == [claim.text for claim in importlib.import_module("claims").claims()]
    for row in rows:
        if row.verdict != "not run":
            above = abs(row.difference) > row.reach
            told = ("holds" if row.difference > 0 else "does not") if above else "cannot be told"
            assert row.verdict == told, row


def test_a_claim_may_take_its_worse_side_from_other_results(drawing, monkeypatch):
    """Same sides, once of one file and once of two files, have the same interval."""
    module, claims = drawing("claims"), importlib.import_module("claims")
    claim = next(claim for claim in claims.claims() if claim.results == "where-t" and "@ 100" in claim.better)
    fields = {name: getattr(claim, name) for name in ("text", "results", "figure", "better", "worse")}
    monkeypatch.setattr(claims, "claims", lambda: [SimpleNamespace(**fields, against=claim.results), claim])
    first, second = module.rows()
    assert first == second and first.reach > 0
    monkeypatch.setattr(claims, "claims", lambda: [SimpleNamespace(**fields, against="absent")])
    assert [row.verdict for row in module.rows()] == ["not run"]
    assert "not run" in module.claims_picture()


def test_no_plugin_stands_twice_at_one_place():
    text = (ROOT / "docs/pictures/methods.svg").read_text(encoding="utf-8")
    for stop in re.search(r"<desc>(.*?)</desc>", text)[1].split("; "):
        names = stop.partition(": ")[2].split(", ")
        assert len(names) == len(set(names)), stop
