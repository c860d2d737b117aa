"""Previews of a run while it trains: image grids by time, beside the grids at the host's ticks, small enough to take
seconds, and the page of the run. They draw no random numbers."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_plugins.errors import UserError
from stylegan_plugins.host.modules import host_module
from stylegan_plugins.report import page
from stylegan_plugins.run import estimate
from stylegan_plugins.run.progress import duration
from stylegan_plugins.run.session import Session

EARLY_MINUTES, MINUTES, EARLY = 2.0, 10.0, 30.0  # between two grids in the first EARLY minutes, and later
PAGE_SECONDS = 15.0  # between two versions of the page, at least
MOST_IMAGES, LEAST_IMAGES = 256, 16  # images of a grid that is drawn on a CPU
WORK = 1.5e11  # multiplications of such a grid: some seconds on two cores


@dataclass(eq=False)
class Previews:
    """The image grids and the page of a run, on its first process.

    minutes   between two image grids; 0: only the host's grids; None: EARLY_MINUTES at first, MINUTES later
    pages     keep report.html in the run directory up to date
    kept      images in the grid of the resumed run; 0 for a new run
    begun     images that the run has seen before it is resumed
    clock     seconds, for tests"""

    session: Session | None = None
    minutes: float | None = None
    pages: bool = True
    kept: int = 0
    begun: int = 0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._begin = self._drawn = self.clock()
        self._paged = -math.inf
        self._latents: tuple[int, list[int]] | None = None  # size of the host's grid, and places of the drawn images

    # --- Before training. ---

    def grid(self, size: tuple[int, int], images: Any, labels: Any, G_ema: Any, D: Any, batch_gpu: int) -> Any:
        """Return size (columns, rows), real images [N, C, H, W] and labels [N, ...] of the run's image grid, and print
        how long the run takes, about.

        On a CPU the grid is the upper left part of the host's."""
        if self.session is None:
            return size, images, labels
        speed = self.session.num_gpus / estimate.seconds_per_image(G_ema, D, batch_gpu)
        left = self.session.total_nimg - self.begun
        length = f"{duration(left / speed)} for {left / 1000:g} kimg"
        print(f"About {speed:.3g} images/s: {length}. Methods, ADA and metrics add to it.", flush=True)
        columns, rows = size
        if next(D.parameters()).device.type != "cpu" or self.kept == columns * rows:
            return size, images, labels
        most = min(max(WORK // max(estimate.multiplications(G_ema), 1), LEAST_IMAGES), MOST_IMAGES)
        side = math.isqrt(int(most))
        size = (min(columns, side), min(rows, side))
        places = [row * columns + column for row in range(size[1]) for column in range(size[0])]
        self._latents = columns * rows, places
        return size, images[places], labels[places]

    def latents(self, shape: Any, **how: Any) -> torch.Tensor:
        """Draw latents [N, z_dim] of the image grid: a part of the host's latents, so that the size of the grid does
        not change random numbers of training."""
        if self._latents is None:
            return torch.randn(shape, **how)
        count, places = self._latents
        return torch.randn([count, *shape[1:]], **how)[places]

    # --- While it goes on. ---

    def next_batch(self, loop: Mapping[str, Any]) -> None:
        """Draw an image grid if it is time. loop: the local variables of the host's loop, between two iterations."""
        if self.session is None or self.session.rank != 0:
            return
        now = self.clock()
        early = now - self._begin <= EARLY * 60 + 1
        minutes = (EARLY_MINUTES if early else MINUTES) if self.minutes is None else self.minutes
        if minutes and now - self._drawn >= minutes * 60 and loop.get("grid_z") is not None:
            self.draw(loop)
            self._drawn = self.clock()

    def draw(self, loop: Mapping[str, Any]) -> None:
        """Write the current image grid, under the host's file name."""
        assert self.session is not None
        save = getattr(host_module("training.training_loop"), "save_image_grid", None)
        if save is None or loop.get("grid_size") is None:  # a fork may have another grid
            return
        G, parts = self.session.G_ema, zip(loop["grid_z"], loop["grid_c"], strict=True)
        with torch.no_grad():
            images = torch.cat([G(z=z, c=c, noise_mode="const").cpu() for z, c in parts]).numpy()
        file = self.session.run_dir / f"fakes{loop['cur_nimg'] // 1000:06d}.png"
        save(images, os.fspath(file), drange=[-1, 1], grid_size=loop["grid_size"])
        self.page()

    def page(self, end: bool = False) -> None:
        """Write report.html of the run if the last version is old enough, or at the end of training (`end`)."""
        if self.session is None or not self.pages or self.session.rank != 0:
            return
        if end or self.clock() - self._paged >= PAGE_SECONDS:
            self._paged = self.clock()
            try:
                page.refresh(self.session.run_dir)
            except UserError as error:
                print(f"report.html was not written: {error}", flush=True)
