"""Image grids for TensorBoard. The hosts write statistics and results of metrics as event files themselves. Training
itself stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from stylegan_plugins import Session, hookimpl
from stylegan_plugins.errors import require
from stylegan_plugins.report.news import News

PAPER = "none: it logs what training writes, see https://www.tensorflow.org/tensorboard"
FOLDER = "images"  # in the run directory: TensorBoard reads one event file of a folder at a time


@hookimpl
def configure(args: Any) -> None:
    """Raise an error for a missing package before the run begins."""
    require("tensorboard", "tensorboard")


@hookimpl
def setup(session: Session) -> Method:
    return Method(session)


class Method:
    """The event file, which begins at the first tick, when the state of a resumed run is known."""

    def __init__(self, session: Session) -> None:
        require("tensorboard", "tensorboard")
        self.session = session
        self.news = News(session.run_dir)
        self.writer: Any = None

    @hookimpl
    def tick(self, nimg: int) -> None:
        if self.session.rank != 0:
            return
        begin, kimg = self.news.kimg + 1, nimg // 1000
        images = self.news.at(nimg).images
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # A resumed run replaces the images that it makes again.
            self.writer = SummaryWriter(str(self.session.run_dir / FOLDER), purge_step=begin)
        for name, image in images.items():
            pixels = np.asarray(image.convert("RGB"))
            self.writer.add_image(name, pixels, global_step=kimg, dataformats="HWC")
        self.writer.flush()
        if nimg >= self.session.total_nimg:
            self.writer.close()

    def state_dict(self) -> dict[str, Any]:
        return self.news.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.news.load_state_dict(state)
