"""Weights & Biases (wandb.ai): statistics, results of metrics, image grids and settings of a run. Training itself stays
as it is."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_plugins import CountsWith, DataError, Session, hookimpl, option
from stylegan_plugins.errors import require
from stylegan_plugins.files import run_folders
from stylegan_plugins.report.news import News

PAPER = "none: it logs what training writes, see https://docs.wandb.ai"
SAMPLES = "samples"
MODES = ("online", "offline", "disabled")
LOGS = CountsWith("mode", lambda mode: mode != "disabled", "offline")


@dataclass(frozen=True)
class WandbOptions:
    project: str = option("stylegan-plugins", "project that the run belongs to", metavar="NAME", counts=(LOGS,))
    mode: str = option("online", "offline: into the run directory, for `wandb sync`; disabled: nowhere", choices=MODES)
    name: str | None = option(None, "name of the run, none = that of its directory", metavar="NAME", counts=(LOGS,))


OPTIONS = WandbOptions


@hookimpl
def configure(args: Any, options: WandbOptions) -> WandbOptions:
    """Raise an error for a missing package or setting before the run begins."""
    require("wandb", "wandb")
    import wandb

    if options.mode == "online":
        try:
            why = "" if wandb.login(prompt=False) else "there is no key"
        except wandb.Error as error:
            why = " ".join(str(error).split())
        if why:
            raise DataError(
                f"--wandb-mode=online: Weights & Biases cannot be reached with a key of yours ({why}). Run "
                "'wandb login', or give --wandb-mode=offline."
            )
    return options


@hookimpl
def setup(session: Session, options: WandbOptions) -> Method:
    return Method(session, options)


class Method:
    """A run of Weights & Biases, which a resumed run continues. It begins at the first tick, when the state is
    known."""

    def __init__(self, session: Session, options: WandbOptions) -> None:
        require("wandb", "wandb")
        self.session, self.options = session, options
        self.id: str | None = None  # of the run on wandb.ai, once it has begun
        self.news = News(session.run_dir)
        self.run: Any = None

    @hookimpl
    def tick(self, nimg: int) -> None:
        """Log new values and images. An error of Weights & Biases ends the logging, but not the run."""
        if self.session.rank != 0 or self.options.mode == "disabled" or self.run is False:
            return
        import wandb

        found = self.news.at(nimg)
        try:
            self.run = self.run or self._begin(wandb)
            with tempfile.TemporaryDirectory() as folder:  # wandb's own folder is missing in a forked process
                images = {}
                if SAMPLES in found.images:  # not the training images: they stay on this machine
                    found.images[SAMPLES].save(file := Path(folder, "samples.png"))
                    images[SAMPLES] = wandb.Image(str(file))
                self.run.log({"kimg": nimg / 1000, **found.figures, **images})
            if nimg >= self.session.total_nimg:
                self.run.finish()
        except (wandb.Error, OSError) as error:  # OSError: a full disk, which training handles itself
            print(f"wandb: {' '.join(str(error).split())} Nothing more is logged there; the run goes on.", flush=True)
            self.run = False

    def _begin(self, wandb: Any) -> Any:
        # From the system's random numbers: training's stay as they were, and runs with the same seed get other ids.
        self.id = self.id or secrets.token_hex(4)
        run = wandb.init(
            project=self.options.project,
            name=self.options.name or self.session.run_dir.name,
            id=self.id,
            dir=self.session.run_dir,
            mode=self.options.mode,
            resume="allow" if self.options.mode == "online" else None,
            config=run_folders.read_options(self.session.run_dir),
            settings=wandb.Settings(console="off", silent=True),  # log.txt has the output
        )
        run.define_metric("kimg")
        run.define_metric("*", step_metric="kimg")  # not the number of the call: a resumed run repeats some of them
        return run

    def state_dict(self) -> dict[str, Any]:
        return {"id": self.id, **self.news.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.id = state["id"]
        self.news.load_state_dict(state)
