"""Do the claims of benchmarks/claims.toml hold in runs of `stylegan-plugins compare --recipe=...`?

    python benchmarks/claims.py collect RECIPE FOLDER     # compare.json of a recipe becomes results/RECIPE.json
    python benchmarks/claims.py table                     # a table of all claims whose runs are in results/

A claim holds if the figure of one side is better than that of the other by a one-sided t-test of Welch at 5%, does not
if it is worse by the same test, and cannot be told otherwise. The runs of both sides have the same seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import click
import msgspec
import scipy.stats

from stylegan_plugins.analysis import cells, markdown

HERE = Path(__file__).parent
LEVEL = 0.05
LESS_IS_BETTER = ("kid", "best_kid", "r_v", "gap")


class Claim(msgspec.Struct, forbid_unknown_fields=True):
    """A claim of claims.toml."""

    text: str
    recipe: str
    figure: str | list[str]
    better: str
    worse: str


def claims() -> list[Claim]:
    """Return all claims."""
    return msgspec.toml.decode((HERE / "claims.toml").read_bytes(), type=dict[str, list[Claim]])["claim"]


def diagnosed(run: Path) -> dict[str, float]:
    """Return figures of the last line of a run's diagnostics, if it has any.

    r_v: (D(train) - D(held out)) / (D(train) - D(generated)), as the plug-in measures it; gap: accuracy of D on
    training images above that on held-out ones"""
    files = list(run.glob("0*/diagnostics.jsonl"))
    if not files:
        return {}
    last = json.loads(files[-1].read_text().splitlines()[-1])
    return {"r_v": last["r_v"], "gap": last["accuracy"]["train"] - last["accuracy"]["held_out"]}


def values(recipe: str, side: str, figure: str) -> list[float]:
    """Return a figure of the runs of a side by seed; nothing if they are not all there."""
    file = HERE / "results" / f"{recipe}.json"
    if not file.exists():
        return []
    text, _, share = side.rpartition(" @ ")
    plugins, own = cells.row_of(text)
    found = {
        cell["seed"]: cell["values"][figure]
        for cell in json.loads(file.read_text())["cells"]
        if (cell["plugins"], cell["varied"], cell["fraction"]) == (plugins, dict(own), float(share))
    }
    return [found[seed] for seed in sorted(found)]


def verdict(better: list[float], worse: list[float], figure: str) -> str:
    """Return whether one side is better than the other."""
    if figure in LESS_IS_BETTER:
        better, worse = worse, better
    greater = scipy.stats.ttest_ind(better, worse, equal_var=False, alternative="greater").pvalue
    return "holds" if greater < LEVEL else "does not" if greater > 1 - LEVEL else "cannot be told"


def described(figures: list[float]) -> str:
    """Return mean and deviation."""
    return f"{statistics.mean(figures):.3g} ± {statistics.stdev(figures):.2g}"


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.argument("recipe")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--runs", type=click.Path(path_type=Path), help="Where the runs are  [default: FOLDER]")
def collect(recipe: str, folder: Path, runs: Path | None) -> None:
    found = json.loads((folder / "compare.json").read_text())
    for cell in found["cells"]:
        cell["values"] |= diagnosed((runs or folder) / cell["folder"])
    (HERE / "results" / f"{recipe}.json").write_text(json.dumps(found, indent=1) + "\n")


@main.command()
def table() -> None:
    rows = []
    for claim in claims():
        for figure in [claim.figure] if isinstance(claim.figure, str) else claim.figure:
            one, other = (values(claim.recipe, side, figure) for side in (claim.better, claim.worse))
            if len(one) > 1 and len(other) > 1:
                sides = [described(one), described(other)]
                rows.append([claim.text, claim.recipe, figure, *sides, verdict(one, other, figure)])
    click.echo(markdown.table(["claim", "recipe", "figure", "better, as claimed", "worse", "here"], rows))


if __name__ == "__main__":
    main()
