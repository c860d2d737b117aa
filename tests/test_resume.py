"""Runs that are killed, asked to stop, or damaged, and resume exactly as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from drivers.states import differences
from support.hosts import ADA, STYLEGAN3, install_plugin
from support.images import color_crops, write_zip
from support.runs import QUICK_TRAIN, TINY, begin, driver, flags, options, run_to_its_end, wait_for_state
from support.scripts import run_script, start_script

from stylegan_plugins.errors import DamagedStateError, StateError
from stylegan_plugins.files import states
from stylegan_plugins.files.checksums import record_checksum
from stylegan_plugins.run import checkpoints, host_metrics, logs

ALL = ["--plugin=diffaugment,augself", "--aug=ada", "--state-minutes=0.0001", "--device=cpu"]


def newest_nimg(run_dir: Path) -> int:
    return int(states.states_of(run_dir)[0].stem.split("-")[-1])


def settings(host: Path, family: str, data: Path, tmp_path: Path, *flags: str, kimg: float = 0.24) -> dict:
    args = options(host, family, data, tmp_path, *ALL, *flags)
    return args | {"total_kimg": kimg, "kimg_per_tick": 0.08, "image_snapshot_ticks": 3}


@pytest.fixture(scope="module")
def whole(ada_host, small_zip, tmp_path_factory):
    """An uninterrupted run, with ADA on: (arguments, run directory)."""
    top = tmp_path_factory.mktemp("whole")
    args = settings(ada_host, ADA, small_zip, top)
    run_to_its_end(ada_host, args | {"state_minutes": 10.0}, top / "run")
    # At the end, and before the last iteration, at whose end pictures are made.
    assert [newest_nimg(top / "run"), len(states.states_of(top / "run"))] == [240, 2]
    return args, top / "run"


@pytest.mark.run
def test_a_run_that_is_killed_twice_ends_as_one_that_was_not(ada_host, whole, tmp_path):
    args, expected = whole
    moments = random.Random()
    seed = moments.randrange(1 << 30)
    moments.seed(seed)
    run_dir = tmp_path / "run"
    run = begin(ada_host, args, run_dir)
    for _ in range(2):
        wait_for_state(run, run_dir, newest_nimg(run_dir) if run_dir.exists() and states.states_of(run_dir) else -1)
        time.sleep(moments.random())
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        run = start_script(ada_host, "train.py", f"--resume-run={run_dir}")
    output = run.communicate(timeout=300)[0]
    assert run.returncode == 0 or "the run is complete" in output, output[-3000:]
    assert differences(run_dir, expected) == [], f"kills with seed {seed}"
    assert not list(run_dir.glob("*.tmp")) and len(states.states_of(run_dir)) == 2


@pytest.mark.run
def test_a_run_that_was_moved_with_its_data_goes_on_for_longer_and_keeps_its_beginning(
    ada_host, small_zip, tmp_path, whole
):
    _, expected = whole
    moved = tmp_path / "moved"
    shutil.copytree(expected, moved)
    beginning = {name: (moved / name).read_bytes() for name in ("reals.png", "fakes_init.png")}
    lines = (moved / "stats.jsonl").read_text()
    done = run_script(ada_host, "train.py", f"--resume-run={moved}", "--kimg=1", "--tick=100", "--snap=9", "--dry-run")
    assert "at 0.2 of 1 kimg" in done.stdout
    data = shutil.copy(small_zip, tmp_path / "data.zip")
    changes = ["--kimg=1", "--state-minutes=0.0001", f"--data={os.path.relpath(data, ada_host)}"]
    run = start_script(ada_host, "train.py", f"--resume-run={moved}", *changes)
    wait_for_state(run, moved, 256)
    os.kill(run.pid, signal.SIGTERM)  # to the first process alone, as a scheduler does it
    output = run.communicate(timeout=120)[0]
    assert run.returncode == 128 + signal.SIGTERM
    # The command works in any folder, and the run resumes with the options that were given last.
    assert f"Resume it with:\n  {sys.executable} {ada_host / 'train.py'} --resume-run={moved}" in output
    done = run_script(tmp_path, str(ada_host / "train.py"), f"--resume-run={moved}", "--dry-run")
    options = json.loads((moved / "training_options.json").read_text())
    assert "of 1 kimg" in done.stdout and options["state_minutes"] == 0.0001
    assert options["training_set_kwargs"]["path"] == str(data)
    assert {name: (moved / name).read_bytes() for name in beginning} == beginning
    assert (moved / "stats.jsonl").read_text() == lines  # no tick was closed early


@pytest.mark.run
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_ends_a_run_with_workers_and_it_goes_on(number, ada_host, whole, tmp_path):
    args, expected = whole
    run_dir = tmp_path / "run"
    loader = args["data_loader_kwargs"] | {"num_workers": 1, "prefetch_factor": 2}
    run = begin(ada_host, args | {"data_loader_kwargs": loader, "state_minutes": 10.0}, run_dir)
    deadline = time.monotonic() + 200
    while not (run_dir / "stats.jsonl").exists() or not (run_dir / "stats.jsonl").read_text():
        assert time.monotonic() < deadline and run.poll() is None, run.communicate()[0][-3000:]
        time.sleep(0.1)
    os.killpg(run.pid, number)
    output = run.communicate(timeout=120)[0]
    assert "--resume-run=" in output and "Traceback" not in output, output[-3000:]
    if number == signal.SIGINT:
        return  # the same path from here on
    done = run_script(ada_host, "train.py", f"--resume-run={run_dir}", "--workers=0", "--cache=ram")
    assert "Going on from" in done.stdout and re.search("--cache=ram: .*64 (decoded )?images", done.stdout)
    assert differences(run_dir, expected) == []


FAULTY = """
from stylegan_plugins import hookimpl

