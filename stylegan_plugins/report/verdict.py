"""Conclusions about runs in words. Each sentence follows from a rule with a threshold.
docs/reference/report.md explains them.

Each sentence needs measured figures. A rule whose figures are missing, too few or in between says nothing: a page
without a sentence on memorising does not rule it out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylegan_plugins.report import charts
from stylegan_plugins.report.configurations import Configuration
from stylegan_plugins.report.curves import Table, number
from stylegan_plugins.report.history import is_higher_better

# A rule about memorising needs all of these: before, D and G change too fast.
LEAST_KIMG = 10  # kimg
LEAST_SHOWN = 50  # times that D was shown each training image
LEAST_HELD_OUT = 16  # images
IN_A_ROW = 3  # last measurements that must agree
TOLD_APART = 0.6  # least share of training images, and of samples, that D scores correctly; below, its scores are noise

OVER_FITS = 0.5  # r_v: D scores held-out images more like samples than like training images
FITS = 0.25  # r_v: D scores held-out images like training images
COPIES_KIMG = 200  # kimg: before, samples are blurred, and blurred images are near to all images
COPIES = 0.5  # distance of samples to the nearest training image, divided by that of held-out images
NO_COPIES = 0.8
FEWEST_SNAPSHOTS = 2  # measured snapshots, to name the best one
LATER = 3  # snapshots after the best one, all of them worse
WORSE = 1.1  # ratio to the best one, of a metric that is better when lower
LEAKS = 0.8  # ADA's p; above it, augmentations can get into the samples (Karras et al. 2020, arXiv:2006.06676)
FIRST = ("fid", "kid")  # metrics that decide, the first one measured; otherwise any, by name

GOOD, BAD, NEUTRAL = "good", "bad", "neutral"


@dataclass(frozen=True)
class Sentence:
    """A conclusion. kind: GOOD, BAD or NEUTRAL. about: name of its rule."""

    kind: str
    about: str
    text: str


def verdict(of: Configuration, main: Mapping[str, str]) -> list[Sentence]:
    """Return the conclusions from the figures of a configuration, the most urgent first.

    main: by figure, the key of the results that rank snapshots"""
    rules = (*_not_finite(of.stats), *_memorising(of), *_leaking(of), *_best(of, main))
    return sorted(rules, key=lambda sentence: sentence.kind != BAD)


def _not_finite(stats: Table) -> list[Sentence]:
    losses = {name: kimg for name, kimg in stats.not_finite.items() if name.startswith("Loss/")}
    if not losses:
        return []
    first = min(losses, key=lambda name: losses[name])
    text = f"Losses are not finite since {losses[first]:.6g} kimg ({first}): training after that is lost."
    return [Sentence(BAD, "finite", text)]


def _best(of: Configuration, main: Mapping[str, str]) -> list[Sentence]:
    """Return the best snapshot by one metric, and whether later ones are worse."""
    ranked = {
        name: [point for point in by_key[main[name]].points(name) if point[1] is not None]
        for name, by_key in of.metrics.items()
        if main.get(name) in by_key and is_higher_better(name) is not None
    }
    names = sorted((name for name in ranked if ranked[name]), key=lambda name: (_rank(name), name))
    if not names:
        return [] if of.kimg is None else [Sentence(NEUTRAL, "unmeasured", "No metric has been measured yet.")]
    name, points = names[0], [(kimg, value) for kimg, value in ranked[names[0]] if value is not None]
    if len(points) < FEWEST_SNAPSHOTS:
        kimg, value = points[0]
        text = f"{_figure(name, value)} at {kimg:.6g} kimg, the only snapshot that was measured."
        return [Sentence(NEUTRAL, "only", text)]
    sign = -1 if is_higher_better(name) else 1
    best = min(points, key=lambda point: sign * point[1])
    so_far = "" if of.is_complete else " so far"
    found = [Sentence(NEUTRAL, "best", f"Best{so_far}: {best[0]:.6g} kimg, {_figure(name, best[1])}.")]
    later = [value for kimg, value in points if kimg > best[0]]
    if len(later) >= LATER and best[1] > 0 and all(_is_worse(value, best[1], sign) for value in later[-LATER:]):
        text = f"Worse since: {_figure(name, later[-1])} at {points[-1][0]:.6g} kimg."
        found.append(Sentence(BAD, "worse", text))
    return found


def _rank(name: str) -> int:
    first = name.lower().split("_")[0]
    return next((index for index, start in enumerate(FIRST) if first.startswith(start)), len(FIRST))


def _is_worse(value: float, best: float, sign: int) -> bool:
    return value >= WORSE * best if sign > 0 else value <= best / WORSE


def _figure(name: str, value: float) -> str:
    """Return `FID 34.2 (fid_clean)`."""
    known = next((start.upper() for start in FIRST if name.lower().startswith(start)), None)
    return f"{name} {charts.written(value)}" if known is None else f"{known} {charts.written(value)} ({name})"


def _leaking(of: Configuration) -> list[Sentence]:
    """Return a warning if ADA's p is high. ADA is in use if its target is among the settings."""
    p = of.stats.last("Progress/augment")
    if p is None or p < LEAKS or number(of.settings.get("ada_target")) is None:
        return []
    text = f"ADA's p is {charts.written(p)}: above {LEAKS} its augmentations can get into the samples."
    return [Sentence(BAD, "p", text)]


