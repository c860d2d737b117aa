"""The example package: installed by pip as a user would, tested by its own tests, trained on a patched host."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.hosts import ADA
from support.runs import TINY, last_run
from support.scripts import environment, run_script

from stylegan_plugins.files.pickles import read_pickle

EXAMPLES = Path(__file__).parents[1] / "examples"
PACKAGE = EXAMPLES / "stylegan-plugins-blur"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the example package is installed in."""
    top = tmp_path_factory.mktemp("example")
    source = shutil.copytree(PACKAGE, top / "source")  # building writes beside the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", top / "installed", source], check=True, timeout=120)
    return top / "installed"


def run_its_tests(installed: Path, cwd: Path, **env: str) -> str:
    """Run the tests of the package, and return what pytest printed last."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", PACKAGE / "tests"]
    env = {"STYLEGAN_HOST": "", **env, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=cwd, env=environment(**env), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.host
def test_the_installed_package_passes_its_own_tests(installed, fetched, tmp_path):
    assert "skipped" not in run_its_tests(installed, tmp_path, STYLEGAN_HOST=str(fetched[ADA]))


@pytest.mark.host
def test_tests_of_the_package_that_need_a_host_are_skipped_without_one(installed, tmp_path):
    assert "3 skipped" in run_its_tests(installed, tmp_path)


@pytest.mark.run
def test_the_installed_package_trains_with_a_builtin_plugin_and_the_other_examples(
    installed, ada_host, small_zip, tmp_path
):
    """16 iterations of 64 images: options, statistics and the calls of every hook are where they should be."""
    names = ["blur", "diffaugment", "every-hook", "speckle"]
    files = [str(EXAMPLES / "every_hook.py"), str(EXAMPLES / "speckle.py")]
    args = [
        f"--plugin={','.join(['blur', 'diffaugment', *files])}",
        "--blur-sigma=1.5",
        "--every-hook-labels=true",
        "--metrics=centers_efficientnet_lite0",
        "--metric-samples=16",
        f"--data={small_zip}",
        f"--outdir={tmp_path / 'runs'}",
    ]
    run_script(ada_host, "train.py", *args, *TINY[ADA], "--batch=64", PYTHONPATH=str(installed))

    run = last_run(tmp_path / "runs")
    assert run.name.endswith("-blur-diffaugment-every-hook-speckle")
    saved = json.loads((run / "training_options.json").read_text())
    assert saved["plugins"]["active"] == names
    assert [file["path"] for file in saved["plugins"]["files"].values()] == files
    assert saved["plugins"]["options"]["blur"] == {"sigma": 1.5, "weight": 0.1}
    ticks = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    for name in ("Loss/D/blur", "Loss/D/every-hook"):
        assert all(tick[name]["mean"] > 0 for tick in ticks)
        # Generated and real images of 16 iterations.
        assert sum(tick[name]["num"] for tick in ticks) == 2 * 64 * 16
    notes = (run / "every-hook.txt").read_text().splitlines()
    assert notes.count("step") == 16
    assert [note for note in notes if note.startswith("batch")][-1] == "batch 16: 1024 images"
    assert any(note.startswith("tick") for note in notes)
    assert any(note.startswith("snapshot network-snapshot-") for note in notes)
    assert json.loads((run / "best.json").read_text())["centers_efficientnet_lite0"]["of"]["samples"] == 16
    # Brightness is the label, and what samples are drawn by.
    assert read_pickle(max(run.glob("*.pkl"))).network("G_ema").init_kwargs["c_dim"] == 1
    command = "import sys; from stylegan_plugins.cli import main; sys.argv[0] = 'stylegan-plugins'; main()"
    sample = ["sample", str(run), "--seeds=0-2", f"--outdir={tmp_path / 'samples'}"]
    run_script(ada_host, "-c", command, *sample, PYTHONPATH=str(installed))
    assert len(list((tmp_path / "samples").glob("seed*.png"))) == 3