@hookimpl
def setup():
    return Faulty()

class Faulty:
    @hookimpl
    def batch_end(self):
        raise RuntimeError("of a plug-in")
"""


@pytest.mark.run
def test_an_error_ends_a_run_although_its_workers_ignore_signals(ada_host, small_zip, tmp_path):
    done = run_script(
        ada_host,
        "train.py",
        *[f"--data={small_zip}", f"--outdir={tmp_path / 'runs'}", *TINY[ADA], "--workers=1", "--plugin=faulty"],
        check=False,
        timeout=120,
        fresh=True,
        PYTHONPATH=install_plugin(tmp_path / "site", "faulty", FAULTY),
    )
    assert done.returncode == 1 and "RuntimeError: of a plug-in" in done.stdout + done.stderr


REMEMBERS = """
from stylegan_plugins import hookimpl
import torch

@hookimpl
def setup(session):
    return Remembers(session)

class Remembers:
    def __init__(self, session):
        self.session, self.seen = session, []

    @hookimpl
    def batch_end(self, nimg):
        self.seen.append((self.session.rank + 1) * nimg)

    def state_dict(self):
        return {"seen": torch.tensor(self.seen)}

    def load_state_dict(self, state):
        self.seen = state["seen"].tolist()
"""


@pytest.mark.run
def test_two_processes_of_stylegan3_go_on_exactly_with_what_a_plugin_remembers(stylegan3_host, small_zip, tmp_path):
    site = {"PYTHONPATH": install_plugin(tmp_path / "site", "remembers", REMEMBERS)}
    flags = ["--gpus=2", "--batch=16", "--mirror=1"]
    args = settings(stylegan3_host, STYLEGAN3, small_zip, tmp_path, *flags, kimg=0.192) | {"kimg_per_tick": 0.064}
    args["plugins"]["active"].append("remembers")
    runs = []
    for name, minutes in (("whole", 10.0), ("killed", 0.0001)):
        runs.append(begin(stylegan3_host, args | {"state_minutes": minutes}, tmp_path / name, **site))
        if name == "whole":
            assert runs[0].wait(timeout=300) == 0
    wait_for_state(runs[1], tmp_path / "killed", 40)
    os.killpg(runs[1].pid, signal.SIGKILL)
    runs[1].communicate()
    run_script(stylegan3_host, QUICK_TRAIN, f"--resume-run={tmp_path / 'killed'}", **site)
    assert differences(tmp_path / "killed", tmp_path / "whole") == []
    ranks = states.read_state(states.states_of(tmp_path / "killed")[0])["ranks"]
    for index, rank in enumerate(ranks):
        assert rank["session"]["methods"]["remembers"]["seen"].tolist() == [(index + 1) * 16 * n for n in range(1, 13)]


def written(path: Path, keep: int = 2, **more: object) -> dict:
    """Write the smallest state, with more in it."""
    state = {"torch": "2", "position": dict.fromkeys(checkpoints.POSITION, 0), "networks": {}, "optimizers": {}}
    state |= {"session": {}, "grid_z": None, "ranks": [{}], **more}
    states.write_state(path, state, states.Info(nimg=0, ranks=1), keep)
    return state


@pytest.mark.unit
@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "empty"])
def test_a_damaged_state_is_told_and_the_one_before_is_used(damage, tmp_path):
    for nimg in (8, 16):
        written(states.state_path(tmp_path, nimg), grid_z=torch.arange(10000.0) + nimg)
    newest = states.state_path(tmp_path, 16)
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    else:
        content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    told: list[str] = []
    path, _, state = states.newest_state(tmp_path, told.append)
    assert state["grid_z"][0] == 8 and path == states.state_path(tmp_path, 8)
    assert len(told) == 1 and "training-state-000000016.pt is truncated or damaged" in told[0]
    path.write_bytes(b"")
    with pytest.raises(StateError, match="has no training-state-.*that is whole"):
        states.newest_state(tmp_path, told.append)


@pytest.mark.unit
def test_a_state_is_never_loaded_as_a_pickle(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was-run'}",)

    path = states.state_path(tmp_path, 1)
    written(path)
    torch.save({"x": Evil()}, path)
    info = states.read_info(path)
    info.size, info.sha256 = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DamagedStateError, match="is not a training state"):
        states.read_state(path, info)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.unit
def test_as_many_states_are_kept_as_asked_for(tmp_path):
    for nimg in range(5):
        written(states.state_path(tmp_path, nimg), keep=3)
    assert [int(path.stem[-1]) for path in states.states_of(tmp_path)] == [4, 3, 2]


@pytest.mark.unit
def test_a_disk_that_is_full_leaves_older_states(tmp_path, monkeypatch):
    written(states.state_path(tmp_path, 1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for keep, advice in ((2, "Make room, or give --keep-states=1."), (1, "Make room.")):
        with pytest.raises(StateError, match=r"no space left, \d+ MB free; it takes 0 MB") as error:
            written(states.state_path(tmp_path, 2), keep)
        assert str(error.value).endswith(advice)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".pt"]


@pytest.mark.unit
@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), MemoryError()])
def test_a_disk_or_a_memory_that_fails_is_no_damage(fault, tmp_path, monkeypatch):
    for nimg in (8, 16):
        written(states.state_path(tmp_path, nimg))

    def read_bytes(path):
        if path.suffix == ".pt":
            raise fault
        return path.open("rb").read()

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    told: list[str] = []
    with pytest.raises(StateError, match=r"16.pt cannot be read .(Input/output error|not enough memory).") as error:
        states.newest_state(tmp_path, told.append)
    assert not isinstance(error.value, DamagedStateError) and told == [] and len(states.states_of(tmp_path)) == 2


@pytest.mark.unit
def test_a_damaged_state_does_not_count_as_the_newest_any_more(tmp_path):
    for nimg in (8, 16):
        written(states.state_path(tmp_path, nimg))
    states.state_path(tmp_path, 16).write_bytes(b"damaged")
    path, _, _ = states.newest_state(tmp_path, lambda line: None)
    states.set_aside_newer(path)
    written(states.state_path(tmp_path, 12), keep=1)
    assert [path.name for path in states.states_of(tmp_path)] == ["training-state-000000012.pt"]


@pytest.mark.unit
def test_a_run_that_is_going_on_cannot_be_resumed_beside_it(tmp_path):
    code = "import sys, time; from pathlib import Path; from stylegan_plugins.files import states\n"
    code += "states.lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(StateError, match="the run is still going on"):
        states.lock(tmp_path)
    other.kill()
    other.wait()
    descriptor = states.lock(tmp_path)
    assert descriptor is not None
    os.close(descriptor)


@pytest.mark.unit
def test_what_the_loop_appended_is_cut_and_everything_else_stays(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere.jsonl"
    run.mkdir()
    result = lambda snapshot, value: json.dumps({"snapshot_pkl": snapshot, "results": {"fid": value}}) + "\n"
    snapshots = [run / f"network-snapshot-{kimg:06d}.pkl" for kimg in (0, 4, 8)]
    for file in snapshots[:2]:
        file.write_bytes(file.name.encode())
        record_checksum(file)
    (run / "stats.jsonl").write_text("{}\n")
    (run / "metric-fid.jsonl").write_text(result(snapshots[0].name, 3))
    elsewhere.write_text("one\n")
    (run / "log.txt").symlink_to(elsewhere)
    info = states.Info(8, 1, lengths=logs.lengths(run, ["mine.jsonl"]), snapshots=logs.snapshots(run))
    # After the state: the loop continues, snapshot 4 is written again, and others write, too.
    snapshots[2].write_bytes(b"8")
    snapshots[1].write_bytes(b"other")
    record_checksum(snapshots[1])
    record_checksum(snapshots[2])
    for name in ("stats.jsonl", "log.txt", "mine.jsonl", "notes.jsonl"):
        with open(run / name, "a") as file:
            file.write("more\n")
    later = [result(name, 2) for name in (snapshots[1].name, snapshots[0].name, "../other.pkl", snapshots[2].name)]
    for name in ("metric-fid.jsonl", "metric-kid.jsonl"):
        with open(run / name, "a") as file:
            file.write("".join(later) + '{"snapshot')
    logs.cut(run, info)
    assert (run / "stats.jsonl").read_text() == "{}\n" and (run / "mine.jsonl").read_text() == ""
    assert (run / "notes.jsonl").read_text() == "more\n"
    assert (run / "log.txt").read_text() == "one\n" and not (run / "log.txt").is_symlink()
    assert elsewhere.read_text() == "one\nmore\n"
    assert (run / "metric-fid.jsonl").read_text() == result(snapshots[0].name, 3) + later[1] + later[2]
    assert (run / "metric-kid.jsonl").read_text() == later[1] + later[2]
    # The best snapshot is none whose result is gone.
    (run / "metric-is.jsonl").write_text("")
    (run / "best.json").write_text(json.dumps({"is": {"results": {"is": 9}}, "kid": {"results": {"kid": 2}}}))
    host_metrics.mark_best_again(run, "is")
    assert json.loads((run / "best.json").read_text()) == {"kid": {"results": {"kid": 2}}}


@pytest.mark.unit
def test_lengths_of_a_crafted_state_reach_no_file_outside(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("all of it")
    logs.cut(tmp_path / "run", states.Info(8, 1, lengths={"../precious": 0, str(tmp_path / "precious"): 0}))
    assert (tmp_path / "precious").read_text() == "all of it"


@pytest.mark.run
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch=16"], "--resume-run: --batch cannot change in the middle of a run"),
        (["--plugin=augself", "--gamma=1"], "--resume-run: --gamma, --plugin cannot change"),
        (["--kimg=0"], "--kimg=0: must be 1 or more"),
        (["--kimg=2", "--snap=0"], "--snap=0: must be 1 or more"),
        ([], "the run is complete at 0.24 kimg. Give a larger --kimg"),
        (["--device=cpu"], "the run is complete at 0.24 kimg. Give a larger --kimg"),
        (["--kimg=2", "--metrics=nonsense"], "--metrics: 'nonsense' is not known. Known: "),
    ],
)
def test_what_a_resumed_run_cannot_do_is_one_line(flags, message, ada_host, whole):
    _, run_dir = whole
    before = {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()}
    done = run_script(ada_host, "train.py", f"--resume-run={run_dir}", *flags, check=False)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()} == before


@pytest.mark.run
def test_a_resumed_run_takes_its_data_from_another_place_and_no_other_data(ada_host, small_zip, whole, tmp_path):
    _, run_dir = whole
    moved = tmp_path / "moved"
    shutil.copytree(run_dir, moved)
    options = json.loads((moved / "training_options.json").read_text())
    unzipped = tmp_path / "unzipped"
    with zipfile.ZipFile(small_zip) as archive:
        archive.extractall(unzipped)
    others = write_zip(tmp_path / "others.zip", color_crops(64, side=16, seed=9))
    larger = write_zip(tmp_path / "larger.zip", color_crops(64, side=32))
    cases = [
        ([], 2, f"images in {larger} have 32 pixels a side, the networks of the run are for 16"),
        ([], 2, "the data set gone/crops.zip is not there. Say where it is now with --data, or put it back."),
        ([f"--data={unzipped}"], 0, "at 0.2 of 1 kimg"),
        ([f"--data={others}"], 2, f"the images of {others} are not those that the run was trained on"),
        ([f"--data={others}", "--accept-changes"], 0, f"Accepted: the images of {others} are not those"),
        ([f"--data={larger}"], 2, "larger.zip are not those that the run was trained on"),  # in the run's size
        ([f"--data={tmp_path}/none.zip"], 2, f"--data: {tmp_path}/none.zip does not exist."),
    ]
    for number, (more, code, message) in enumerate(cases):
        options["training_set_kwargs"]["path"] = "gone/crops.zip" if number else str(larger)
        (moved / "training_options.json").write_text(json.dumps(options))
        command = ["train.py", f"--resume-run={moved}", "--kimg=1", "--dry-run", *more]
        done = run_script(ada_host, *command, check=False)
        assert done.returncode == code and message in (done.stderr if code else done.stdout), (more, done)
        assert "Traceback" not in done.stderr


@pytest.mark.host
def test_a_run_records_full_paths_and_goes_on_from_any_folder(patched, family, color_zip, pickles, tmp_path):
    for name, file in (("crops.zip", color_zip), ("weights.pth", color_zip), ("start.pkl", pickles[family])):
        shutil.copy(file, tmp_path / name)
    (tmp_path / "mine.py").write_text(FILE_PLUGIN)
    given = ["--data=crops.zip", "--outdir=runs", "--resume=start.pkl", "--plugin=./mine.py"]
    given += ["--mine-weights=weights.pth", "--device=cpu", "--dry-run"]
    done = run_script(tmp_path, str(patched[family] / "train.py"), *flags(family, *given))
    found = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index('{\n  "') :])[0]
    assert found["training_set_kwargs"]["path"] == str(tmp_path / "crops.zip")
    assert Path(found["run_dir"]).parent == tmp_path / "runs"
    assert found["resume_pkl"] == str(tmp_path / "start.pkl")
    assert found["plugins"]["options"]["mine"]["weights"] == str(tmp_path / "weights.pth")
    assert found["plugins"]["files"]["mine"]["path"] == str(tmp_path / "mine.py")


FILE_PLUGIN = """
from dataclasses import dataclass
from stylegan_plugins import option
@dataclass(frozen=True)
class Options:
    weights: str = option("none", "a file", metavar="FILE")
