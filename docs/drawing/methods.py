"""The flow of an iteration with the plug-ins at their places: docs/pictures/methods.svg."""

from __future__ import annotations

from dataclasses import dataclass

from drawing.places import FAMILIES, START, family, places
from drawing.svg import FAINT, INK, RULE, WIDTH, Box, Drawing, Style, text_width

STYLES = [
    Style("#ffe6c7", "#c96a00", "#6b3800", 11),
    Style("#d8e6ff", "#2f6bd6", "#12367a", 11),
    Style("#d5f3df", "#1c8549", "#0b4727", 11),
    Style("#eaddff", "#7746c9", "#3f1f80", 11),
    Style("#ffdade", "#c8344f", "#741126", 11),
    Style("#e7eaee", "#66727f", "#313b45", 11),
]
COLORS = dict(zip(FAMILIES, STYLES, strict=True))
HOST = Style("#f0f2f4", "#8894a0")
GENERATED, REAL, JOINED = 34, 58, 46  # x of the lines of generated and real images, and of their joint line
NAMES, CHIPS = 84, 318  # where text and plug-ins begin
TOP = 112.0  # of the first stop
CHIP, SIZE = 24, 12.5  # the height of a plug-in's name, and the size of its letters


@dataclass(frozen=True)
class Stop:
    """A place in the flow.

    title  the step
    code   parts and hooks of plug-ins, as they are written
    on     lines of images that it lies on
    keys   places as drawing.places names them; none: a step of the host"""

    title: str
    on: tuple[int, ...]
    code: str = ""
    keys: tuple[str, ...] = ()


IMAGES, D = (GENERATED, REAL), (JOINED,)
STOPS = [
    Stop("options of the run", D, "configure", (START,)),
    Stop("labels of all images", IMAGES, "register_labels", ("register_labels",)),
    Stop("latents that belong to images", (GENERATED,), "paired_latents", ("paired_latents",)),
    Stop("a network in front of G", (GENERATED,), "register_generator_module", ("register_generator_module",)),
    Stop("G", (GENERATED,)),
    Stop("other images, shown as real", (REAL,), "real_images", ("real_images",)),
    Stop("ADA", IMAGES),
    Stop("augmentation of all D sees", IMAGES, "Augmentation", ("Augmentation", "brings diffaugment")),
    Stop("further images for a term", IMAGES, "View", ("View",)),
    Stop("D", D),
    Stop("other logits than D's, or none", D, "Critic", ("Critic",)),
    Stop("module trained with D or G", D, "Head", ("Head",)),
    Stop("term of D's loss", D, "Term", ("Term D",)),
    Stop("term of D's loss, with R1", D, "Term, when='reg'", ("Term D reg",)),
    Stop("term of G's loss", D, "Term", ("Term G",)),
    Stop("weight of images for G", D, "sample_weights", ("sample_weights",)),
    Stop("weights that learn", D, "trains", ("trains",)),
    Stop("backward, optimisers", D),
    Stop("average of a module", D, "Average", ("Average",)),
    Stop("measuring and logging", D, "statistics, tick", ("statistics", "tick")),
    Stop("sampling, after training", D, "register_sampler, _temperature", ("register_sampler", "register_temperature")),
]


