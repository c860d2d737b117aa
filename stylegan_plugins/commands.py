"""Commands of `stylegan-plugins` about runs and pickles: probes of D, metrics, comparisons, reports and advice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from stylegan_plugins.analysis import cluster
from stylegan_plugins.analysis import compare as comparing
from stylegan_plugins.analysis import evaluate as evaluating
from stylegan_plugins.analysis import probe as probing
from stylegan_plugins.analysis import recipe as recipes
from stylegan_plugins.drawing_commands import (
    COUNT,
    Directory,
    default_option,
    explore,
    export,
    interpolate,
    outdir_option,
    run_argument,
    sample,
    sheet,
    to_stderr,
)
from stylegan_plugins.errors import tell
from stylegan_plugins.files import prepare, run_folders
from stylegan_plugins.host import devices, find
from stylegan_plugins.host.find import data_option, device_option, host_option, on_host
from stylegan_plugins.options import refuse_given
from stylegan_plugins.report import history, page
from stylegan_plugins.report import watch as watching
from stylegan_plugins.report.watch import SECONDS as WATCH
from stylegan_plugins.run import advise as advising
from training_ext.linear_evaluation import Protocol


@click.command()
@run_argument
@data_option(help="Images to probe with  [default: the run's own]")
@default_option(
    "--task",
    type=click.Choice(["auto", "classes", "omega"]),
    default="auto",
    help="Target: classes of dataset.json, or what an augmentation did; auto: classes if there are any",
)
@default_option(
    "--protocol",
    type=click.Choice(["logistic", "linear"]),
    default="logistic",
    help="Logistic regressions on all layers, or ContraD's linear evaluation of the last convolution, by SGD",
)
@default_option("--epochs", type=COUNT, default=Protocol.epochs, help="Of --protocol=linear")
@default_option("--runs", type=COUNT, default=3, help="Classifiers of --protocol=linear")
@click.option(
    "--test-data", metavar="ZIP|DIR|NAME|URL", help="Test images of --protocol=linear  [default: a quarter of --data]"
)
@default_option("--max-images", type=click.IntRange(min=8), default=10000)
@outdir_option(help="Where plot and JSON go  [default: beside the pickle]")
@on_host
def probe(run_or_pkl: Path, protocol: str, epochs: int, **settings: Any) -> None:
    """Measure what the discriminator of RUN_OR_PKL has learned: a logistic regression on its frozen features, or a
    linear evaluation."""
    linear = protocol == "linear"
    for name in ("epochs", "runs", "test_data"):
        if not linear:
            refuse_given(name, "without --protocol=linear")
    if linear:
        refuse_given("task", "with --protocol=linear, which predicts classes")
        settings["linear"] = Protocol(epochs)
    tell(probing.run(run_folders.newest_pickle(run_or_pkl), device=devices.device(), **settings))


@click.command()
@run_argument
@data_option(help="Real images to compare with  [default: the run's own]")
@default_option(
    "--metrics", default="fid,kid", metavar="NAME,...", help="Some of fid, kid, pr, is, distinct, distance, variety"
)
@default_option(
    "--features",
    default="inception",
    metavar="NAME",
    help="inception, clip, dinov2, efficientnet_lite0, any backbone of `select`, or BACKBONE=FILE of weights",
)
@click.option(
    "--samples",
    type=COUNT,
    metavar="INT",
    help="Generated images  [default: 5000 for less than 5000 real ones, 50000 for more]",
)
@click.option("--max-images", "most", type=COUNT, metavar="INT", help="Real images at most  [default: all]")
@click.option("--all", "every", is_flag=True, help="All snapshots of a run, not the newest alone")
@outdir_option(help="Where results go  [default: beside the pickle]")
@on_host
def evaluate(run_or_pkl: Path, data: str | None, **settings: Any) -> None:
    """Compare images of RUN_OR_PKL with real ones: FID, KID, precision and recall, Inception Score."""
    tell(evaluating.run(run_or_pkl, data, device=devices.device(), report=to_stderr, **settings))


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--plugins", metavar="A,B+C,...", help="Combinations, `none` among them: none,augself,disp+freezed")
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="'A+B --NAME=VALUE ...'",
    help="A further combination, with options of train.py for it alone; repeatable",
)
@click.option("--recipe", metavar="NAME|FILE", help="A table of a paper; `stylegan-plugins recipes` lists them")
@default_option(
    "--scale",
    type=click.Choice(recipes.SCALES),
    default="published",
    help="Settings of --recipe: the published ones, or what a CPU does in hours",
)
@data_option(help="Images to train on")
@click.option(
    "--reference", metavar="ZIP|DIR|NAME|URL", help="Images to compare with, held out  [default: all of --data]"
)
@click.option("--kimg", type=COUNT, help="Length of each run")
@click.option("--seeds", type=COUNT, help="Runs of each combination  [default: 1]")
@click.option(
    "--fraction",
    "fractions",
    metavar="F,...",
    help="Shares of the data, or numbers of images, a column each  [default: 1.0]",
)
@click.option(
    "--metric",
    metavar="NAME,...",
    help="Metrics, as in evaluate; pr_recall and others alone, best_kid of the best snapshot  [default: fid]",
)
@click.option("--features", metavar="NAME", help="As in evaluate  [default: inception]")
@click.option("--samples", type=COUNT, help="Generated images, as in evaluate")
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=A,B,...",
    help="Values of an option of train.py or of a plug-in, as further rows; repeatable: all pairs of values",
)
@find.picture_options
@outdir_option(help="Folder of runs and table; finished runs in it are used again", required=True)
@click.option(
    "--jobs",
    type=COUNT,
    help="Runs at once: one on each GPU, or for each core  [default: 1; all with --executor=slurm]",
)
@click.option(
    "--executor",
    type=click.Choice(list(cluster.DEFAULTS)),
    help="Job system for the runs: Slurm, or this machine  [default: none, they are processes of this command]",
)
@click.option(
    "--executor-option",
    "executor_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of submitit, such as timeout_min=240 or slurm_partition=gpu; repeatable",
)
@click.option("--dry-run", is_flag=True, help="Show the commands and an estimate of the time, and train nothing")
@host_option
@device_option(help="Of metrics")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def compare(**settings: Any) -> None:
    """Train combinations of plug-ins in turn with the same budget, and make a table of them.

    ARGUMENTS after -- go to every train.py, options of plug-ins to the combinations that have them. After an
    interruption the same command continues where it was. With --recipe, options that are given win over its own."""
    tell(compared(**settings))


def compared(
    host: Path | None,
    device: str,
    outdir: Path,
    arguments: tuple[str, ...],
    recipe: str | None,
    scale: Literal["published", "small"],
    **settings: Any,
) -> str:
    """Return the table of `compare`, with the parameters of that command. A recipe with several data sets gives one
    table after the other."""
    settings |= dict(more=arguments, pictures=prepare.How.take(settings), report=to_stderr)
    tables = list(recipes.tables_of(recipe, scale, settings))
    devices.choose(device)
    chosen = find.choose_host(host)
    return "\n\n".join(
        comparing.run(chosen, outdir / folder, device=devices.device(), **these) for folder, these in tables
    )


@click.command("recipes")
def list_recipes() -> None:
    """List the tables of papers that `compare --recipe` makes."""
    for line in recipes.listed():
        tell(line)


class Watchable(click.Command):
    """A command whose `--watch` takes a value only after `=`. A word after `--watch` alone is a run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"--watch={WATCH:g}" if arg == "--watch" else arg for arg in args])


