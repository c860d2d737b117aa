"""Mistakes of users: each ends in one line that names it, with exit code 2, and leaves nothing behind.

All command lines of a host run in one process (drivers/run_many.py), a few of them also as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner
from support.hosts import ADA, FAMILIES, STYLEGAN3, copy_host, install_plugin
from support.images import color_crops, write_zip
from support.scripts import UNREACHABLE, run_many, run_script

from stylegan_plugins.cli import cli
from stylegan_plugins.errors import DataError
from stylegan_plugins.files import datasets

REQUIRED = {ADA: [], STYLEGAN3: ["--cfg=stylegan2", "--gpus=1", "--batch=8", "--gamma=1"]}

PLUGINS = {  # third-party plug-ins with something odd about them
    "rival": 'conflicts = ("diffaugment",)',
    "needy": 'requires = ("rival",)',
    "unfinished": "from stylegan_plugins import hookimpl, nothing_of_that_name",
    "garbled": "def options(:",
    "crashing": "1 / 0",
    "misspelt": "from stylegan_plugins import hookimpl\n@hookimpl\ndef confugire(): pass",
    "greedy": "from stylegan_plugins import hookimpl\n@hookimpl\ndef setup(session, colour): pass",
    "optionless": "OPTIONS = 3",
    "measuring": "from stylegan_plugins import hookimpl\n@hookimpl\ndef register_metrics(): return {'length': len}",
    "untyped": (
        "from dataclasses import dataclass\nfrom stylegan_plugins import hookimpl\n"
        "@dataclass(frozen=True)\nclass Options:\n    sizes: list = ()\nOPTIONS = Options"
    ),
}

# By name: arguments, and what the message must contain. {bad} is the folder of `bad_data`, {good} a usable data set,
# {out} a folder of the case's own. A later --data or --outdir takes the place of the good ones.
BOTH = {
    "unknown plug-in": (
        ["--plugin=difaugment"],
        "no plug-in 'difaugment'. Did you mean diffaugment? Installed: advaug",
    ),
    "two plug-ins that conflict": (["--plugin=diffaugment,rival"], "rival and diffaugment cannot be active together"),
    "option of a plug-in that is not active": (["--diffaugment-cutout=0.2"], "Add --plugin=diffaugment"),
    "option that is no number": (["--plugin=diffaugment", "--diffaugment-cutout=nan"], "--diffaugment-cutout"),
    "truncated zip": (["--data={bad}/truncated.zip"], "truncated.zip cannot be read as a zip"),
    "outdir below a file": (["--outdir={bad}/notes.txt/deeper/still"], "notes.txt is a file"),
    "GPU on a machine without": (["--device=cuda"], "--device=cuda: "),
    "batch-gpu that does not divide": (["--batch=8", "--batch-gpu=3"], "--batch-gpu=3"),
    "batch-gpu that D cannot group": (["--batch=12", "--batch-gpu=6"], "--batch-gpu=6: a GPU gets 6 images"),
    "unknown metric": (["--metrics=fid51k"], "--metrics"),
    "detector that cannot be had": (["--metrics=fid50k_full"], "--metrics=none"),
    "fewer than no workers": (["--workers=-1"], "--workers"),
    "unknown adversarial loss": (["--gan-loss=unknown"], "--gan-loss"),
}
ADA_ONLY = {
    "plug-in without what it requires": (["--plugin=needy"], "needy needs rival: give --plugin=rival,needy"),
    "plug-in whose imports fail": (["--plugin=unfinished"], "ImportError: cannot import name 'nothing_of_that_name'"),
    "plug-in that is no Python": (["--plugin=garbled"], "'garbled' is installed but cannot be imported: SyntaxError"),
    "plug-in that crashes on import": (["--plugin=crashing"], "ZeroDivisionError: division by zero"),
    "plug-in with a misspelt hook": (["--plugin=misspelt"], "'misspelt' has a faulty hook: unknown hook 'confugire'"),
    "plug-in with an unknown argument": (
        ["--plugin=greedy"],
        "'greedy' for hook 'setup' hookimpl definition: setup(sess",
    ),
    "plug-in with a list for an option": (["--plugin=untyped"], "option 'sizes' of 'untyped' has no help"),
    "option that is infinite": (["--plugin=diffaugment", "--diffaugment-brightness=inf"], "not a finite number"),
    "option below its range": (["--plugin=diffaugment", "--diffaugment-contrast=-1"], "--diffaugment-contrast"),
    "option above its range": (["--plugin=diffaugment", "--diffaugment-translation=1.5"], "0<=x<=1"),
    "option that is a word": (["--plugin=diffaugment", "--diffaugment-cutout=half"], "'half' is not a valid float"),
    "option that is none of the choices": (["--plugin=diffaugment", "--diffaugment-where=g"], "'all', 'd', 'reals'"),
    "unknown transformation": (
        ["--plugin=diffaugment", "--diffaugment-policy=colour"],
        "--diffaugment-policy: 'colour'",
    ),
    "transformation twice": (["--plugin=diffaugment", "--diffaugment-policy=color,color"], "different transformations"),
    "unknown option": (["--diffaugment-colour=1"], "No such option"),
    "data that does not exist": (["--data={bad}/nowhere"], "nowhere does not exist"),
    "data that is neither folder nor zip": (["--data={bad}/notes.txt"], "neither a folder nor a zip"),
    "text file renamed to .zip": (["--data={bad}/text.zip"], "is neither a folder nor a zip"),
    "empty zip": (["--data={bad}/empty.zip"], "there are no pictures in"),
    "folder without images": (["--data={bad}/no-images"], "no-images, but files that end in .txt"),
    "text file renamed to .png": (["--data={bad}/text-as-png"], "can be read; the first: poem.png"),
    "no image inside a zip": (["--data={bad}/text-inside.zip"], "can be read; the first: 00000/poem.png"),
    "truncated PNG": (["--data={bad}/cut-png"], "the first: cut.png"),
    "truncated JPEG": (["--data={bad}/cut-jpeg"], "the first: cut.jpg"),
    "labels that are no JSON": (["--data={bad}/labels-broken", "--cond=1"], "dataset.json in"),
    "labels under no key": (["--data={bad}/labels-missing", "--cond=1"], "dataset.json in"),
    "labels of other images": (["--data={bad}/labels-of-others", "--cond=1"], "has no label for image0.png (1 of 1"),
    "classes without a picture": (["--data={bad}/labels-from-1", "--cond=1"], "classes, none in 0"),
    "empty classes of no classes": (["--allow-empty-classes"], "--allow-empty-classes: classes are not used"),
    "crop of a data set": (["--crop=pad"], "--crop: "),
    "conditional training without labels": (["--cond=1"], "--cond"),
    "outdir that is a file": (["--outdir={bad}/notes.txt"], "notes.txt is a file"),
    "unknown device": (["--device=tpu"], "--device"),
    "batch that D cannot group": (["--batch=6"], "--batch=6: a GPU gets 6 images at a time, and D takes groups of 4"),
    "batch of a GPU that D cannot group": (["--cfg=cifar", "--gpus=2", "--batch=96"], "groups of 32"),
    "no capacity": (["--cbase=0"], "--cbase"),
    "no feature maps": (["--cmax=0"], "--cmax"),
    "tick of no length": (["--tick=0"], "--tick"),
    "three GPUs": (["--gpus=3"], "--gpus"),
}
CASES = {ADA: BOTH | ADA_ONLY, STYLEGAN3: BOTH}
EACH = [pytest.param(family, name, id=f"{family}: {name}") for family in FAMILIES for name in CASES[family]]


@pytest.fixture(scope="module")
def bad_data(tmp_path_factory):
    """A folder of data sets that cannot be used."""
    top = tmp_path_factory.mktemp("bad")
    color = color_crops(2)[0]

    def folder(name: str, **files: bytes | str) -> Path:
        (top / name).mkdir()
        for file, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            (top / name / file.replace("__", ".")).write_bytes(content)
        return top / name

    def labelled(name: str, dataset: object) -> None:
        text = dataset if isinstance(dataset, str) else json.dumps(dataset)
        PIL.Image.fromarray(color).save(folder(name, dataset__json=text) / "image0.png")

    good = write_zip(top / "good.zip", color_crops(16)).read_bytes()
    (top / "truncated.zip").write_bytes(good[: len(good) // 2])
    (top / "notes.txt").write_text("not a data set")
    (top / "text.zip").write_text("not a zip")
    zipfile.ZipFile(top / "empty.zip", "w").close()
    with zipfile.ZipFile(top / "text-inside.zip", "w") as archive:
        archive.writestr("00000/poem.png", "The woods are lovely, dark and deep")
    folder("no-images", readme__txt="nothing here")
    folder("text-as-png", poem__png="But I have promises to keep")
    for name, suffix in (("png", "png"), ("jpeg", "jpg")):
        whole = top / f"whole.{suffix}"
        PIL.Image.fromarray(color).save(whole)
        folder(f"cut-{name}", **{f"cut__{suffix}": whole.read_bytes()[:-300]})
    labelled("labels-broken", '{"labels": [["image0.png", 1')
    labelled("labels-missing", {"label": []})
    labelled("labels-of-others", {"labels": [["image1.png", 1]]})
    labelled("labels-from-1", {"labels": [["image0.png", 1]]})
    return top


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The PYTHONPATH of all PLUGINS."""
    top = tmp_path_factory.mktemp("plugins")
    for name, source in PLUGINS.items():
        install_plugin(top, name, source)
    return str(top)


