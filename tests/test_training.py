"""Whole runs of the hosts on a CPU, on real images, through train.py and the training loop."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from support.hosts import ADA, CHECKOUTS, STYLEGAN3, copy_host, install_plugin
from support.runs import QUICK_TRAIN, TINY, last_run, loop, options, snapshot, stats
from support.scripts import invoke, run_script

from stylegan_plugins.host import patch as host_patch

pytestmark = pytest.mark.run

FAMILY = pytest.mark.parametrize("family", [ADA, STYLEGAN3])


def assert_patched_equals_stock(stock: Path, patched: Path, family: str, data: Path, tmp_path: Path) -> None:
    args = options(patched, family, data, tmp_path)
    # Every other key is compared with the unpatched host's in test_options.py.
    assert "plugins" not in args and "device" not in args
    for name in ("G_opt_kwargs", "D_opt_kwargs"):
        args[name]["fused"] = False  # which rounds differently
    ours = snapshot(patched, loop(patched, args, tmp_path / "patched", 20))
    theirs = snapshot(stock, loop(stock, args, tmp_path / "stock", 20, "--stock"))
    assert ours["finite"] and ours == theirs


@FAMILY
def test_patched_host_without_plugins_trains_as_the_unpatched_one_bit_for_bit(
    fetched, training_hosts, family, small_zip, tmp_path
):
    assert_patched_equals_stock(fetched[family], training_hosts[family], family, small_zip, tmp_path)


@pytest.mark.parametrize("pristine", [ADA, STYLEGAN3], indirect=True, ids=[ADA, STYLEGAN3])
def test_nvidias_checkout_trains_as_before_bit_for_bit(pristine, request, small_zip, tmp_path):
    family = request.node.callspec.params["pristine"]
    assert family in CHECKOUTS
    patched = copy_host(pristine, tmp_path / "host")
    host_patch.patch(patched)
    assert_patched_equals_stock(pristine, patched, family, small_zip, tmp_path)


@FAMILY
def test_a_run_with_diffaugment_and_ada_leaves_all_that_a_user_expects(
    fetched, training_hosts, family, small_zip, tmp_path
):
    done = run_script(
        training_hosts[family],
        "train.py",
        *[f"--data={small_zip}", f"--outdir={tmp_path}", *TINY[family], "--batch=32"],
        *["--plugin=diffaugment", "--aug=ada", "--diffaugment-cutout=0.4"],
        fresh=family == ADA,
    )
    run_dir = last_run(tmp_path)
    assert run_dir.name.endswith("-diffaugment")
    saved = json.loads((run_dir / "training_options.json").read_text())
    assert saved["plugins"]["active"] == ["diffaugment"]
    assert saved["plugins"]["options"]["diffaugment"]["cutout"] == 0.4
    assert saved["plugins"]["options"]["diffaugment"]["where"] == "all"
    assert saved["ada_target"] == 0.6
    last = stats(run_dir)[-1]
    for name in ("Loss/G/loss", "Loss/D/loss", "Loss/D/reg", "Loss/signs/real", "Timing/Gmain"):
        assert math.isfinite(last[name]["mean"]), name
    assert last["Loss/signs/real"]["num"] > 0  # ADA is told
    assert re.search(
        r"progress: 1\.0 of 1\.0 kimg \(100%\)  [\d.]+ images/s  0m 0s left", (run_dir / "log.txt").read_text()
    )
    for line in done.stderr.splitlines():  # no warning is repeated
        assert done.stderr.splitlines().count(line) == 1 or "Warning" not in line, line
    pickle = max(run_dir.glob("network-snapshot-*.pkl"))
    here, there = snapshot(training_hosts[family], pickle), snapshot(fetched[family], pickle, "--stock")
    # Without us a CPU sums in another order.
    assert here.pop("pixels") == pytest.approx(there.pop("pixels"), abs=1e-5)
    assert here == there and here["finite"]
    assert here["keys"] == ["D", "G", "G_ema", "augment_pipe", "training_set_kwargs"]
    assert (run_dir / "fakes000001.png").is_file()


RANKS = '''"""Writes what each process has at the end of an iteration."""
import hashlib, json, os
from stylegan_plugins import Head, Term, hookimpl
import torch

def digest(module):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in module.parameters())).hexdigest()

@hookimpl
def setup(session):
    return Ranks(session)

class Ranks:
    def __init__(self, session):
        self.session = session
        session.augment_pipe.p.fill_(0.5)
        head = torch.nn.Linear(session.D.b4.fc.weight.shape[0], 2)
        self.heads = [Head("probe", head)]
        term = lambda step: head(step.one.layers["b4.fc"]).square().mean(1)
        self.terms = [Term("probe", "D", term, layers=["b4.fc"])]

    @hookimpl
    def batch_end(self, batch_idx):
        session = self.session
        state = {n: digest(getattr(session, n)) for n in ("G", "D", "G_ema")} | {"heads": digest(session.heads)}
        state |= {"p": float(session.augment_pipe.p), "batch": batch_idx}
        with open(os.environ["RANKS"] + f"-{session.rank}.json", "w") as file:
            json.dump(state, file)
'''


@FAMILY
def test_two_processes_end_with_the_same_networks_and_the_same_p(training_hosts, family, small_zip, tmp_path):
    args = [arg for arg in TINY[family] if not arg.startswith("--gpus")]
    as_users_do = family == ADA  # in one family only: each process imports torch again
    run_script(
        training_hosts[family],
        "train.py" if as_users_do else QUICK_TRAIN,
        *[f"--data={small_zip}", f"--outdir={tmp_path / 'runs'}", *args, "--gpus=2", "--batch=64", "--device=cpu"],
        *["--plugin=augself,ranks", "--aug=ada"],
        fresh=as_users_do,
        PYTHONPATH=install_plugin(tmp_path / "site", "ranks", RANKS),
        RANKS=str(tmp_path / "ranks"),
    )
    run_dir = last_run(tmp_path / "runs")
    assert json.loads((run_dir / "training_options.json").read_text())["device"] == "cpu"
    ranks = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("ranks-?.json"))]
    assert len(ranks) == 2 and ranks[0]["batch"] == 16 and ranks[0] == ranks[1] and abs(ranks[0]["p"] - 0.5) > 1e-4


def test_unlabelled_labelled_and_gray_data_train_with_lazy_regularisation_off(
    ada_host, labelled_zip, gray_zip, tmp_path
):
    for name, data, more in (
        ("labelled", labelled_zip, {}),
        ("gray", gray_zip, {"G_reg_interval": None, "D_reg_interval": None}),
    ):
        flags = ["--plugin=augself", "--gan-loss=hinge"] + (["--cond=1"] if name == "labelled" else [])
        args = options(ada_host, ADA, data, tmp_path, *flags) | more
        assert args["loss_kwargs"]["gan_loss"] == "hinge"
        seen = snapshot(ada_host, loop(ada_host, args, tmp_path / name, 3))
        assert seen["finite"]


DYING = """
import runpy, sys
sys.path.insert(0, ".")
from stylegan_plugins import bridge
from training import loss

