"""Commands of `stylegan-plugins` about runs and pickles: what D learned, metrics, pictures, comparisons, reports."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from stylegan_plugins.analysis import compare as comparing
from stylegan_plugins.analysis import evaluate as evaluating
from stylegan_plugins.analysis import pictures
from stylegan_plugins.analysis import probe as probing
from stylegan_plugins.analysis import sample as sampling
from stylegan_plugins.errors import tell
from stylegan_plugins.files import datasets, prepare, run_folders
from stylegan_plugins.host import devices, find
from stylegan_plugins.host.find import data_option, device_option, host_option, on_host
from stylegan_plugins.options import refuse_given
from stylegan_plugins.report import history, page
from stylegan_plugins.report import watch as watching
from stylegan_plugins.report.watch import SECONDS as WATCH

Directory = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
default_option = partial(click.option, show_default=True)
outdir_option = partial(click.option, "--outdir", type=Directory)
WITHOUT_IMAGES = "without images to look for nearest ones among"
to_stderr = partial(tell, err=True)
seeds_option = partial(default_option, "--seeds")
trunc_option = partial(default_option, "--trunc", type=click.FloatRange(min=0))
run_argument = click.argument("run_or_pkl", type=Directory)
label_option = click.option(
    "--class", "label", metavar="INT|NAME", help="The class, for labelled data: its number, or its name in the run"
)


@click.command()
@run_argument
@data_option(help="Images to probe with  [default: the run's own]")
@default_option(
    "--task",
    type=click.Choice(["auto", "classes", "omega"]),
    default="auto",
    help="What to predict: classes of dataset.json, or what an augmentation did; auto: classes if there are any",
)
@default_option("--max-images", type=click.IntRange(min=8), default=10000)
@outdir_option(help="Where plot and JSON go  [default: beside the pickle]")
@on_host
def probe(run_or_pkl: Path, **settings: Any) -> None:
    """Measure what the discriminator of RUN_OR_PKL has learned: a logistic regression on its frozen features."""
    tell(probing.run(run_folders.newest_pickle(run_or_pkl), device=devices.device(), **settings))


@click.command()
@run_argument
@data_option(help="Real images to compare with  [default: the run's own]")
@default_option("--metrics", default="fid,kid", metavar="NAME,...", help="Some of fid, kid, pr, is")
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
@click.option(
    "--plugins", required=True, metavar="A,B+C,...", help="Combinations, `none` among them: none,augself,disp+freezed"
)
@data_option(help="Images to train on and to compare with", required=True)
@click.option("--kimg", type=COUNT, required=True, help="Length of each run")
@default_option("--seeds", type=COUNT, default=1, help="Runs of each combination")
@default_option("--fraction", "fractions", default="1.0", metavar="F,...", help="Shares of the data, a column each")
@default_option("--metric", default="fid", help="What is compared, as in evaluate")
@default_option("--features", default="inception", metavar="NAME", help="As in evaluate")
@click.option("--samples", type=COUNT, help="Generated images, as in evaluate")
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=A,B,...",
    help="Values of an option of train.py or of a plug-in, as further rows; repeatable: all pairs of values",
)
@find.picture_options
@outdir_option(help="Where runs and the table go; what is there is not done again", required=True)
@host_option
@device_option(help="Of metrics")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def compare(host: Path | None, device: str, outdir: Path, arguments: tuple[str, ...], **settings: Any) -> None:
    """Train combinations of plug-ins in turn with the same budget, and make a table of them.

    ARGUMENTS after -- go to every train.py, options of plug-ins to the combinations that have them. After an
    interruption the same command continues where it was."""
    devices.choose(device)
    settings |= dict(more=arguments, pictures=prepare.How.take(settings), device=devices.device(), report=to_stderr)
    tell(comparing.run(find.choose_host(host), outdir, **settings))


def _load(
    run_or_pkl: Path, outdir: Path, seeds: str, label: str | None, fewest: int = 1
) -> tuple[list[int], int | None, Any, Any, Path]:
    """Return seeds, class, G_ema, its sampler and its pickle, after what can be checked before was checked."""
    datasets.check_output(outdir)
    folder = run_or_pkl if run_or_pkl.is_dir() else run_or_pkl.parent
    number = None if label is None else run_folders.class_number(folder, label)
    return sampling.seeds_of(seeds, fewest), number, *sampling.load_generator(run_or_pkl, devices.device())


@click.command()
@run_argument
@seeds_option(default="0-15", help="Numbers and ranges, as 0-15,20; one image each")
@trunc_option(default=1.0, help="Truncation psi")
@click.option("--like", type=Directory, metavar="IMAGE", help="Variants of a picture: of its high-level content")
@label_option
@outdir_option(help="Where the images go", required=True)
@on_host
def sample(run_or_pkl: Path, seeds: str, trunc: float, like: Path | None, label: str | None, outdir: Path) -> None:
    """Make images with the generator of RUN_OR_PKL, and a sheet of them. No data set is needed."""
    numbers, number, G, sampler, _ = _load(run_or_pkl, outdir, seeds, label)
    given = None if like is None else sampling.read_image(like, G)
    with click.progressbar(numbers, label="Images", file=sys.stderr) as bar:
        made = sampling.images(G, bar, sampler=sampler, truncation=trunc, like=given, label=number)
    outdir.mkdir(parents=True, exist_ok=True)
    for seed, image in zip(numbers, made, strict=True):
        sampling.picture_of(image).save(outdir / f"seed{seed:04d}.png")
    sampling.sheet(made).save(outdir / "sheet.png")
    tell(outdir / "sheet.png")


def pictures_options(command: Callable) -> Callable:
    """Add what `interpolate` and `sheet` share."""
    near = "What near means: pixels, l1, lpips, or a backbone, such as efficientnet_lite0, clip or dinov2"
    command = outdir_option(help="Where the pictures go", required=True)(on_host(command))
    command = label_option(command)
    command = default_option("--features", default="pixels", metavar="NAME", help=near)(command)
    command = data_option(help="Images to find nearest ones in  [default: the run's own]")(command)
    return run_argument(command)


@click.command()
@seeds_option(default="0-5", help="Numbers and ranges, as 0-5,20")
@default_option("--frames", type=COUNT, default=24, help="From one seed to the next")
@default_option("--columns", type=click.IntRange(min=2), default=12, help="Frames in the strip")
@trunc_option(default=1.0, help="Truncation psi")
@pictures_options
def interpolate(
    run_or_pkl: Path, outdir: Path, seeds: str, frames: int, columns: int, trunc: float, label: str | None, **near: str
) -> None:
    """Walk from seed to seed in w: a GIF, and a strip with the nearest training image under each frame.

    If frames jump from one training image to the next, the generator has memorised them."""
    numbers, number, G, sampler, pickle = _load(run_or_pkl, outdir, seeds, label, fewest=2)
    known = pictures.neighbours(pickle.parent, G, devices.device(), **near)
    if known is None:
        refuse_given("features", WITHOUT_IMAGES)
    ws = list(sampling.latents(G, numbers, sampler=sampler, truncation=trunc, label=number))
    for file in pictures.interpolation(G, ws, outdir, frames=frames, columns=columns, near=known):
        tell(file)


@click.command()
@seeds_option(default="0-63", help="Numbers and ranges, as 0-63; one sample each")
@trunc_option(default=0.7, help="psi of the second sheet")
@default_option("--pairs", type=COUNT, default=16, help="Samples on a ranked sheet")
@pictures_options
def sheet(run_or_pkl: Path, outdir: Path, seeds: str, trunc: float, pairs: int, label: str | None, **near: str) -> None:
    """Sample sheets: without truncation, with it, and, beside their nearest training images, the worst samples first.

    The worst are those farthest from any training image; sheet-nearest.png has those nearest to one."""
    numbers, number, G, sampler, pickle = _load(run_or_pkl, outdir, seeds, label)
    known = pictures.neighbours(pickle.parent, G, devices.device(), **near)
    if known is None:
        refuse_given("features", WITHOUT_IMAGES)
        refuse_given("pairs", WITHOUT_IMAGES)
    made = {
        name: sampling.images(G, numbers, sampler=sampler, truncation=psi, label=number)
        for name, psi in (("full", 1.0), (f"trunc{trunc:g}", trunc))
    }
    files, distances = pictures.sheets(made, outdir, near=known, pairs=pairs)
    for file in files:
        tell(file)
    if distances is not None:
        tell(
            f"Distance to the nearest training image, {near['features']}: median {np.median(distances):.4g}, "
            f"{distances.min():.4g} (seed {numbers[distances.argmin()]}) to "
            f"{distances.max():.4g} (seed {numbers[distances.argmax()]})."
        )


@click.command()
@run_argument
@default_option("--classes", type=COUNT, default=64, help="Number of drawn labels")
@default_option("--seed", type=click.IntRange(min=0), default=0, help="Class k is `sample` of SEED + k")
@click.option("--out", type=Directory, required=True, metavar="PKL")
@host_option
def export(run_or_pkl: Path, classes: int, seed: int, out: Path, host: Path | None) -> None:
    """Write a stock pickle for the host's generate.py: of a conditioned run, whose classes are drawn labels, or of
    networks of another program."""
    devices.choose("cpu")
    find.choose_host(host, run_or_pkl)
    sampling.export(run_or_pkl, out, classes, seed)
    tell(out)


class Watchable(click.Command):
    """A command whose `--watch` may have a value, after `=` alone: what comes after a plain one is a run."""

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


COMMANDS = (probe, evaluate, sample, compare, interpolate, sheet, export, report)
