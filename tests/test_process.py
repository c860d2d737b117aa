"""Objects that exist once in a process, and the records and locks of a run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import pytest
from support.hosts import ADA
from support.runs import TINY, last_run, options, run_to_its_end
from support.scripts import run_script

COUNTING = """
import importlib.metadata, json, runpy, sys
import pluggy

counts = {"managers": 0, "scans": 0}
scan, make = importlib.metadata.entry_points, pluggy.PluginManager.__init__

def entry_points(**how):
    counts["scans"] += how.get("group") == "stylegan_plugins"
    return scan(**how)

def __init__(self, *args, **kwargs):
    counts["managers"] += 1
    make(self, *args, **kwargs)

importlib.metadata.entry_points, pluggy.PluginManager.__init__ = entry_points, __init__
sys.path.insert(0, ".")
sys.argv[0] = "train.py"
try:
    runpy.run_path("train.py", run_name="__main__")
finally:
    print("\\ncounts", json.dumps(counts), file=sys.__stderr__)
"""


@pytest.mark.run
def test_a_run_has_one_plugin_manager_one_scan_of_entry_points_and_no_null_among_its_options(
    ada_host, small_zip, tmp_path
):
    flags = ["--plugin=augself,vision-aided,contrad", "--vision-aided-models=efficientnet_lite0", "--batch=64"]
    flags += ["--vision-aided-warmup-kimg=0.99", "--augself-preset=plus"]
    done = run_script(ada_host, "-c", COUNTING, f"--data={small_zip}", f"--outdir={tmp_path}", *TINY[ADA], *flags)
    counts = json.loads(done.stderr.split("counts ")[1].splitlines()[0])
    assert counts == {"managers": 1, "scans": 1}
    recorded = json.loads((last_run(tmp_path) / "training_options.json").read_text())["plugins"]
    assert recorded["active"] == ["diffaugment", "augself", "vision-aided", "contrad"]
    values = [(plugin, name) for plugin, found in recorded["options"].items() for name in found if found[name] is None]
    assert values == [] and recorded["presets"] == {"augself": "plus"}
    assert recorded["options"]["augself"]["predict"] == "color,translation,cutout"
    assert recorded["options"]["contrad"]["augment"] == "simclr"
    assert recorded["options"]["vision-aided"]["target"] == 0.8


@pytest.mark.host
def test_effective_options_of_every_builtin_plugin_hold_no_null(ada_host, small_zip, tmp_path):
    for flags in (["--plugin=diffaugment,contrad,diagnostics"], ["--plugin=vision-aided", "--vision-aided-auto=1"]):
        more = ["--vision-aided-models=efficientnet_lite0", "--vision-aided-warmup-kimg=0"] * ("auto" in flags[-1])
        recorded = options(ada_host, ADA, small_zip, tmp_path, *flags, *more)["plugins"]["options"]
        assert all(value is not None for found in recorded.values() for value in found.values()), recorded


@pytest.mark.run
def test_a_second_resume_is_refused_from_the_first_look_to_the_end_of_the_run(ada_host, small_zip, tmp_path):
    """The run is locked before its state is read, so that two resumes can never cut each other's logs."""
    args = options(ada_host, ADA, small_zip, tmp_path, "--plugin=diffaugment", "--device=cpu")
    args |= {"total_kimg": 8 * args["batch_size"] / 1000, "kimg_per_tick": 9, "state_minutes": 10.0}
    run_to_its_end(ada_host, args, tmp_path / "run")
    looking = (
        "import sys, time; from pathlib import Path; from stylegan_plugins.files import states\n"
        "from stylegan_plugins.run import resume\n"
        "def read(path, report):\n    print('looking', flush=True)\n    time.sleep(60)\n"
        "states.newest_state = read\n"
        "import click, runpy; sys.path.insert(0, '.'); sys.argv[0] = 'train.py'\n"
        "runpy.run_path('train.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", looking, f"--resume-run={tmp_path / 'run'}", "--kimg=1"]
    first = subprocess.Popen(command, cwd=ada_host, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = ""
        while "looking" not in line:
            line = first.stdout.readline()
            assert line or first.poll() is None, first.stderr.read()
        before = (tmp_path / "run" / "stats.jsonl").read_bytes()
        done = run_script(ada_host, "train.py", f"--resume-run={tmp_path / 'run'}", "--kimg=1", check=False)
        assert done.returncode == 2 and "still going on, in another process" in done.stderr
        assert (tmp_path / "run" / "stats.jsonl").read_bytes() == before
    finally:
        first.kill()
        first.communicate()


@pytest.mark.run
def test_list_takes_less_than_half_the_time_of_importing_torch():
    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    listing = "from stylegan_plugins.cli import cli; cli(['list'], standalone_mode=False)"
    ratios = [seconds(listing) / seconds("import torch") for _ in range(3)]
    assert statistics.median(ratios) < 0.5, ratios