OPTIONS = Options
"""


@pytest.mark.run
def test_a_directory_without_a_state_is_one_line(ada_host, tmp_path, whole):
    _, run_dir = whole
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy, ignore=shutil.ignore_patterns("*.pt"))
    for directory, message in ((copy, "has no training-state-*.pt"), (tmp_path, "has no training_options.json")):
        done = run_script(ada_host, "train.py", f"--resume-run={directory}", "--kimg=1", check=False)
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1]


@pytest.mark.unit
def test_a_full_disk_does_not_end_a_run_unless_it_is_to_end(monkeypatch, capsys):
    from types import SimpleNamespace

    from stylegan_plugins.run import signals

    session = SimpleNamespace(rank=0, num_gpus=1, device=torch.device("cpu"), run_dir=Path("runs/x"))
    full = checkpoints.Checkpoints(session, minutes=1e-9)

    def write(position):
        raise StateError("runs/x cannot be written (No space left on device).")

    monkeypatch.setattr(full, "_write", write)
    monkeypatch.setattr(checkpoints, "not_finite", lambda session: [])
    loop = dict.fromkeys(checkpoints.POSITION, 8) | {"total_kimg": 1, "kimg_per_tick": 1}
    assert full.next_batch(loop) is False
    assert "No space left on device). Training goes on." in capsys.readouterr().out
    monkeypatch.setattr(signals, "asked", lambda: int(signal.SIGTERM))
    with pytest.raises(StateError):
        full.next_batch(loop)


EXPLODES = """
import os
from stylegan_plugins import hookimpl