@click.command(cls=Watchable)
@click.argument("runs_", metavar="RUN...", nargs=-1, required=True, type=Directory)
@default_option("--out", type=Directory, default=Path("report.html"), metavar="HTML")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1, max=86400),
    metavar="[=SECONDS]",
    help=f"Write the page again while the runs go on, if they have changed after so many seconds  [{WATCH:g}]",
)
@click.option("--generate", is_flag=True, help="Add newest samples and an interpolation, made with the host")
@host_option
@device_option(help="With --generate")
def report(
    runs_: tuple[Path, ...], out: Path, watch: float | None, generate: bool, host: Path | None, device: str
) -> None:
    """Write one HTML file about runs: a verdict, settings, curves, samples, metrics, several runs side by side.

    RUN is a run directory, or a folder of runs: an --outdir of train.py or of compare. Runs that differ in their seed
    alone are shown as one, with mean and deviation. The page loads nothing from elsewhere and can be sent to others.
    Runs may still be going on."""
    if generate:
        devices.choose(device)
        find.choose_host(host, next(iter(history.runs_in(runs_[0])), runs_[0]))
    else:
        refuse_given("host", "without --generate, as nothing is generated")
        refuse_given("device", "without --generate, as nothing is generated")
    if watch is not None:
        watching.watch(runs_, out, generate, tell, watch)
        return
    size = page.write(runs_, out, with_generator=generate)
    tell(f"{out} ({size / 1e6:.1f} MB)")


@click.command()
@data_option(help="Pictures to train on", required=True)
@click.option("--resume", metavar="PKL|URL|NAME", help="Network to start from, as for train.py")
@click.option("--fixed", is_flag=True, help="Pictures may not be mirrored, moved or recolored, as medical images")
@host_option
@device_option(help="Where training is to run")
def advise(**settings: Any) -> None:
    """Print the train.py command to start with for pictures, a pickle and this machine, with reasons and figures.

    Looks at number, size, color and classes of the pictures and at the networks in the pickle, in which nothing is
    executed. The command is tried with --dry-run; nothing is trained."""
    tell(advised(**settings))


def advised(host: Path | None, device: str, **settings: Any) -> advising.Advice:
    """Return the advice of `advise`, with the parameters of that command."""
    devices.choose(device)
    return advising.run(device=device, host=find.choose_host(host), **settings)


COMMANDS = (advise, probe, evaluate, sample, compare, list_recipes, interpolate, sheet, export, explore, report)