def arguments(family: str, args: list[str], out: Path, good: Path, bad: Path) -> list[str]:
    given = [f"--outdir={out}", f"--data={good}", *REQUIRED[family]]
    return given + [arg.format(bad=bad) for arg in args]


@pytest.fixture(scope="module")
def answers(patched, bad_data, plugins, color_zip, tmp_path_factory):
    """Return the result of each case and its output folder, by family and name."""
    found = {}
    for family in FAMILIES:
        top = tmp_path_factory.mktemp("out")
        outs = {name: top / str(index) for index, name in enumerate(CASES[family])}
        runs = [arguments(family, args, outs[name], color_zip, bad_data) for name, (args, _) in CASES[family].items()]
        before = tree(patched[family]), tree(bad_data)
        results = run_many(
            patched[family], runs, PYTHONPATH=plugins, DNNLIB_CACHE_DIR=str(top / "cache"), **UNREACHABLE
        )
        assert (tree(patched[family]), tree(bad_data)) == before, "a refused run wrote beside its output folder"
        found |= {(family, name): (result, outs[name]) for name, result in zip(outs, results, strict=True)}
    return found


def said(stderr: str) -> list[str]:
    """Return lines of standard error without torch's own warning about a compiler without a GPU."""
    return [line for line in stderr.splitlines() if line.strip() and "No CUDA runtime is found" not in line]