def _memorising(of: Configuration) -> list[Sentence]:
    """Return whether D over-fits and G copies, from diagnostics.jsonl, or that there is no sign of either."""
    r_v, copies = _told_apart(of.diagnostics), _ratios(of.diagnostics)
    held_out = number(of.settings.get("plugins.options.diagnostics.holdout"))
    if not of.diagnostics.kimg or held_out is None or held_out < LEAST_HELD_OUT:
        return []
    images, kimg = number(of.settings.get("training_set_kwargs.max_size")) or 0.0, of.kimg or 0.0
    is_young = kimg < LEAST_KIMG or images <= 0 or 1000 * kimg / images < LEAST_SHOWN
    if is_young or max(len(r_v), len(copies)) < IN_A_ROW:
        return [Sentence(NEUTRAL, "early", "Too early to tell whether it memorises training images.")]
    copies = copies if kimg >= COPIES_KIMG else []
    found = []
    if over_fits := _streak(r_v, lambda value: value >= OVER_FITS):
        text = (
            f"D over-fits since {over_fits[0][0]:.6g} kimg: it scores held-out images more like samples than like "
            f"training images (r_v {charts.written(over_fits[-1][1])})."
        )
        found.append(Sentence(BAD, "over-fits", text))
    if near := _streak(copies, lambda value: value <= COPIES):
        text = (
            f"G copies training images since {near[0][0]:.6g} kimg: the distance from samples to the nearest of them "
            f"is {charts.written(near[-1][1])} times that from held-out images."
        )
        found.append(Sentence(BAD, "copies", text))
    far = _streak(copies, lambda value: value >= NO_COPIES)
    if (fits := _streak(r_v, lambda value: value <= FITS)) and (far or not copies):
        text = (
            f"No sign of memorising: D scores held-out images like training images (r_v {charts.written(fits[-1][1])})"
        )
        if far:
            ratio = charts.written(far[-1][1])
            text += f", and samples are not nearer to training images than held-out images are (ratio {ratio})"
        found.append(Sentence(GOOD, "fits", f"{text}."))
    return found


def _told_apart(table: Table) -> list[tuple[float, float]]:
    """Return (kimg, r_v) of the last measurements, without a gap, in which D tells training images from samples."""
    found: list[tuple[float, float]] = []
    for kimg, r_v, *right in _rows(table, "r_v", "accuracy/train", "accuracy/generated"):
        if r_v is None or any(share is None or share < TOLD_APART for share in right):
            found = []
        else:
            found.append((kimg, r_v))
    return found


def _ratios(table: Table) -> list[tuple[float, float]]:
    """Return (kimg, distance of samples divided by that of held-out images) of the last measurements without a gap."""
    found: list[tuple[float, float]] = []
    for kimg, samples, held_out in _rows(table, "nearest/samples", "nearest/held_out"):
        if samples is None or held_out is None or held_out <= 0:
            found = []
        else:
            found.append((kimg, samples / held_out))
    return found


def _rows(table: Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield each kimg with the values of statistics at it."""
    missing: list[float | None] = [None] * len(table.kimg)
    return zip(table.kimg, *(table.values.get(name, missing) for name in names), strict=True)


def _streak(points: Sequence[tuple[float, float]], holds: Callable[[float], bool]) -> list[tuple[float, float]]:
    """Return the longest series of last points whose values all satisfy `holds`; empty if shorter than IN_A_ROW."""
    found = list(itertools.takewhile(lambda point: holds(point[1]), reversed(points)))[::-1]
    return found if len(found) >= IN_A_ROW else []
