"""`stylegan-plugins report --watch`: write the page again when files of its runs change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stylegan_plugins.errors import NotYetError
from stylegan_plugins.report import history, page
from stylegan_plugins.report.history import Run

SECONDS = 10.0  # between two looks at the files
CELL, TABLE = "cell.json", "compare.json"  # of `compare`: in each run's folder, and when all runs are done


def watch(
    paths: Sequence[Path], out: Path, with_generator: bool, report: Callable[[str], None], seconds: float = SECONDS
) -> None:
    """Write the page, and again when files of its runs change, until all runs are complete or Ctrl-C is pressed. Wait
    for runs without a tick.

    seconds     time between two looks at the files
    report      called with a line at the beginning and at the end

    Raises DataError or OptionError like `page.write`."""
    known: dict[Path, history.Folder] = {}
    shown: tuple[list[Run], list[str]] | None = None
    waits = False
    try:
        while True:
            try:
                found = page.read(paths, known)
            except NotYetError as error:
                if not waits:
                    report(f"{error.message} The page is written then. Ctrl-C ends this.")
                waits = True
                time.sleep(seconds)
                continue
            runs, notes = found
            is_new = shown is None or notes != shown[1] or [*map(id, runs)] != [*map(id, shown[0])]
            is_over = not notes and all(run.is_complete for run in runs) and not any(map(goes_on, paths))
            if is_new:
                page.save(runs, notes, out, with_generator, live=not is_over)
            if is_over:
                report(f"{out}: all {len(runs)} runs are complete.")
                return
            if shown is None:
                report(f"{out} is written again while its runs continue, until they are complete. Ctrl-C ends this.")
            shown = found
            time.sleep(seconds)
    except KeyboardInterrupt:
        return


def goes_on(folder: Path) -> bool:
    """Return whether a folder belongs to a `compare` without a table yet: more runs will come."""
    return any(folder.glob(f"*/{CELL}")) and not (folder / TABLE).exists()