def tree(top: Path) -> set[Path]:
    return set(top.rglob("*"))


@pytest.mark.host
@pytest.mark.parametrize(("family", "name"), EACH)
def test_bad_input_ends_with_one_line_and_code_2_and_leaves_nothing(family, name, answers):
    result, out = answers[family, name]
    message = CASES[family][name][1]
    *usage, error = said(result["stderr"])
    if error.startswith("Error:"):
        assert all(line.startswith(("Usage: ", "Try ")) for line in usage), result["stderr"]
    else:  # NVIDIA's own list of metrics takes several lines
        assert name == "unknown metric", result["stderr"]
    assert message in result["stderr"], result["stderr"]
    assert result["code"] == 2
    assert not out.exists()
    assert result["seconds"] < 15


@pytest.mark.host
@pytest.mark.parametrize("name", [name for name, (args, _) in BOTH.items() if args[0].startswith("--plugin")])
def test_what_is_wrong_with_a_plugin_takes_no_usage_to_say(name, answers):
    result, _ = answers[ADA, name]
    if "no number" not in name:  # click's own
        assert result["stderr"].count("\n") == 1


@pytest.mark.run
@pytest.mark.parametrize("name", ["two plug-ins that conflict", "truncated zip"])
def test_a_script_started_by_a_user_answers_as_in_these_tests(
    name, answers, ada_host, color_zip, bad_data, plugins, tmp_path
):
    args = arguments(ADA, CASES[ADA][name][0], tmp_path / "out", color_zip, bad_data)
    done = run_script(ada_host, "train.py", *args, check=False, fresh=True, PYTHONPATH=plugins)
    assert done.returncode == 2
    assert said(done.stderr) == said(answers[ADA, name][0]["stderr"])