def methods() -> str:
    """Return the picture. Raises ValueError for a place that no stop has."""
    found = places()
    if missing := set(found) - {key for stop in STOPS for key in stop.keys}:
        raise ValueError(f"no place in docs/drawing/methods.py for {', '.join(sorted(missing))}")
    names = "; ".join(f"{stop.title}: {', '.join(_plugins(stop, found))}" for stop in STOPS if stop.keys)
    drawing = Drawing("Where each method sits in an iteration", names)
    drawing.text((24, 38), "Where each method sits in an iteration", 20, bold=True)
    x = 24.0
    for name in FAMILIES:
        x = _chip(drawing, x, 54, name, COLORS[name]) + 8
    drawing.text((24, 102), "Left line: generated images. Right line: real images. They meet in D.", 12.5, FAINT)
    y, middles = TOP, {}
    for stop in STOPS:
        height = _height(stop, found)
        middles[stop.title] = y + height / 2
        y += height
    _lines(drawing, middles)
    for stop in STOPS:
        _stop(drawing, stop, middles[stop.title], found)
    notes = (
        "A plug-in stands at each place where it has a part or a hook. Dashed: it brings diffaugment. Gray: steps of",
        "the host. Not shown: attached, observe, step_end, batch_end, snapshot, commands and features that it offers.",
    )
    for index, note in enumerate(notes):
        drawing.text((24, y + 22 + 17 * index), note, 12.5, FAINT)
    return drawing.svg(y + 54)


def _plugins(stop: Stop, found: dict[str, list[str]]) -> list[str]:
    return [plugin for key in stop.keys for plugin in found.get(key, ())]


def _rows(stop: Stop, found: dict[str, list[str]]) -> list[list[str]]:
    """Return the plug-ins of a stop in rows that fit."""
    rows: list[list[str]] = []
    x = float(WIDTH)
    for plugin in _plugins(stop, found):
        width = _chip_width(plugin) + 6
        if x + width > WIDTH - 18:
            rows.append([])
            x = CHIPS
        rows[-1].append(plugin)
        x += width
    return rows


def _height(stop: Stop, found: dict[str, list[str]]) -> float:
    return max(46, len(_rows(stop, found)) * (CHIP + 6) + 12) if stop.keys else 34


def _chip_width(text: str) -> float:
    return text_width(text, SIZE) + 14


def _chip(drawing: Drawing, x: float, y: float, text: str, style: Style, dash: str = "") -> float:
    """Draw a name on a colored ground, and return its right end."""
    width = _chip_width(text)
    drawing.rect(Box(x, y, width, CHIP), style, dash)
    drawing.text((x + width / 2, y + 16.5), text, SIZE, style.ink, anchor="middle")
    return x + width


def _lines(drawing: Drawing, y: dict[str, float]) -> None:
    """Draw the lines of generated and real images, which part at the start and join at D."""
    start, end = y[STOPS[0].title], y["D"]
    for x in IMAGES:
        drawing.path([(JOINED, start), (x, start + 18), (x, end - 16), (JOINED, end)], FAINT, 3)
    drawing.path([(JOINED, end), (JOINED, y[STOPS[-1].title])], FAINT, 3)


def _stop(drawing: Drawing, stop: Stop, middle: float, found: dict[str, list[str]]) -> None:
    """Draw a stop: its mark on the lines, its name, and its plug-ins."""
    if stop is not STOPS[0]:
        top = middle - _height(stop, found) / 2
        drawing.path([(NAMES, top), (WIDTH - 16, top)], RULE, 1)
    first, last = min(stop.on) - 7, max(stop.on) + 7
    ground = Style("#ffffff" if stop.keys else "#8894a0", INK if stop.keys else "#6b7783", radius=7)
    drawing.rect(Box(first, middle - 7, last - first, 14), ground, line_width=2)
    if stop.keys:
        drawing.text((NAMES, middle - 4), stop.title, 13, bold=True)
        drawing.text((NAMES, middle + 13), stop.code, 12, FAINT, mono=True)
    else:
        drawing.text((NAMES, middle + 4.5), stop.title, 13, FAINT)
    rows = _rows(stop, found)
    brought = [plugin for key in stop.keys if key.startswith("brings ") for plugin in found.get(key, ())]
    for index, row in enumerate(rows):
        x = float(CHIPS)
        for plugin in row:
            top = middle - (len(rows) * (CHIP + 6) - 6) / 2 + index * (CHIP + 6)
            x = _chip(drawing, x, top, plugin, COLORS[family(plugin)], "3 3" if plugin in brought else "") + 6
