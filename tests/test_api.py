"""The package from Python: `load`, `train`, `evaluate`, `compare`, their page and their notebook."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import click
import nbclient
import nbformat
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import stylegan_plugins
from stylegan_plugins import api, commands
from stylegan_plugins.analysis import loading, sample
from stylegan_plugins.errors import OptionError, RunError

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/reference/notebook.ipynb"


@pytest.mark.unit
def test_importing_the_package_imports_no_torch_and_the_api_is_there():
    code = "import sys, stylegan_plugins; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert stylegan_plugins.evaluate is api.evaluate and stylegan_plugins.compare is api.compare


@pytest.mark.unit
@pytest.mark.parametrize("name", ["evaluate", "compare"])
def test_functions_have_the_options_and_defaults_of_their_commands(name):
    parameters = inspect.signature(getattr(api, name)).parameters
    command = getattr(commands, name)
    options = {option for option in command.params if isinstance(option, click.Option)}
    context = click.Context(command)
    for option in options:
        flag = max(option.opts, key=len).removeprefix("--").replace("-", "_")
        parameter = parameters[flag]
        required = parameter.default is inspect.Parameter.empty
        assert required == option.required, flag
        default = option.get_default(context)
        assert required or parameter.default == (default if isinstance(default, str | int | float) else None), flag
    assert len(parameters) == len(options) + 1  # and the run, or what goes to train.py


@pytest.mark.unit
def test_the_default_of_truncation_is_one_value():
    for command in (commands.sample, commands.interpolate, commands.sheet):
        (option,) = (option for option in command.params if option.name == "trunc")
        assert option.get_default(click.Context(command)) == sample.TRUNCATION
    for function in ("__call__", "mapping", "latents", "sample", "interpolate"):
        parameters = inspect.signature(getattr(loading.LoadedGenerator, function)).parameters
        assert parameters["truncation"].default == sample.TRUNCATION


@pytest.mark.unit
def test_options_are_written_as_on_a_command_line():
    flags = [click.Option(["--dry-run"], is_flag=True), click.Option(["--report/--no-report"], is_flag=True)]
    options = dict(data="a b", kimg=3, mirror=True, metrics=["fid", "kid"], seed=None, dry_run=True, report=False)
    expected = ["--data=a b", "--kimg=3", "--mirror=1", "--metrics=fid,kid", "--dry-run", "--no-report"]
    assert api.as_arguments(options, flags) == expected
    assert api.as_arguments(dict(dry_run=False, report=True), flags) == ["--report"]


@pytest.mark.unit
@settings(deadline=None, max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict(
            metrics=st.text(max_size=5) | st.lists(st.sampled_from(["fid", "kid"])),
            samples=st.integers() | st.text(max_size=3) | st.floats() | st.booleans(),
            max_images=st.none() | st.integers(-1, 5),
            all=st.booleans(),
            device=st.sampled_from(["auto", "cpu", "tpu"]),
            nosuch=st.integers(),
        ),
    ),
    st.text(st.characters(), max_size=6),
)
@example({}, "\0")
@example({"metrics": "\ud800"}, "run")
def test_any_options_are_read_or_refused_in_one_line(options, run):
    try:
        read = api._read(commands.evaluate, [run], options)
    except OptionError as error:
        assert "evaluate(): " in error.message
    else:
        assert str(read["run_or_pkl"]) == str(Path(run)) and read["every"] == options.get("all", False)


@pytest.mark.unit
@settings(deadline=None, max_examples=40)
@given(st.integers() | st.lists(st.integers(), max_size=3) | st.text(alphabet="0123456789-, x", max_size=6))
def test_any_seeds_are_read_or_refused_in_one_line(seeds):
    try:
        numbers = loading.numbers_of(seeds)
    except OptionError:
        return
    assert numbers and all(0 <= number < 1 << 32 for number in numbers)


@pytest.mark.host
def test_a_null_character_is_refused_before_train_py_starts(ada_host):
    with pytest.raises(OptionError, match=r"^train\(\): '--data=a\\x00' has a character"):
        api.train("a\0", host=ada_host)


@pytest.mark.host
def test_an_error_of_train_py_is_raised_with_its_own_line(ada_host, tmp_path, capsys):
    with pytest.raises(RunError, match=r"^train.py: --data: .*nothing.zip"):
        stylegan_plugins.train(tmp_path / "nothing.zip", tmp_path / "runs", host=ada_host)
    assert "Error: --data: " in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.host
def test_a_run_is_interrupted_as_keyboard_interrupt(monkeypatch, ada_host):
    def ended(*arguments, **how):
        raise SystemExit(130)

    monkeypatch.setattr(api.programs, "run", ended)
    with pytest.raises(KeyboardInterrupt):
        stylegan_plugins.train(host=ada_host)


@pytest.mark.unit
def test_compare_returns_what_the_command_writes(monkeypatch, tmp_path):
    seen = {}

    def compared(outdir, **settings):
        seen.update(settings)
        (outdir / "compare.json").write_text('{"metric": "kid"}')
        return ""

    monkeypatch.setattr(commands, "compared", compared)
    options = dict(plugins="none,diffaugment", data="x.zip", kimg=2, outdir=tmp_path, metric="kid")
    assert api.compare(dict(batch=8, mirror=True), **options) == {"metric": "kid"}
    assert seen["arguments"] == ("--batch=8", "--mirror=1") and seen["kimg"] == 2 and seen["seeds"] is None
    monkeypatch.undo()
    with pytest.raises(OptionError, match="^compare: give --plugins or --row, --data and --kimg; or --recipe=NAME"):
        api.compare(plugins="none", data="x.zip", outdir=tmp_path)


@pytest.mark.run
def test_the_notebook_runs(ada_host, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_HOST", str(ada_host))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "walk.gif").is_file()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [set(output.data) for output in outputs if "data" in output]
    assert any("image/png" in kinds for kinds in shown)
    assert any("kid_efficientnet_lite0" in output.data.get("text/plain", "") for output in outputs if "data" in output)


@pytest.mark.unit
def test_the_notebook_stores_no_outputs_and_no_folder_of_a_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    assert not any(f"/{top}/" in cell.source for cell in notebook.cells for top in ("home", "work", "tmp", "root"))
