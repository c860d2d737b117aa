"""New files and lines in a run directory at a tick, for programs that show runs: statistics, results, image grids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from stylegan_plugins.errors import DataError
from stylegan_plugins.files.datasets import BROKEN
from stylegan_plugins.report import thumbnails
from stylegan_plugins.report.history import Folder


@dataclass(frozen=True)
class Tick:
    """The news of a tick.

    figures     means of statistics by name, and results of metrics as `Metrics/NAME`, as the hosts name them for
                TensorBoard
    images      grids of up to 8x4 images by name: `samples`, and once `photographs`"""

    figures: dict[str, float]
    images: dict[str, PIL.Image.Image]


class News:
    """The news of a run, from its files. Unreadable grids are left out."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = Folder(run_dir)
        self.kimg = -1  # kimg of the last tick, an integer as in the names of the host's files

    def state_dict(self) -> dict[str, Any]:
        return {"kimg": self.kimg}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kimg = state["kimg"]

    def at(self, nimg: int) -> Tick:
        """Return the news since the last call. nimg: real images shown so far."""
        last, self.kimg = self.kimg, nimg // 1000
        try:
            run = self._folder.read()
        except DataError:  # a host that writes no statistics
            return Tick({}, {})
        figures = {name: values[-1] for name, values in run.stats.values.items() if values}
        for line in run.results:
            if last < line["kimg"] <= self.kimg:
                figures |= {f"Metrics/{name}": value for name, value in line["results"].items()}
        images = {}
        # None is the sheet from before training.
        files = {"samples": [file for kimg, file in run.sheets if last < (kimg or 0) <= self.kimg]}
        if last < 0 and run.photographs is not None:
            files["photographs"] = [run.photographs]
        for name, found in files.items():
            for file in found[-1:]:
                try:
                    images[name] = thumbnails.opened(file, thumbnails.side_in(run))[0]
                except BROKEN:
                    continue
        return Tick({name: value for name, value in figures.items() if isinstance(value, int | float)}, images)
