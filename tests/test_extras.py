"""Without the packages of the extras: training and what needs none of them works, and every command that needs one says
in one line which extra brings it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.hosts import ADA
from support.pickles import make_pickle
from support.runs import TINY, last_run
from support.scripts import run_script

pytestmark = pytest.mark.run

NOT_FOR_USERS = ("docs", "test")
WITHOUT = """
import sys
hidden = set(sys.argv.pop(1).split(","))

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Finder, sys.meta_path)
if sys.argv[1] == "train.py":
    import runpy
    del sys.argv[0]
    runpy.run_path("train.py", run_name="__main__")
else:
    from stylegan_plugins.cli import main
    sys.argv[0] = "stylegan-plugins"
    main()
"""


def modules_of_extras() -> dict[str, set[str]]:
    """Return the top-level modules that each extra brings."""
    modules: dict[str, set[str]] = {}
    for name, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(package.lower().replace("_", "-"), set()).add(name)
    found: dict[str, set[str]] = {}
    for line in importlib.metadata.requires("stylegan-plugins") or []:
        if extra := re.search(r"extra == ['\"](.+?)['\"]", line):
            package = re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
            found.setdefault(extra[1], set()).update(modules.get(package, ()))
    return {extra: names for extra, names in found.items() if extra not in NOT_FOR_USERS}


EXTRAS = modules_of_extras()


def without(extras: Iterable[str], host: Path, *args: str) -> subprocess.CompletedProcess:
    """Run a command, or train.py, where some extras are not installed."""
    hidden = set().union(*map(EXTRAS.get, extras))
    return run_script(host, "-c", WITHOUT, ",".join(sorted(hidden)), *args, check=False, fresh=True)


@pytest.fixture(scope="module")
def run(ada_host, tmp_path_factory):
    """A run with a snapshot and its record."""
    top = tmp_path_factory.mktemp("run")
    make_pickle(ada_host, top / "network-snapshot-000012.pkl", img_resolution=16)
    record = {"training_set_kwargs": {"path": str(top / "x.zip")}, "plugins": {"active": [], "options": {}}}
    (top / "training_options.json").write_text(json.dumps(record))
    return top


NEEDS = {
    "analysis": ["select RUN --data=DATA", "probe RUN --data=DATA --task=omega"],
    "cluster": [
        "compare --plugins=none --data=DATA --kimg=1 --executor=local --metric=kid "
        "--features=efficientnet_lite0 --outdir=OUT"
    ],
    "demo": ["demo-data OUT --kind=photographs"],
    "explore": ["explore RUN"],
    "metrics": ["evaluate RUN --data=DATA --metrics=fid"],
    "report": ["report RUN"],
    "share": ["export RUN --outdir=OUT"],
    "tensorboard": ["train.py --plugin=tensorboard --data=DATA --outdir=OUT"],
    "vision": [
        "train.py --plugin=vision-aided --vision-aided-warmup-kimg=0 --data=DATA --outdir=OUT",
        "priors --data=DATA --features=efficientnet_lite0",
    ],
    "wandb": ["train.py --plugin=wandb --data=DATA --outdir=OUT"],
}


def test_each_extra_has_a_command_that_needs_it():
    assert set(NEEDS) == set(EXTRAS) and all(EXTRAS.values())


@pytest.mark.parametrize(("extra", "line"), [(extra, line) for extra, lines in NEEDS.items() for line in lines])
def test_without_its_extra_a_command_names_it_in_one_line(ada_host, run, small_zip, tmp_path, extra, line):
    places = {"RUN": run, "DATA": small_zip, "OUT": tmp_path / "out"}
    args = [re.sub(r"RUN|DATA|OUT", lambda found: str(places[found[0]]), word) for word in line.split()]
    done = without([extra], ada_host, *args, *(TINY[ADA] if args[0] == "train.py" else []))
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"stylegan-plugins[{extra}]" in last and "Traceback" not in done.stderr, done.stderr
    assert not any(tmp_path.iterdir())


def test_without_any_extra_a_run_trains_and_its_networks_make_images(ada_host, small_zip, tmp_path):
    flags = [f"--data={small_zip}", f"--outdir={tmp_path / 'runs'}", *TINY[ADA], "--plugin=augself"]
    done = without(EXTRAS, ada_host, "train.py", *flags)
    assert done.returncode == 0, done.stderr
    trained = last_run(tmp_path / "runs")
    for command in (
        ["sample", str(trained), "--seeds=0-3", f"--outdir={tmp_path / 'samples'}"],
        ["sheet", str(trained), f"--outdir={tmp_path / 'sheet'}"],
        ["inspect", str(max(trained.glob("network-snapshot-*.pkl")))],
        ["list"],
        ["info", "augself"],
        ["status", str(ada_host)],
        ["demo-data", str(tmp_path / "faces.zip")],
        ["advise", f"--data={small_zip}", "--fixed"],
    ):
        done = without(EXTRAS, ada_host, *command)
        assert done.returncode == 0, (command, done.stderr)
    assert len(list((tmp_path / "samples").glob("seed*.png"))) == 4


def test_a_torchvision_for_another_torch_is_one_line(ada_host, small_zip, tmp_path):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = WITHOUT.replace("import sys\n", f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n", 1)
    args = ["priors", f"--data={small_zip}", "--features=efficientnet_lite0"]
    done = run_script(ada_host, "-c", code, "none", *args, check=False, fresh=True)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "timm cannot be imported (operator torchvision::nms does not exist)" in done.stderr
