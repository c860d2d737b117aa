"""`compare`: what it trains, that it goes on where it was, its table, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hosts import ADA
from support.images import color_crops, write_zip
from support.runs import TINY
from support.scripts import invoke

from stylegan_plugins.analysis import compare
from stylegan_plugins.analysis.compare import Cell
from stylegan_plugins.errors import DataError, OptionError


@pytest.mark.unit
def test_combinations_and_fractions():
    assert compare.combinations_of("none, augself,diffaugment+freezed,none") == [
        "none",
        "augself",
        "diffaugment,freezed",
    ]
    assert compare.fractions_of("1.0,0.2") == [1.0, 0.2]
    for text in ("0", "1.5", "x", "0.2,,1"):
        with pytest.raises(OptionError, match="--fraction"):
            compare.fractions_of(text)
    with pytest.raises(OptionError, match="--plugins"):
        compare.combinations_of(" , ")


@pytest.mark.unit
@settings(deadline=None, max_examples=30)  # the first time plug-ins are imported
@given(st.sampled_from(["none", "augself", "disp,freezed"]), st.floats(0.01, 1), st.integers(1, 10_000))
def test_a_share_of_the_data_is_as_many_images_as_it_says(plugins, share, images):
    found = compare.command(Cell(plugins, share, 3), "d.zip", images, 5, Path("runs"), ["--batch=8"])
    subset = [int(part.partition("=")[2]) for part in found if part.startswith("--subset=")]
    assert subset == ([] if share == 1 else [max(round(share * images), 1)])
    assert ("--plugin=none" not in found) and (f"--plugin={plugins}" in found) is (plugins != "none")
    assert found[-1] == "--batch=8" and "--seed=3" in found


@pytest.mark.unit
def test_options_of_a_plugin_go_to_the_combinations_that_have_it():
    given = ["--gamma=1", "--contrad-warmup=50", "--snap", "9", "--diffaugment-cutout", "0.2", "--mirror=1", "--x-y=1"]
    rest = ["--gamma=1", "--snap", "9", "--mirror=1", "--x-y=1"]
    assert compare.arguments_for([], given) == rest
    assert compare.arguments_for(["contrad"], given) == [rest[0], "--contrad-warmup=50", *rest[1:]]
    # augself brings diffaugment along.
    assert compare.arguments_for(["augself"], given) == [*rest[:3], "--diffaugment-cutout", "0.2", *rest[3:]]


@pytest.mark.unit
def test_the_table_has_means_and_deviations():
    values = {Cell("none", 1.0, 0): 10.0, Cell("none", 1.0, 1): 14.0, Cell("a,b", 1.0, 0): 3.0}
    text = compare.as_markdown(["none", "a,b"], [1.0], values)
    assert text.splitlines()[0] == "| plug-ins | 100% of the data |"
    assert text.splitlines()[2:] == ["| none | 12 ± 2.83 |", "| a + b | 3 |"]


@pytest.mark.run
def test_combinations_are_trained_and_after_ctrl_c_the_same_command_goes_on(ada_host, small_zip, tmp_path):
    """The run that it ends has its state written; what is done is not done again."""
    tiny = [flag for flag in TINY[ADA] if not flag.startswith(("--kimg", "--snap"))]
    flags = ["--plugins=none,diffaugment", f"--data={small_zip}", "--kimg=1", "--fraction=0.5", f"--outdir={tmp_path}"]
    flags += ["--features=efficientnet_lite0", "--samples=16", "--metric=kid", "--", *tiny]
    flags += ["--batch=32", "--device=cpu", "--snap=9"]
    command = [sys.executable, "-c", "from stylegan_plugins.cli import main; main()", "compare", *flags]
    how = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "preexec_fn": with_ctrl_c}
    running = subprocess.Popen(command, cwd=ada_host, stderr=subprocess.PIPE, text=True, **how)
    deadline = time.monotonic() + 300
    while not any("tick 0" in log.read_text() for log in tmp_path.glob("none-0.5-seed0-*/train.log")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGINT and "Traceback" not in said
    (first,) = tmp_path.glob("none-0.5-seed0-*")
    run_dir, seen = compare.progress_of(first)
    assert run_dir is not None and 0 <= seen < 1000
    assert not list(run_dir.glob("*.tmp"))

    done = invoke(ada_host, "compare", *flags)
    assert done.returncode == 0, done.stderr
    assert f"1 of 2: {first.name}, from {seen / 1000:g} of 1 kimg" in done.stderr
    assert [path.name for path in first.glob("0*")] == [run_dir.name]
    record = json.loads((tmp_path / "compare.json").read_text())
    assert [(cell["plugins"], cell["seed"]) for cell in record["cells"]] == [("none", 0), ("diffaugment", 0)]
    assert all(cell["value"] > 0 for cell in record["cells"]) and "| diffaugment | " in done.stdout
    options = next(tmp_path.glob("diffaugment-0.5-seed0-*/0*/training_options.json"))
    saved = json.loads(options.read_text())
    assert saved["training_set_kwargs"]["max_size"] == 32 and saved["plugins"]["active"] == ["diffaugment"]

    kept = next(first.glob("0*/network-snapshot-*.pkl"))
    before = kept.stat().st_mtime
    again = invoke(ada_host, "compare", *flags)
    assert again.returncode == 0 and " of 2: " not in again.stderr and kept.stat().st_mtime == before
    assert json.loads((tmp_path / "compare.json").read_text())["cells"] == record["cells"]

    kept.rename(kept.with_suffix(".moved"))  # an older snapshot would be that of a shorter run
    done = invoke(ada_host, "compare", *flags)
    assert done.returncode == 2 and f"{kept} is missing, the snapshot at the end of the run" in done.stderr


@pytest.mark.unit
def test_a_cell_is_its_arguments_its_data_its_files_and_the_versions(tmp_path, monkeypatch):
    """Each of these gave the old number under the new settings."""
    host, cell = tmp_path / "host", Cell("diffaugment", 0.5, 0)
    (host / "training").mkdir(parents=True)
    (host / "training/loss.py").write_text("a = 1")
    (host / "x.pkl").write_bytes(b"weights")
    images = color_crops(6, side=16)
    data = str(write_zip(tmp_path / "a.zip", images, [0, 1] * 3))

    def folder(cell: Cell = cell, data: str = data, kimg: int = 5, more: tuple[str, ...] = ("--resume=x.pkl",)) -> str:
        compare.code_of.cache_clear()
        arguments = compare.command(cell, data, 6, kimg, Path("runs"), more)[2:]
        return cell.folder(compare.identity_of(cell, arguments, host, data))

    names = [folder(), folder(more=("--gamma=2",)), folder(more=("--cbase=8",)), folder(kimg=4)]
    names += [folder(cell=Cell("diffaugment", 0.5, 1)), folder(cell=Cell("none", 0.5, 0))]
    assert re.fullmatch(r"diffaugment-0.5-seed0-[0-9a-f]{8}", names[0]) and folder() == names[0]
    write_zip(Path(data), images[::-1], [0, 1] * 3)
    names.append(folder())
    write_zip(Path(data), images[::-1], [1, 0] * 3)
    names.append(folder())
    (host / "x.pkl").write_bytes(b"other weights")
    names.append(folder())
    (host / "training/loss.py").write_text("a = 2")
    names.append(folder())
    monkeypatch.setattr(compare.stylegan_plugins, "__version__", "99")
    names.append(folder())
    assert len(set(names)) == len(names) == 11
    assert "/" not in Cell("../a.py", 1, 0).folder({})


@pytest.mark.unit
def test_a_folder_that_holds_another_cell_is_refused(tmp_path):
    identity = {"arguments": ["--gamma=1"]}
    compare.claim(tmp_path / "cell", identity)
    compare.claim(tmp_path / "cell", identity)
    file = tmp_path / "cell" / compare.CELL
    for content in ('{"arguments": ["--gamma=2"]}', "[]", "", None):
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises(DataError, match="Move this folder away"):
            compare.claim(tmp_path / "cell", identity)


@pytest.mark.unit
def test_the_error_of_a_run_is_its_own_and_not_that_of_an_earlier_one(tmp_path):
    log = tmp_path / "train.log"
    for code, why in (("print('Error: too dark.'); raise SystemExit(2)", "too dark."), ("1 / 0", "it ended with 1")):
        with pytest.raises(DataError, match=rf": {why} \(.*train.log\). Do this"):
            compare.call([sys.executable, "-c", code], tmp_path, log, "Do this.")
    assert "too dark" in log.read_text() and "ZeroDivisionError" in log.read_text()


@pytest.mark.host
@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_is_handed_on_and_a_second_one_ends_all_processes(first, tmp_path):
    """The program here has a child, and neither of them ends when it is told to."""
    stubborn = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True)); "
    stubborn += "child = os.fork(); print(os.getpid(), flush=True); [time.sleep(0.1) for _ in range(600)]"
    code = "import sys; from stylegan_plugins.analysis import programs; "
    code += "programs.run([sys.executable, '-c', sys.argv[1]], stdout=open(sys.argv[2], 'wb'))"
    output = tmp_path / "out"
    parent = subprocess.Popen([sys.executable, "-c", code, stubborn, output], stderr=subprocess.PIPE, text=True)

    def wait_for(condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for(lambda: output.exists() and len(output.read_text().split()) == 2)
    pids = [int(pid) for pid in output.read_text().split()]
    parent.send_signal(first)
    wait_for(lambda: "told" in output.read_text())
    parent.send_signal(signal.SIGTERM)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 128 + first and said.count("again ends it at once") == 1
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def with_ctrl_c() -> None:
    """What a shell starts in the background ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.run
def test_what_cannot_be_trained_is_said_before_anything_is(ada_host, small_zip, tmp_path):
    flags = ["--plugins=none,freezed", f"--data={small_zip}", "--kimg=1", f"--outdir={tmp_path / 'out'}"]
    done = invoke(ada_host, "compare", *flags, "--features=efficientnet_lite0", "--", *TINY[ADA][:2], "--device=cpu")
    assert done.returncode == 2
    assert "nothing pretrained is being frozen" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*seed*"))
