"""The line of progress: its text, and when and where it is printed."""

from __future__ import annotations

import io
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan_plugins.run.checkpoints import Checkpoints
from stylegan_plugins.run.progress import Progress, duration

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def run(progress, clock, iterations, batch=64, seconds=1.0, start=0):
    for index in range(iterations):
        clock.now += seconds
        progress.update(start + (index + 1) * batch)


def test_the_line_says_how_far_how_fast_and_how_long(clock):
    log = io.StringIO()
    progress = Progress(25, log, io.StringIO(), clock)
    run(progress, clock, 30)
    assert log.getvalue() == "progress: 1.9 of 25.0 kimg (7%)  64.0 images/s  6m 0s left\n"


def test_a_line_goes_to_the_log_twice_a_minute_and_at_the_end(clock):
    log = io.StringIO()
    run(Progress(12.8, log, io.StringIO(), clock), clock, 200)
    lines = log.getvalue().splitlines()
    assert len(lines) == 200 // 30 + 1
    assert lines[-1] == "progress: 12.8 of 12.8 kimg (100%)  64.0 images/s  0m 0s left"


def test_the_speed_is_that_of_the_last_iterations(clock):
    log = io.StringIO()
    progress = Progress(1000, log, io.StringIO(), clock)
    run(progress, clock, 100, seconds=10)
    run(progress, clock, Progress.WINDOW, seconds=2, start=6400)
    assert progress.line(6400 + 64 * Progress.WINDOW).split("  ")[1] == "32.0 images/s"


def test_a_run_that_goes_on_does_not_count_images_of_before_in_its_speed(clock):
    log = io.StringIO()
    run(Progress(1000, log, io.StringIO(), clock), clock, 30, start=900_000)
    assert "64.0 images/s" in log.getvalue()


def test_a_terminal_is_rewritten_in_place_twice_a_second_and_a_file_is_not(clock):
    for terminal in (Terminal(), io.StringIO()):
        run(Progress(1000, io.StringIO(), terminal, clock), clock, 20, seconds=0.25)
        shown = terminal.getvalue()
        assert shown.count("progress:") == (10 if terminal.isatty() else 0)
        assert "\n" not in shown


def test_the_first_iteration_has_no_speed_yet(clock):
    progress = Progress(1, io.StringIO(), io.StringIO(), clock)
    run(progress, clock, 1)
    assert progress.line(64) == "progress: 0.1 of 1.0 kimg (6%)"


def test_output_goes_where_standard_output_is_when_it_is_printed(clock, capsys):
    progress = Progress(0.064, terminal=io.StringIO(), clock=clock)
    run(progress, clock, 1)
    assert capsys.readouterr().out.startswith("progress: 0.1 of 0.1 kimg (100%)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0m 0s"), (59.9, "0m 59s"), (60, "1m 0s"), (3600, "1h 0m"), (86399, "23h 59m"), (200_000, "2d 7h")],
)
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000)), min_size=1, max_size=80), st.floats(0, 100))
def test_no_order_of_events_breaks_the_line(events, total):
    clock, shown = Clock(), 0
    progress = Progress(total, io.StringIO(), Terminal(), clock)
    for seconds, images in events:
        clock.now += seconds
        shown += images
        progress.update(shown)
        assert progress.line(shown).startswith("progress: ")


def test_it_is_said_once_that_ada_can_do_no_more(capsys):
    pipe = types.SimpleNamespace(p=torch.tensor(1.0))
    checkpoints = Checkpoints(types.SimpleNamespace(rank=0, nimg=12_000, augment_pipe=pipe))
    checkpoints._tell_p()
    assert capsys.readouterr().out == ""
    for p in (1.02, 1.04):
        pipe.p.fill_(p)
        checkpoints._tell_p()
    assert capsys.readouterr().out.count("p of ADA is 1.02 at 12 kimg: all images are augmented") == 1
