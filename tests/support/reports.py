"""Made-up runs for reports, and pages that were written, as a parser sees them."""

from __future__ import annotations

import base64
import html.parser
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
from click.testing import CliRunner

from stylegan_plugins.cli import cli
from stylegan_plugins.report import history, page

NAMES = [
    *["Loss/scores/fake", "Loss/signs/fake", "Loss/G/loss", "Loss/pl_penalty", "Loss/G/reg", "Loss/scores/real"],
    *["Loss/signs/real", "Loss/D/loss", "Loss/r1_penalty", "Loss/D/reg", "Progress/tick", "Progress/augment"],
    *["Timing/total_sec", "Timing/sec_per_tick", "Timing/sec_per_kimg", "Resources/cpu_mem_gb"],
    *["Method/error/color/real", "Method/error/color/generated", "Method/share"],
]


def statistic(mean: float, num: int = 16) -> dict:
    """Return a statistic as the host writes it."""
    return {"num": num, "mean": mean, "std": 0.5}


def line_of(kimg: float, random: np.random.RandomState) -> dict:
    values = {name: statistic(float(value)) for name, value in zip(NAMES, random.randn(len(NAMES)))}
    return {**values, "Progress/kimg": statistic(kimg), "timestamp": 1795313915.9}


def make_run(folder: Path, ticks: int = 5, sheets: int = 2, side: int = 32, **options) -> Path:
    """Write a run directory in the host's formats, of made-up values."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(len(folder.name))
    with open(folder / "stats.jsonl", "w") as file:
        for tick in range(ticks):
            file.write(json.dumps(line_of(tick * 4.0, random)) + "\n")
    known = {"total_kimg": 25000, "batch_size": 16, "training_set_kwargs": {"resolution": side, "max_size": 100}}
    plugins = {"active": ["method"], "options": {"method": {"weight": 1.0}}}
    (folder / "training_options.json").write_text(json.dumps({**known, "plugins": plugins, **options}))
    for index in range(sheets):  # noise: nothing is larger when it is compressed
        noise = PIL.Image.fromarray(random.randint(256, size=(5 * side, 9 * side, 3)).astype(np.uint8))
        noise.save(folder / f"fakes{index * 200:06d}.png", compress_level=0)
    return folder


def add_metric(folder: Path, name: str, values: dict[int, float], metric: str = "fid50k_full") -> None:
    with open(folder / f"metric-{metric}.jsonl", "a") as file:
        for kimg, value in values.items():
            snapshot = f"network-snapshot-{kimg:06d}.pkl"
            file.write(json.dumps({"results": {name: value}, "metric": metric, "snapshot_pkl": snapshot}) + "\n")


def add_diagnostics(folder: Path, ticks: int) -> None:
    with open(folder / "diagnostics.jsonl", "w") as file:
        for tick in range(ticks):
            three = {"train": 0.1 * tick, "held_out": -0.1 * tick, "generated": -1.0}
            nearest = {"samples": None if tick == 0 else 0.5 + tick, "held_out": 0.7}
            line = {"kimg": tick * 4.0, "scores": three, "r_t": 0.1 * tick, "r_v": None, "accuracy": three}
            file.write(json.dumps({**line, "nearest": nearest}) + "\n")


def add_line(folder: Path, kimg: float, **values: float) -> None:
    """Append a tick to stats.jsonl."""
    line = {"Progress/kimg": statistic(kimg), **{name: statistic(value) for name, value in values.items()}}
    with open(folder / "stats.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def command(*args: object):
    return CliRunner().invoke(cli, ["report", *map(str, args)])


class Page(html.parser.HTMLParser):
    """Tags, their attributes, and text of a page."""

    VOID = frozenset(["meta", "img", "br", "input", "wbr", "path", "circle"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def decoded(image: dict[str, str]) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))


def page_of(*folders: Path) -> Page:
    """Return the page of run directories."""
    return Page(page.render([history.read(folder) for folder in folders]))