@hookimpl
def setup(session):
    return Explodes(session)

class Explodes:
    def __init__(self, session):
        self.session = session

    @hookimpl
    def batch_end(self, batch_idx):
        if batch_idx == int(os.environ["EXPLODES"]):
            next(self.session.G.parameters()).data.fill_(float("nan"))
"""


@pytest.mark.run
@pytest.mark.parametrize(("batch", "told"), [(5, 0.04), (6, 0.064)])  # at the end of a tick, before it
def test_weights_that_are_not_finite_end_a_run_before_anything_is_made_of_them(
    batch, told, ada_host, small_zip, tmp_path
):
    site = {"PYTHONPATH": install_plugin(tmp_path / "site", "explodes", EXPLODES), "EXPLODES": str(batch)}
    args = settings(ada_host, ADA, small_zip, tmp_path, kimg=0.096) | {"kimg_per_tick": 0.032, "state_minutes": 10.0}
    # Without augself, whose term would be the first to say it.
    args["plugins"] = {"active": ["diffaugment", "explodes"], "options": {}}
    args |= {"image_snapshot_ticks": 1, "network_snapshot_ticks": 1}
    for on_nan in ("stop", "warn"):
        done = run_script(ada_host, *driver(args | {"on_nan": on_nan}, tmp_path / on_nan), check=False, **site)
        said = done.stdout + done.stderr
        assert f"At {told} kimg these are not finite: " in said and "G.synthesis.b4.const" in said, said[-2000:]
        assert ("Training goes on." in said) == (on_nan == "warn") == (done.returncode == 0)
    assert newest_nimg(tmp_path / "stop") == 32
    for path in states.states_of(tmp_path / "stop"):
        assert all(tensor.isfinite().all() for tensor in states.read_state(path)["networks"]["G"].values())


UNREADABLE = """
import os, runpy, sys
sys.path.insert(0, ".")
from stylegan_plugins import bridge
from training import dataset

def broken(self, index, read=dataset.ImageFolderDataset._load_raw_image, seen=[]):
    seen.append(index)
    if len(seen) > 60:
        raise OSError(5, "Input/output error")
    return read(self, index)

dataset.ImageFolderDataset._load_raw_image = broken
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.run
def test_an_error_in_reading_the_data_set_writes_a_state_and_says_how_the_run_goes_on(ada_host, whole, tmp_path):
    args, _ = whole
    run_dir = tmp_path / "run"
    run_to_its_end(ada_host, args | {"total_kimg": 0.08, "state_minutes": 10.0}, run_dir)
    done = run_script(ada_host, "-c", UNREADABLE, f"--resume-run={run_dir}", "--kimg=1", "--cache=off", check=False)
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "in reading the data set: OSError: [Errno 5] Input/output error" in said and "--resume-run=" in said
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert newest_nimg(run_dir) > 80