def die(*args, **kwargs):
    raise RuntimeError("no memory is left")

loss.StyleGAN2Loss.accumulate_gradients = die
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


def test_an_error_in_training_is_the_last_thing_that_is_said(ada_host, color_zip, tmp_path):
    """Workers of the data loader end with the run; torch would report each of them as killed."""
    args = [f"--data={color_zip}", f"--outdir={tmp_path}", *TINY[ADA], "--workers=2"]
    done = run_script(ada_host, "-c", DYING, *args, check=False, fresh=True)
    assert done.returncode == 1 and "killed by signal" not in done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1] == "RuntimeError: no memory is left"  # the host's logger takes it


NAN_GRADIENT = """
from types import SimpleNamespace
from stylegan_plugins import Term, hookimpl

@hookimpl
def setup():
    norm = lambda step: (step.one.logits * 0).square().sqrt().sum(1)
    return SimpleNamespace(terms=[Term("odd", "D", norm, on="real")])
"""


def test_a_term_without_a_finite_gradient_ends_the_run_at_its_first_iteration(ada_host, small_zip, tmp_path):
    (tmp_path / "mine.py").write_text(NAN_GRADIENT)
    args = [f"--data={small_zip}", f"--outdir={tmp_path / 'runs'}", *TINY[ADA], f"--plugin={tmp_path / 'mine.py'}"]
    done = run_script(ada_host, "train.py", *args, check=False)
    message = "Error: --plugin=mine: the gradient of .* in Dmain is not finite at 0 kimg, and would become 0. "
    assert done.returncode == 2 and re.search(message, done.stdout + done.stderr)


def test_samples_need_no_plugin_file_that_draws_no_labels(ada_host, small_zip, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from stylegan_plugins import hookimpl\n@hookimpl\ndef setup(): return None\n")
    args = [f"--data={small_zip}", f"--outdir={tmp_path / 'runs'}", *TINY[ADA], "--batch=64", f"--plugin={file}"]
    run_script(ada_host, "train.py", *args)
    run = last_run(tmp_path / "runs")
    file.write_text("# changed")
    sample = lambda *more: invoke(ada_host, "sample", str(run), "--seeds=0-1", *more, "--device=cpu")
    assert sample(f"--outdir={tmp_path / 'changed'}").returncode == 0
    file.unlink()
    assert sample(f"--outdir={tmp_path / 'gone'}").returncode == 0
