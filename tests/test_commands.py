"""Every command on the README and on the pages of docs/start is parsed, tried with `--dry-run`, or named below with its
test or with the reason why it cannot run here. A command is recognised by its program, which is
ours or begins an entry of ELSEWHERE."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from support.scripts import run_many

from stylegan_plugins.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/start").glob("*.md"))]
ELSEWHERE = {  # beginning of a command: its test, or the reason
    "git clone": "the repository has no address here",
    "cd ": "the shell's",
    "mkdir ": "the shell's",
    "source ": "the shell's",
    "pip install": "tests/test_packaging.py installs the wheel; the extras are compared below",
    "./run.sh train": "its options are tried below",
    "./run.sh": "downloads; tests/test_packaging.py tries the options of both demos",
    "docker": "no Docker here; tests/test_places.py reads the Dockerfile",
    "sbatch": "tests/test_places.py runs the script as Slurm does",
    "torchrun": "tests/test_torchrun.py",
    "python generate.py": "tests/test_scripts.py",
    "python train.py --resume-run=": "tests/test_resume.py",
}
PROGRAMS = {beginning.split()[0] for beginning in ELSEWHERE} | {"stylegan-plugins", "python"}
TRAIN = re.compile(r"(?:train\.py|train\.sbatch|^\./run\.sh train) (--.*)")


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the commands of a page, and whether each is a block: code that is indented, or stands in a line."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:(?<=\n\n)|\A)((?: {4}.*\n|\n)+)", text)
    lines = [(line, True) for block in blocks for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
    lines += [(code, False) for code in re.findall(r"`([^`]+)`", text)]
    for line, is_block in lines:
        for part in re.split(r"\s#\s.*|\s+&&\s+", line):
            command = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", " ".join(part.split()))
            if command.split(" ")[0] in PROGRAMS and (is_block or " " in command):
                yield command, is_block


FOUND = {command: block for page in PAGES for command, block in sorted(commands(page.read_text(encoding="utf-8")))}
OURS = [command for command in FOUND if command.startswith("stylegan-plugins ")]
TRAININGS = [match[1] for command in FOUND if (match := TRAIN.search(command)) and "--resume-run=" not in match[1][:15]]
TRIED = {f"python train.py {options}" for options in TRAININGS}
REST = [command for command in FOUND if command not in OURS and command not in TRIED]


def complete(command: str) -> list[str]:
    """Return the words of a command without the marks of optional parts, and with a value for each `...`."""
    return shlex.split(re.sub(r"=\.\.\.", "=1", re.sub(r"[\[\]]", "", command)))


@pytest.mark.unit
@pytest.mark.parametrize("command", OURS)
def test_a_command_of_the_package_takes_its_arguments(command: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    group, words = cli, complete(command)[1:]
    for name in ("RUN", "FOLDER", "FILE", "runs/00000-..."):
        (tmp_path / name).mkdir(parents=True)
    while isinstance(group, click.Group):
        context = click.Context(group)
        name, group = words[0], group.get_command(context, words.pop(0))
        assert group is not None, f"there is no command {name}"
    try:
        group.make_context(name, words)
    except click.MissingParameter:
        assert not FOUND[command], "a command in a line of text may lack what it needs, one in a block may not"


@pytest.mark.host
def test_train_py_takes_the_options_of_each_page(ada_host, small_zip, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["new", "mine"]).exit_code == 0
    places = {"./mine.py": f"{tmp_path}/mine.py", "PATH/": f"{ROOT}/", "=examples/": f"={ROOT}/examples/"}
    runs = []
    for options in TRAININGS:
        for place, path in places.items():
            options = options.replace(place, path)
        given = [word for word in complete(options) if not word.startswith(("--data", "--outdir"))]
        runs.append([*given, f"--data={small_zip}", f"--outdir={tmp_path / 'runs'}", "--device=cpu", "--dry-run"])
    assert len(runs) > 5
    for done, options in zip(run_many(ada_host, runs), TRAININGS, strict=True):
        assert done["code"] == 0, f"{options}\n{done['stderr'][-500:]}"


@pytest.mark.unit
@pytest.mark.parametrize("command", REST)
def test_every_other_command_has_a_test_or_a_reason(command: str) -> None:
    how = next((how for beginning, how in ELSEWHERE.items() if f"{command} ".startswith(beginning)), None)
    assert how, f"no test runs {command!r}: add one, or a reason to ELSEWHERE"
    assert all((ROOT / file).is_file() for file in re.findall(r"tests/\w+\.py", how))


@pytest.mark.unit
def test_every_extra_that_is_installed_exists() -> None:
    extras = set(re.findall(r'^ {8}"(\w+)": \[', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        extra for command in FOUND for extras in re.findall(r"\[([\w,]+)\]'", command) for extra in extras.split(",")
    }
    assert named and named <= extras


@pytest.mark.unit
def test_commands_are_found_in_blocks_and_in_lines() -> None:
    text = (
        "Give `pip install x`.\n\n    git clone A && cd B   # more\n    A=1 python \\\n        c.py\n\n`python` here.\n"
    )
    assert [command for command, _ in commands(text)] == ["git clone A", "cd B", "python c.py", "pip install x"]
