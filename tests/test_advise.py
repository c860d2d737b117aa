"""`stylegan-plugins advise`: its rules for any case, its commands in a host, its errors."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA, STYLEGAN3
from support.pickles import make_pickle
from support.scripts import invoke, run_many

import stylegan_plugins
from stylegan_plugins import api
from stylegan_plugins.errors import DataError
from stylegan_plugins.files.snapshots import Network, Snapshot
from stylegan_plugins.manager import builtin, catalogue
from stylegan_plugins.run import advise
from stylegan_plugins.run.rules import ADDITIONS, METHODS, Facts, Known, Rule

ROOT = Path(__file__).parents[1]
RULES = [*METHODS, *ADDITIONS]
TYPICAL = Facts(images=1000, side=64, classes=3, per_class=50)
AUGMENTING = {"diffaugment", "augself", "contrad"}


@st.composite
def cases(draw) -> Facts:
    classes = draw(st.sampled_from([0, 2, 10]))
    pickle = draw(st.booleans())
    return Facts(
        images=draw(st.one_of(st.integers(1, 100_000), st.sampled_from([499, 500, 4999, 5000, 39_999, 40_000]))),
        side=draw(st.sampled_from([8, 16, 32, 64, 128, 256, 512, 1024])),
        classes=classes,
        per_class=draw(st.integers(0, 5000)) if classes else 0,
        fixed=draw(st.booleans()),
        pickle=pickle,
        trained_D=pickle and draw(st.booleans()),
        pickle_classes=classes if pickle and draw(st.booleans()) else 0,
        gpu=draw(st.sampled_from([0.0, 4.0, 7.995, 8.0, 80.0])),
    )


def options(facts: Facts) -> dict[str, str]:
    pairs = (word.removeprefix("--").split("=", 1) for word in advise.options_of(advise.chosen(facts)))
    return {name: value for name, value in pairs}


@pytest.mark.unit
@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_case_gets_plugins_that_go_together_and_suit_it(facts):
    found = options(facts)
    names = found["plugin"].split(",")
    policy = {"diffaugment": {"policy": found["diffaugment-policy"]}} if "diffaugment-policy" in found else {}
    catalogue().activate(names, policy)
    assert "freezed" not in names or (facts.trained_D and facts.side > 16)
    assert facts.fixed == (found.get("aug") == "noaug")
    assert not (facts.fixed and AUGMENTING & {*names})
    assert ("cond" in found) == bool(facts.pickle_classes if facts.pickle else facts.classes and facts.per_class >= 100)
    assert "batch-gpu" not in found or 0 < facts.gpu < 8
    assert ("kimg" in found) == bool(facts.pickle and facts.gpu)


@pytest.mark.unit
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.data[:40])
def test_every_rule_counts_for_some_case_and_has_its_evidence(rule: Rule):
    low = {name: type(getattr(TYPICAL, name))(span[0]) for name, span in rule.when.items()}
    facts = dataclasses.replace(TYPICAL, **low)
    assert rule in advise.chosen(facts)
    assert rule.evidence and rule.why.endswith(".")
    named = ",".join(re.findall(r"`([a-z][a-z,-]+)[` ]", rule.then)).split(",")
    assert not {*named} - {"", *builtin()}


@pytest.mark.unit
@pytest.mark.parametrize("seen", [one for rule in RULES for one in rule.evidence if isinstance(one, Known)], ids=str)
def test_what_was_seen_here_has_the_figures_of_its_page(seen: Known):
    if seen.source.startswith("docs/"):
        page = (ROOT / seen.source).read_text(encoding="utf-8")
        assert all(number in page for number in re.findall(r"\d+\.\d+", seen.text))
    else:
        assert seen.source or "no figure" in seen.text


def network(side: int, tensors: tuple[str, ...] = ("synthesis.b4.const",), **more: int) -> Network:
    shape = {"img_resolution": side, "img_channels": 3, **more}
    return Network("Generator", (), shape, {name: torch.zeros(1) for name in tensors}, frozenset(tensors))


@pytest.mark.unit
@pytest.mark.parametrize("G", [network(2048), network(32, ("synthesis.input.freqs",)), network(32, img_channels=4)])
def test_a_generator_that_no_rule_is_for_is_named(G, tmp_path, monkeypatch):
    (tmp_path / "x.pkl").touch()
    monkeypatch.setattr(advise.networks, "open_pickle", lambda path: Snapshot(str(path), {"G": G}, {}))
    monkeypatch.setattr(advise.networks, "has_class", lambda network: True)
    with pytest.raises(DataError, match="x.pkl makes images of .* advise is for generators of StyleGAN2"):
        advise._Start.of(str(tmp_path / "x.pkl"))


@pytest.mark.unit
def test_the_function_has_the_options_of_the_command():
    from stylegan_plugins import commands

    assert stylegan_plugins.advise is api.advise
    parameters = api.inspect.signature(api.advise).parameters
    assert parameters.keys() == {parameter.name for parameter in commands.advise.params}


# In a host. ---------------------------------------------------------------------------------------

SPREAD = [  # facts of other machines and sets; pictures and pickle are small ones
    *(Facts(images, 32) for images in (100, 1000, 10_000, 50_000)),
    *(Facts(1000, 128, gpu=4.0), Facts(1000, 32, fixed=True), Facts(1000, 32, classes=3, per_class=200)),
    *(Facts(images, 32, pickle=True, trained_D=True, gpu=gpu) for images, gpu in ((100, 80.0), (1000, 4.0))),
    *(Facts(100, 32, pickle=True, gpu=80.0), Facts(100, 32, pickle=True, trained_D=True, fixed=True)),
]


@pytest.mark.run
@pytest.mark.parametrize("family", [ADA, STYLEGAN3])
def test_the_options_of_every_rule_pass_a_dry_run(family, training_hosts, pickles, labelled_zip, tmp_path):
    more = lambda facts: [f"--resume={pickles[family]}"] if facts.pickle else []
    fixed = [f"--data={labelled_zip}", f"--outdir={tmp_path}", "--dry-run"]
    lines = [[*advise.options_of(advise.chosen(facts)), *more(facts), *fixed] for facts in SPREAD]
    for facts, done in zip(SPREAD, run_many(training_hosts[family], lines), strict=True):
        assert done["code"] == 0, (facts, done["stderr"][-2000:])


@pytest.mark.run
def test_the_printed_command_is_one_to_paste(ada_host, fetched, labelled_zip, gray_zip, tmp_path):
    classes = make_pickle(fetched[ADA], tmp_path / "classes.pkl", c_dim=3)
    for flags, expected in (
        ([f"--data={gray_zip}"], ["Pictures: 40 of 32x32, gray, no classes", "--plugin=diffaugment "]),
        ([f"--data={gray_zip}", "--device=cpu", "--fixed"], ["--plugin=apa --aug=noaug ", " --device=cpu"]),
        (
            [f"--data={labelled_zip}", f"--resume={classes}"],
            ["3 classes of 16 to 16", "3 classes, with a trained D", "--plugin=freezed,diffaugment --cond=1 "],
        ),
    ):
        done = invoke(ada_host, "advise", *flags)
        assert done.returncode == 0, done.stderr
        assert all(part in done.stdout for part in expected), done.stdout
        (command,) = (line for line in done.stdout.splitlines() if "/train.py" in line)
        script, *words = shlex.split(command)[1:]
        assert script == str(ada_host / "train.py")
        (tried,) = run_many(ada_host, [[*words, "--dry-run"]])
        assert tried["code"] == 0, tried["stderr"]


@pytest.mark.host
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--data=nowhere", "--data: nowhere does not exist."),
        ("--data=empty", "there are no pictures in empty"),
        ("--data=text.txt", "--data: text.txt is"),
        ("--data=pictures --resume=text.txt", "text.txt"),
        ("--data=pictures --resume=nothing.pkl", "--resume: nothing.pkl does not exist."),
        ("--data=pictures --resume=empty", "--resume: empty is a folder."),
    ],
)
def test_what_cannot_be_used_is_one_line(given, message, ada_host, color_zip, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no pictures\n")
    words = [word.replace("=pictures", f"={color_zip}") for word in given.split()]
    done = invoke(tmp_path, "advise", f"--host={ada_host}", *words)
    (error,) = (line for line in done.stderr.splitlines() if not re.match(r"W\d+ ", line))  # PyTorch without a GPU
    assert done.returncode == 2 and message in error and not done.stdout


@pytest.mark.host
def test_a_host_that_is_not_patched_is_named(fetched, color_zip, tmp_path):
    done = invoke(tmp_path, "advise", f"--host={fetched[ADA]}", f"--data={color_zip}")
    assert done.returncode == 2 and f"Run: stylegan-plugins patch {fetched[ADA]}" in done.stderr


@pytest.mark.unit
def test_a_name_of_the_hosts_own_is_its_address(tmp_path):
    script = "def set_up(resume):\n    resume_specs = {\n        'faces': 'https://host/faces.pkl',\n    }\n"
    (tmp_path / "train.py").write_text(script)
    assert advise._address(tmp_path, "faces") == "https://host/faces.pkl"
    assert advise._address(tmp_path, "my.pkl") == "my.pkl"
