"""A page that training writes at each tick, and `report --watch`: cheap, safe, and only what is new is read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reports import add_diagnostics, add_line, add_metric, command, make_run, statistic

from stylegan_plugins.analysis import trainings
from stylegan_plugins.errors import DataError, NotYetError
from stylegan_plugins.files import json_lines
from stylegan_plugins.report import history, page, thumbnails, watch
from stylegan_plugins.report.curves import Log

pytestmark = pytest.mark.unit
SECONDS = 0.5  # for a page of a run of 1000 ticks


def test_the_page_imports_no_vision_library_and_no_plotting():
    code = "import sys, stylegan_plugins.report.page, stylegan_plugins.report.watch\n"
    code += "print({name.split('.')[0] for name in sys.modules} & {'torchvision', 'timm', 'sklearn', 'matplotlib'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_page_of_1000_ticks_is_written_in_half_a_second_without_random_numbers(tmp_path):
    """The shortest of three, in CPU time: other processes share the cores. (Measured: 0.05 to 0.1 s.)"""
    folder = make_run(tmp_path / "run", ticks=1000, sheets=8, side=64)
    add_metric(folder, "fid50k_full", {kimg: 50.0 - kimg / 400 for kimg in range(0, 4000, 40)})
    add_diagnostics(folder, 1000)
    page.refresh(folder)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    taken = []
    for tick in range(3):
        add_line(folder, 4000.0 + tick, **{"Loss/G/loss": 1.0})
        begin = time.process_time()
        page.refresh(folder)
        taken.append(time.process_time() - begin)
    assert min(taken) < SECONDS, taken
    assert torch.equal(states[0], torch.get_rng_state()) and np.array_equal(states[1], np.random.get_state()[1])
    assert "4002 of 25000 kimg" in (folder / "report.html").read_text()


def test_only_new_lines_and_new_sheets_are_read(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", ticks=50, sheets=2, side=16)
    page.refresh(folder)
    parsed, opened = [], []
    parse, read = json_lines.parse, thumbnails.excerpt
    monkeypatch.setattr(json_lines, "parse", lambda text: parsed.append(text) or parse(text))
    monkeypatch.setattr(thumbnails, "excerpt", lambda *args: opened.append(args) or read(*args))
    add_line(folder, 999.0)
    page.refresh(folder)
    assert sum('"Progress/kimg"' in text for text in parsed) == 1 and opened == []
    assert "999 of 25000 kimg" in (folder / "report.html").read_text()


def test_a_page_that_cannot_be_written_is_a_data_error(tmp_path):
    with pytest.raises(NotYetError, match="after the first tick"):
        page.refresh(make_run(tmp_path / "young", ticks=0, sheets=0))
    folder = make_run(tmp_path / "run", sheets=0)
    (folder / "report.html").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        page.refresh(folder)
    with pytest.raises(DataError, match="is not a folder"):
        page.refresh(tmp_path / "none")


def test_the_page_loads_itself_anew_only_while_the_run_goes_on(tmp_path):
    folder = make_run(tmp_path / "run", ticks=5, sheets=0, total_kimg=20)
    page.refresh(folder)
    text = (folder / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="30">' in text and "16 of 20 kimg, 80%" in text
    assert re.search(r"written on \d{4}-\d\d-\d\d \d\d:\d\d", text)
    add_line(folder, 20.0)
    page.refresh(folder)
    text = (folder / "report.html").read_text()
    assert 'http-equiv="refresh"' not in text and "complete, 20 kimg" in text
    page.write([make_run(tmp_path / "sent", sheets=0)], tmp_path / "sent.html")  # nobody writes this one again
    assert 'http-equiv="refresh"' not in (tmp_path / "sent.html").read_text()


def test_time_left_is_that_of_the_last_ticks_and_unknown_after_the_first(tmp_path):
    folder = make_run(tmp_path / "run", ticks=0, sheets=0, total_kimg=100)
    add_line(folder, 1.0, **{"Timing/total_sec": 500.0})
    assert history.read(folder).seconds_left is None
    for tick in range(1, 21):  # 20 s a kimg; a resumed run begins to count at 0
        add_line(folder, 1.0 + tick, **{"Timing/total_sec": 500.0 + 20 * tick if tick < 15 else 20.0 * tick})
    assert history.read(folder).seconds_left == pytest.approx(79 * 20)
    assert "about 26 min left" in page.render([history.read(folder)])
    add_line(folder, 100.0, **{"Timing/total_sec": 5000.0})
    assert history.read(folder).seconds_left is None and history.read(folder).is_complete


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["line", "half", "rest", "cut", "nan", "back", "junk"]), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_reading_on_gives_what_reading_anew_gives(tmp_path_factory, steps, draw):
    """Whatever a run, a kill and a resume do to the file between two looks."""
    file = tmp_path_factory.mktemp("log") / "stats.jsonl"
    log, content, kimg, rest = Log(file), b"", 0.0, b""
    for step in steps:
        kimg = max(kimg + draw.uniform(0.1, 2) * (-1 if step == "back" else 1), 0.0)
        value = float("nan") if step == "nan" else draw.random()
        line = json.dumps({"Progress/kimg": statistic(kimg), "Loss/G/loss": statistic(value)}).encode() + b"\n"
        if step == "cut":
            content, rest = content[: draw.randrange(len(content) + 1)], b""
        elif step == "half":
            content, rest = content + line[:50], line[50:]
        else:
            content += {"rest": rest, "junk": b"junk\n"}.get(step, line)
            rest = b""
        file.write_bytes(content)
        log._seen = None  # as if times were exact: two of these writes may have one time and size
        log.read()
        new = Log(file)
        new.read()
        assert (log.table, log.notes, log.last_time) == (new.table, new.notes, new.last_time)


def test_watch_writes_when_files_change_tells_it_once_and_ends_when_all_is_complete(tmp_path, monkeypatch):
    folder, out, said, pages = (
        make_run(tmp_path / "runs/00000-a", ticks=0, sheets=0, total_kimg=3),
        tmp_path / "x",
        [],
        [],
    )
    save = page.save
    monkeypatch.setattr(page, "save", lambda *args, **kwargs: pages.append(kwargs["live"]) or save(*args, **kwargs))
    steps = iter(
        [lambda: None, lambda: add_line(folder, 1.0), lambda: None, lambda: None, lambda: add_line(folder, 3.0)]
    )
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: next(steps)())
    watch.watch([tmp_path / "runs"], out, False, said.append)
    assert pages == [True, False]  # at 1 and at 3 kimg
    assert len(said) == 3 and "can be read yet" in said[0] and "Ctrl-C" in said[1] and "complete" in said[2]
    assert "complete, 3 kimg" in out.read_text()


def test_watch_ends_with_ctrl_c_and_waits_for_further_runs_of_a_comparison(tmp_path, monkeypatch):
    assert (watch.CELL, watch.TABLE) == (trainings.CELL, "compare.json")
    cell = tmp_path / "cells" / "none-1-seed0"
    make_run(cell / "00000-a", sheets=0, total_kimg=16)
    (cell / "cell.json").write_text("{}")
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", sleep)
    done = command(tmp_path / "cells", "--watch", f"--out={tmp_path / 'x.html'}")
    assert done.exit_code == 0 and looks == [10, 10] and done.stdout.count("\n") == 1
    (tmp_path / "cells" / "compare.json").write_text("{}")
    done = command("--watch=0.5", tmp_path / "cells", f"--out={tmp_path / 'x.html'}")
    assert done.exit_code == 0 and len(looks) == 2 and "all 1 runs are complete" in done.stdout
    assert command(tmp_path / "cells", "--watch=never").exit_code == 2
