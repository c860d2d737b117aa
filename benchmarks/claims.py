"""Do the claims of benchmarks/claims.toml hold in runs of `stylegan-plugins compare`?

    python benchmarks/claims.py collect NAME FOLDER     # FOLDER/compare.json becomes results/NAME.json
    python benchmarks/claims.py omega FOLDER            # likewise of `probe --task=omega`, results/omega.json
    python benchmarks/claims.py table                   # tables of all claims, and of omega

A claim holds if the figure of one side is better than that of the other by a one-sided t-test of Welch at 5%, does not
if it is worse by the same test, and cannot be told otherwise. The runs of both sides have the same seeds. With three
seeds a claim that cannot be told may well be true; and of twenty claims without any effect one would hold by chance."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import click
import msgspec
import scipy.stats

from stylegan_plugins.analysis import cells, markdown
from stylegan_plugins.files import run_folders

HERE = Path(__file__).parent
LEVEL = 0.05
NAMES = {"pr_precision": "precision", "pr_recall": "recall", "best_kid": "KID, best snapshot", "kid": "KID"}
OF_DIAGNOSTICS = {"r_v": False, "gap": False}  # figures of `diagnosed`, of which less is better


class Claim(msgspec.Struct, forbid_unknown_fields=True):
    """A claim of claims.toml."""

    text: str
    results: str
    figure: list[str]
    better: str
    worse: str
    against: str | None = None  # results of the worse side, if other ones


def claims() -> list[Claim]:
    """Return all claims."""
    return msgspec.toml.decode((HERE / "claims.toml").read_bytes(), type=dict[str, list[Claim]])["claim"]


def diagnosed(cell: Path) -> dict[str, float]:
    """Return figures of the last line of a run's diagnostics, if it has any.

    r_v: (D(train) - D(held out)) / (D(train) - D(generated)), as the plug-in measures it; gap: accuracy of D on
    training images above that on held-out ones"""
    file = run_folders.newest_run(cell) / "diagnostics.jsonl"
    if not file.exists():
        return {}
    last = json.loads(file.read_text().splitlines()[-1])
    figures = {"r_v": last["r_v"], "gap": last["accuracy"]["train"] - last["accuracy"]["held_out"]}
    return {name: value for name, value in figures.items() if value is not None}


def values(results: dict, side: str, figure: str) -> dict[int, float]:
    """Return a figure of the runs of a side, by seed."""
    text, _, share = side.rpartition(" @ ")
    plugins, own = cells.row_of(text)
    return {
        cell["seed"]: cell["values"][figure]
        for cell in results["cells"]
        if (cell["plugins"], cell["varied"], cell["fraction"]) == (plugins, dict(own), float(share))
        and figure in cell["values"]
    }


def higher_is_better(results: dict, figure: str) -> bool:
    """Tell of which end of a figure is better. Raises ValueError if neither is, or the figure was not measured."""
    known = {column["name"]: column["higher"] for column in results["metrics"]} | OF_DIAGNOSTICS
    if known.get(figure) is None:
        raise ValueError(f"{figure} has no better end, or was not measured")
    return known[figure]


def verdict(better: list[float], worse: list[float], higher: bool) -> str:
    """Return whether one side is better than the other, and the p-value of the test that it is.

    higher: more is better"""
    if not higher:
        better, worse = worse, better
    p = scipy.stats.ttest_ind(better, worse, equal_var=False, alternative="greater").pvalue
    told = "holds" if p < LEVEL else "does not" if p > 1 - LEVEL else "cannot be told"
    return f"{told} (p = {p:.2g})"


def described(figures: list[float]) -> str:
    """Return mean and deviation."""
    return f"{statistics.mean(figures):.3g} ± {statistics.stdev(figures):.2g}"


def read(name: str) -> dict:
    """Return results by name, without runs if there are none yet."""
    file = HERE / "results" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {"cells": []}


def sides_of(claim: Claim, figure: str) -> tuple[list[float], list[float], bool]:
    """Return a figure of the better and of the worse side, for the seeds that both have, and whether more is better.
    With fewer than two seeds there are no figures."""
    results, others = (read(name) for name in (claim.results, claim.against or claim.results))
    better, worse = values(results, claim.better, figure), values(others, claim.worse, figure)
    seeds = sorted(better.keys() & worse.keys())
    if len(seeds) < 2:
        return [], [], False
    return [better[seed] for seed in seeds], [worse[seed] for seed in seeds], higher_is_better(results, figure)


def judged(claim: Claim, figure: str) -> list[str]:
    """Return the cells of a claim's row: seeds, both sides, verdict."""
    better, worse, higher = sides_of(claim, figure)
    if not better:
        return ["0", "", "", "not run"]
    return [str(len(better)), described(better), described(worse), verdict(better, worse, higher)]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
def collect(name: str, folder: Path) -> None:
    """Write results/NAME.json."""
    results = json.loads((folder / "compare.json").read_text())
    if results["reference"] is None:
        click.echo("Note: figures are against the training images; a network that repeats them does well.", err=True)
    for cell in results["cells"]:
        cell["values"] |= diagnosed(folder / cell["folder"])
        if "resume" in cell["varied"]:
            cell["varied"]["resume"] = Path(cell["varied"]["resume"]).name
    for path in ("data", "reference"):
        results[path] = results[path] and Path(results[path]).name
    (HERE / "results" / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def omega(folder: Path) -> None:
    """Write results/omega.json of probes, FOLDER/METHOD-.../probe-*.json."""
    probes = sorted(folder.glob("*/probe-omega-*.json"))
    found = [
        {"method": file.parent.name.split("-")[0], "rows": json.loads(file.read_text())["rows"]} for file in probes
    ]
    (HERE / "results" / "omega.json").write_text(json.dumps(found, indent=1) + "\n")


def omega_table() -> str:
    """Return accuracies of predicting the augmentation from features of D, by method, and from an untrained D."""
    probes = json.loads((HERE / "results" / "omega.json").read_text())
    accuracies: dict[tuple[str, str, str], list[float]] = {}
    for probe in probes:
        for row in probe["rows"]:
            accuracies.setdefault((row["question"], row["layer"], probe["method"]), []).append(row["accuracy"])
            accuracies.setdefault((row["question"], row["layer"], "untrained"), []).append(row["untrained"])
    rows = []
    for question, layer in dict.fromkeys(key[:2] for key in accuracies):
        better, worse, untrained = (
            accuracies[question, layer, side] for side in ("augself", "diffaugment", "untrained")
        )
        told = verdict(better, worse, higher=True)
        rows.append([question, layer, described(better), described(worse), f"{statistics.mean(untrained):.3g}", told])
    return markdown.table(["predicted", "layer", "augself", "diffaugment", "untrained D", "higher with augself"], rows)


@main.command()
def table() -> None:
    """Print the tables."""
    rows = [
        [claim.text if figure == claim.figure[0] else "", NAMES.get(figure, figure), *judged(claim, figure)]
        for claim in claims()
        for figure in claim.figure
    ]
    click.echo(markdown.table(["claim", "figure", "seeds", "better, as claimed", "worse", "here"], rows))
    click.echo(f"\n{omega_table()}")


if __name__ == "__main__":
    main()