@pytest.mark.host
def test_faulty_plugins_spoil_neither_help_nor_a_run_without_them(ada_host, plugins, color_zip, tmp_path):
    plain = ["--dry-run", f"--outdir={tmp_path}", f"--data={color_zip}"]
    shown, run, again = run_many(ada_host, [["--help"], plain, [*plain, "--plugin=rival"]], PYTHONPATH=plugins)
    assert (shown["code"], run["code"], again["code"]) == (0, 0, 0)
    assert "--diffaugment-cutout" in shown["stdout"]
    assert "optionless" not in shown["stdout"]
    assert "-rival" in again["stdout"]


@pytest.mark.host
def test_list_says_what_is_wrong_with_each_faulty_plugin(plugins):
    command = [sys.executable, "-c", "from stylegan_plugins.cli import main; main()", "list"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": plugins}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said = {name: lines[lines.index(name) + 1] for name in PLUGINS}
    sound = {name for name, line in said.items() if "cannot be used" not in line}
    assert sound == {"rival", "needy"}
    for name, reason in {
        "unfinished": "ImportError",
        "garbled": "SyntaxError",
        "crashing": "ZeroDivisionError",
        "misspelt": "unknown hook 'confugire'",
        "greedy": "{'colour'}",
        "optionless": "OPTIONS of 'optionless' is 3",
        "untyped": "'sizes'",
        "measuring": "not Metrics by name",
    }.items():
        assert reason in said[name]


@pytest.mark.unit
def test_an_output_folder_without_permission_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # tests may run as root
    with pytest.raises(DataError, match=f"--outdir: {tmp_path} is not writable"):
        datasets.check_output(tmp_path / "runs/of/today")
    assert not list(tmp_path.iterdir())


COMMANDS = {
    "plug-in that is not installed": (["info", "augslef"], "there is no plug-in 'augslef'"),
    "host that does not exist": (["patch", "{top}/nowhere"], "nowhere is not a directory"),
    "folder that is no host": (["patch", "{top}/empty"], "it lacks train.py"),
    "preview in a folder that is no host": (["patch", "--dry-run", "{top}/empty"], "it lacks train.py"),
    "nothing to undo": (["unpatch", "{top}/empty"], "it lacks train.py"),
    "status of a file": (["status", "{top}/file"], "file is not a directory"),
    "doctor of no host": (["doctor", "{top}/empty"], "it lacks train.py"),
    "host without its training loop's anchors": (["patch", "{top}/anchorless"], "training/training_loop.py"),
    "host that is no Python": (["patch", "{top}/garbled"], "train.py"),
    "fetching over a folder with files": (["host", "fetch", "{top}/full"], "full"),
    "unknown family": (["host", "fetch", "{top}/new", "--family=stylegan4"], "stylegan4"),
    "unknown source": (["host", "fetch", "{top}/new", "--source=ftp"], "ftp"),
    "unknown command": (["pacth", "{top}/empty"], "pacth"),
    "no directory": (["patch"], "DIRECTORY"),
}


@pytest.mark.host
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_bad_input_ends_with_one_line_and_code_2_and_changes_nothing(name, fetched, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("years of work")
    args, message = COMMANDS[name]
    if "anchorless" in args[-1]:
        copy_host(fetched[ADA], tmp_path / "anchorless")
        (tmp_path / "anchorless/training/training_loop.py").write_text("def training_loop(): pass\n")
    if "garbled" in args[-1]:
        copy_host(fetched[ADA], tmp_path / "garbled")
        (tmp_path / "garbled/train.py").write_text("def main(:\n")
    before = {path: path.read_bytes() for path in tree(tmp_path) if path.is_file()}
    result = CliRunner().invoke(cli, [arg.format(top=tmp_path) for arg in args])
    *usage, error = said(result.stderr)
    assert error.startswith("Error:"), result.stderr
    assert all(line.startswith(("Usage: ", "Try ")) for line in usage), result.stderr
    assert message in error
    assert result.exit_code == 2
    assert {path: path.read_bytes() for path in tree(tmp_path) if path.is_file()} == before
