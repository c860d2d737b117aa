"""Do the claims of benchmarks/claims.toml hold in runs of `stylegan-plugins compare`?

    python benchmarks/claims.py collect NAME FOLDER     # FOLDER/compare.json becomes results/NAME.json
    python benchmarks/claims.py probes NAME FOLDER...   # FOLDER/METHOD-.../probe-*.json become results/NAME.json
    python benchmarks/claims.py backbones FOLDER        # FOLDER/select-*.json becomes results/select.json
    python benchmarks/claims.py table                   # tables of all claims, probes and backbones

A claim holds if the figure of one side is better than that of the other by a one-sided t-test of Welch at 5%, does not
if it is worse by the same test, and cannot be told otherwise. The runs of both sides have the same seeds. With three
seeds a claim that cannot be told may well be true; and of twenty claims without any effect one would hold by chance."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
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


def probability(better: list[float], worse: list[float], higher: bool) -> float:
    """Return the p-value of the test that one side is better than the other.

    higher: more is better"""
    if not higher:
        better, worse = worse, better
    return float(scipy.stats.ttest_ind(better, worse, equal_var=False, alternative="greater").pvalue)


def verdict(better: list[float], worse: list[float], higher: bool) -> str:
    """Return whether one side is better than the other, with the p-value. Arguments as of `probability`."""
    p = probability(better, worse, higher)
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
        return ["fewer than 2", "", "", "not run"]
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
@click.argument("name")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
def probes(name: str, folders: Sequence[Path]) -> None:
    """Write results/NAME.json."""
    found = []
    for file in sorted(file for folder in folders for file in folder.glob("*/probe-*.json")):
        record = json.loads(file.read_text())
        rows = [
            row | {"question": "linear evaluation"} if record["task"] == "linear" else row for row in record["rows"]
        ]
        found.append({"method": file.parent.name.split("-")[0], "rows": rows})
    (HERE / "results" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def backbones(folder: Path) -> None:
    """Write results/select.json."""
    (file,) = folder.glob("select-*.json")
    (HERE / "results" / "select.json").write_text(json.dumps(json.loads(file.read_text())["rows"], indent=1) + "\n")


def probe_table(name: str, better: str, worse: str) -> str:
    """Return accuracies of linear probes of D, by question and layer: of two methods, and of an untrained D."""
    accuracies: dict[tuple[str, str, str], list[float]] = {}
    for probe in json.loads((HERE / "results" / f"{name}.json").read_text()):
        for row in probe["rows"]:
            for method, value in ((probe["method"], row["accuracy"]), ("untrained", row["untrained"])):
                if value is not None:
                    accuracies.setdefault((row["question"], row["layer"], method), []).append(value)
    rows = []
    for question, layer in dict.fromkeys(key[:2] for key in accuracies):
        sides = [accuracies[question, layer, method] for method in (better, worse)]
        untrained = accuracies.get((question, layer, "untrained"))
        start = f"{statistics.mean(untrained):.3g}" if untrained else ""
        rows.append([question, layer, *map(described, sides), start, verdict(*sides, higher=True)])
    return markdown.table(["predicted", "layer", better, worse, "untrained D", f"higher with {better}"], rows)


def backbone_table() -> str:
    """Return the accuracy that `select` measures for each backbone, and KID of the runs with it, on the features of
    three networks, with the p-value that it is lower than without one."""
    ranked = json.loads((HERE / "results" / "select.json").read_text())
    accuracies = {row["model"]: row["accuracy"] for row in ranked}
    names = [*sorted(accuracies, key=lambda name: -accuracies[name]), "none"]
    rows = [[name, f"{accuracies[name]:.3f}" if name in accuracies else ""] for name in names]
    for results in map(read, ("backbones", "backbones-lite1", "backbones-lite2")):
        kids: dict[str, list[float]] = {}
        for cell in results["cells"]:
            kids.setdefault(cell["varied"].get("vision-aided-models", "none"), []).append(cell["values"]["kid"])
        for name, row in zip(names, rows, strict=True):
            p = "" if name == "none" else f" (p = {probability(kids[name], kids['none'], higher=False):.2g})"
            row.append(described(kids[name]) + p)
    return markdown.table(["backbone", "accuracy of the probe", "KID, Lite0", "KID, Lite1", "KID, Lite2"], rows)


@main.command()
def table() -> None:
    """Print the tables."""
    rows = [
        [claim.text if figure == claim.figure[0] else "", NAMES.get(figure, figure), *judged(claim, figure)]
        for claim in claims()
        for figure in claim.figure
    ]
    click.echo(markdown.table(["claim", "figure", "seeds", "better, as claimed", "worse", "here"], rows))
    click.echo(f"\n{probe_table('omega', 'augself', 'diffaugment')}")
    click.echo(f"\n{probe_table('encoders', 'contrad', 'simclr')}")
    click.echo(f"\n{backbone_table()}")


if __name__ == "__main__":
    main()
