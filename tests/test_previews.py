"""Previews of a run in progress: image grids by time, their size, the remaining time, its page."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scripts import DRIVERS, run_script

from stylegan_plugins.errors import DataError
from stylegan_plugins.run import previews
from stylegan_plugins.run.checkpoints import Checkpoints
from stylegan_plugins.run.previews import Previews

ON_CPU = torch.nn.Linear(1, 1)


def session(tmp_path, **values):
    return SimpleNamespace(**{"rank": 0, "num_gpus": 1, "total_nimg": 9000, "run_dir": tmp_path, "nimg": 0} | values)


@pytest.fixture
def work(monkeypatch):
    """Multiplications of an image, and images a second, of networks that are not there."""
    monkeypatch.setattr(previews.estimate, "seconds_per_image", lambda G, D, batch: 0.5)
    return lambda count: monkeypatch.setattr(previews.estimate, "multiplications", lambda G: count)


@pytest.mark.unit
@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 32), st.integers(1, 32)), st.integers(0, 10**11), st.integers(0, 2**31))
def test_a_smaller_grid_is_a_part_of_the_hosts_and_draws_the_same_random_numbers(size, count, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(previews.estimate, "seconds_per_image", lambda G, D, batch: 0.5)
        patch.setattr(previews.estimate, "multiplications", lambda G: count)
        shown = Previews(session(None))
        images = np.arange(size[0] * size[1]).reshape(-1, 1, 1, 1)
        (columns, rows), kept, labels = shown.grid(size, images, images[:, 0, 0], None, ON_CPU, 4)
    assert columns <= size[0] and rows <= size[1] and len(kept) == columns * rows == len(labels)
    assert columns * rows <= 256 and (columns * rows) * count <= max(1.5e11, 16 * count)
    corner = images.reshape(size[1], size[0])[:rows, :columns]
    assert kept.ravel().tolist() == labels.ravel().tolist() == corner.ravel().tolist()
    torch.manual_seed(seed)
    drawn, after = shown.latents([len(kept), 3]), torch.randn(2)
    torch.manual_seed(seed)
    of_host, after_host = torch.randn([size[0] * size[1], 3]), torch.randn(2)
    assert torch.equal(drawn, of_host[kept.ravel()]) and torch.equal(after, after_host)


@pytest.mark.unit
def test_a_run_that_began_with_the_whole_grid_keeps_it_and_one_that_we_did_not_start_too(work, tmp_path, capsys):
    work(10**10)
    images = np.zeros([64, 1, 1, 1])
    assert Previews(session(tmp_path), kept=64).grid((8, 8), images, images, None, ON_CPU, 4)[0] == (8, 8)
    assert Previews().grid((8, 8), images, images, None, ON_CPU, 4)[0] == (8, 8)
    assert Previews(session(tmp_path), kept=16).grid((8, 8), images, images, None, ON_CPU, 4)[0] == (4, 4)


@pytest.mark.unit
def test_the_length_of_the_run_is_told_before_the_first_grid(work, tmp_path, capsys):
    work(1)
    images = np.zeros([4, 1, 1, 1])
    Previews(session(tmp_path, num_gpus=4), begun=1000).grid((2, 2), images, images, None, ON_CPU, 4)
    assert capsys.readouterr().out == "About 8 images/s: 16m 40s for 8 kimg. Methods, ADA and metrics add to it.\n"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (None, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 40, 50]),
        (7, [7, 14, 21, 28, 35, 42, 49]),
        (0, []),
    ],
)
def test_image_grids_come_by_time(minutes, expected, tmp_path, monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    shown = Previews(session(tmp_path), minutes=minutes, clock=lambda: now.seconds)
    drawn: list[float] = []
    monkeypatch.setattr(shown, "draw", lambda loop: drawn.append(now.seconds / 60))
    other = Previews(session(tmp_path, rank=1), minutes=minutes, clock=lambda: now.seconds)
    monkeypatch.setattr(other, "draw", lambda loop: pytest.fail("one process draws"))
    for second in range(0, 55 * 60, 5):
        now.seconds = float(second)
        for each in (shown, other):
            each.next_batch({"grid_z": [1]})
        shown.next_batch({"grid_z": None})  # a fork that has no grid
    assert drawn == expected


@pytest.mark.unit
def test_the_page_is_written_now_and_then_and_at_the_end_and_never_ends_a_run(tmp_path, monkeypatch, capsys):
    now = SimpleNamespace(seconds=0.0)
    written: list[float] = []
    monkeypatch.setattr(previews.page, "refresh", lambda run_dir: written.append(now.seconds))
    shown = Previews(session(tmp_path), clock=lambda: now.seconds)
    for second in range(40):
        now.seconds = float(second)
        shown.page()
    shown.page(end=True)
    assert written == [0, 15, 30, 39]
    Previews(session(tmp_path), pages=False).page(end=True)
    Previews(session(tmp_path, rank=1)).page(end=True)
    assert len(written) == 4

    def full(run_dir):
        raise DataError("report.html cannot be written (No space left on device).")

    monkeypatch.setattr(previews.page, "refresh", full)
    shown.page(end=True)
    assert "report.html was not written: report.html cannot be written (No space" in capsys.readouterr().out


@pytest.mark.unit
def test_the_last_tick_of_a_run_always_gets_its_page(tmp_path, monkeypatch):
    written: list[int] = []
    run = session(tmp_path, batch_idx=1, tick=lambda: None)
    shown = Previews(run, clock=lambda: 100.0)
    monkeypatch.setattr(previews.page, "refresh", lambda run_dir: written.append(run.nimg))
    checkpoints = Checkpoints(run, previews=shown)
    for run.nimg in (1000, 2000, 9000):
        checkpoints.tick(run.nimg // 1000, 9)
    assert written == [1000, 9000]


@pytest.mark.host
def test_on_real_networks_nothing_is_changed_and_the_grid_is_that_of_the_average(family, training_hosts, tmp_path):
    done = run_script(training_hosts[family], str(DRIVERS / "previews.py"), str(tmp_path))
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["changed"] == [] and found["random"] and not found["graphs"]
    assert 0 < found["seconds"] < 60
    assert found["work"] == sum(weights * side**2 for weights, side in found["convolutions"])
    expected = np.load(tmp_path / "expected.npy")
    values = np.clip(np.rint((expected + 1) * 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    rows = [np.concatenate(values[row : row + 2], axis=1) for row in (0, 2)]
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "fakes000003.png")), np.concatenate(rows))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("seconds", "steps"),
    [
        ([0.2] + [0.005] * 9, 5),  # the first step also prepares the others
        ([0.2] + [0.03] * 9, 3),
        ([0.2, 0.3, 0.3], 2),
        ([7.0, 1.0], 1),
    ],
)
def test_the_estimate_is_of_the_fastest_step_and_times_few_slow_ones(monkeypatch, seconds, steps):
    now, taken = [0.0], iter(seconds)

    def step():
        now[0] += next(taken)

    monkeypatch.setattr(previews.estimate, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert previews.estimate._timed(step, torch.device("cpu")) == pytest.approx(min(seconds[:steps]))
    assert len([*taken]) == len(seconds) - steps
