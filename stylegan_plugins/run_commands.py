"""Commands of `stylegan-plugins` about runs and pickles: what D learned, metrics, pictures, comparisons, reports."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from stylegan_plugins import devices, runs

Directory = click.Path(path_type=Path)
host_option = click.option("--host", type=Directory, help="The host  [default: $STYLEGAN_HOST, or the current folder]")
device_option = click.option("--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True)


@click.command()
@click.argument("run_or_pkl", type=Directory)
@click.option("--data", required=True, metavar="ZIP|DIR|NAME|URL", help="Images to probe with, as for train.py")
@click.option(
    "--task",
    type=click.Choice(["auto", "classes", "omega"]),
    default="auto",
    show_default=True,
    help="What to predict: classes of dataset.json, or what an augmentation did; auto: classes if there are any",
)
@click.option("--max-images", type=click.IntRange(min=8), default=10000, show_default=True)
@click.option("--outdir", type=Directory, help="Where plot and JSON go  [default: beside the pickle]")
@host_option
@device_option
def probe(
    run_or_pkl: Path, data: str, task: str, max_images: int, outdir: Path | None, host: Path | None, device: str
) -> None:
    """Measure what the discriminator of RUN_OR_PKL has learned: a logistic regression on its frozen features."""
    from stylegan_plugins import probe as probing

    devices.choose(device)
    runs.choose_host(host)
    click.echo(probing.run(runs.newest_pickle(run_or_pkl), data, task, outdir, max_images, devices.device()))


@click.command()
@click.argument("run_or_pkl", type=Directory)
@click.option("--data", required=True, metavar="ZIP|DIR|NAME|URL", help="Real images to compare with, as for train.py")
@click.option("--metrics", default="fid,kid", show_default=True, metavar="NAME,...", help="Some of fid, kid, pr, is")
@click.option(
    "--features",
    default="inception",
    show_default=True,
    metavar="NAME",
    help="inception, clip, dinov2, efficientnet_lite0, any backbone of `select`, or BACKBONE=FILE of weights",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="INT",
    help="Generated images  [default: 5000 for less than 5000 real ones, 50000 for more]",
)
@click.option("--max-images", type=click.IntRange(min=1), metavar="INT", help="Real images at most  [default: all]")
@click.option("--all", "every", is_flag=True, help="All snapshots of a run, not the newest alone")
@click.option("--outdir", type=Directory, help="Where results go  [default: beside the pickle]")
@host_option
@device_option
def evaluate(
    run_or_pkl: Path, data: str, max_images: int | None, host: Path | None, device: str, **settings: Any
) -> None:
    """Compare images of RUN_OR_PKL with real ones: FID, KID, precision and recall, Inception Score."""
    from stylegan_plugins import evaluation

    devices.choose(device)
    runs.choose_host(host)
    report = lambda line: click.echo(line, err=True)
    click.echo(evaluation.run(run_or_pkl, data, most=max_images, device=devices.device(), report=report, **settings))


@click.command()
@click.argument("run_or_pkl", type=Directory)
@click.option("--seeds", default="0-15", show_default=True, help="Numbers and ranges, as 0-15,20; one image each")
@click.option("--trunc", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Truncation psi")
@click.option("--like", type=Directory, metavar="IMAGE", help="Variants of a picture: of its high-level content")
@click.option("--class", "label", type=click.IntRange(min=0), metavar="INT", help="The class, for labelled data")
@click.option("--outdir", type=Directory, required=True, help="Where the images go")
@host_option
@device_option
def sample(
    run_or_pkl: Path,
    seeds: str,
    trunc: float,
    like: Path | None,
    label: int | None,
    outdir: Path,
    host: Path | None,
    device: str,
) -> None:
    """Make images with the generator of RUN_OR_PKL, and a sheet of them. No data set is needed."""
    from stylegan_plugins import datacheck, sampling

    devices.choose(device)
    datacheck.check_output(outdir)
    numbers = sampling.seeds_of(seeds)
    runs.choose_host(host)
    G, sampler, _ = sampling.load_generator(run_or_pkl, devices.device())
    given = None if like is None else sampling.read_image(like, G)
    with click.progressbar(numbers, label="Images", file=sys.stderr) as bar:
        made = sampling.images(G, bar, sampler=sampler, truncation=trunc, like=given, label=label)
    outdir.mkdir(parents=True, exist_ok=True)
    for seed, image in zip(numbers, made, strict=True):
        sampling.picture_of(image).save(outdir / f"seed{seed:04d}.png")
    sampling.sheet(made).save(outdir / "sheet.png")
    click.echo(outdir / "sheet.png")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--plugins", required=True, metavar="A,B+C,...", help="Combinations, `none` among them: none,augself,disp+freezed"
)
@click.option("--data", required=True, metavar="ZIP|DIR|NAME|URL", help="Images to train on and to compare with")
@click.option("--kimg", type=click.IntRange(min=1), required=True, help="Length of each run")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each combination")
@click.option("--fraction", default="1.0", show_default=True, metavar="F,...", help="Shares of the data, a column each")
@click.option("--metric", default="fid", show_default=True, help="What is compared, as in evaluate")
@click.option("--features", default="inception", show_default=True, metavar="NAME", help="As in evaluate")
@click.option("--samples", type=click.IntRange(min=1), help="Generated images, as in evaluate")
@click.option(
    "--outdir", type=Directory, required=True, help="Where runs and the table go; what is there is not done again"
)
@host_option
@click.option("--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True, help="Of metrics")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def compare(
    plugins: str,
    data: str,
    kimg: int,
    seeds: int,
    fraction: str,
    metric: str,
    features: str,
    samples: int | None,
    outdir: Path,
    host: Path | None,
    device: str,
    arguments: tuple[str, ...],
) -> None:
    """Train combinations of plug-ins in turn with the same budget, and make a table of them.

    ARGUMENTS after -- go to every train.py, options of plug-ins to the combinations that have them. Interrupted, the
    same command goes on where it was."""
    from stylegan_plugins import comparing

    devices.choose(device)
    chosen = runs.choose_host(host)
    report = lambda line: click.echo(line, err=True)
    click.echo(
        comparing.run(
            chosen,
            outdir,
            plugins=plugins,
            data=data,
            kimg=kimg,
            seeds=seeds,
            fractions=fraction,
            metric=metric,
            features=features,
            samples=samples,
            more=arguments,
            device=devices.device(),
            report=report,
        )
    )


def pictures_options(command: Callable) -> Callable:
    """What `interpolate` and `sheet` share."""
    shared = (
        click.argument("run_or_pkl", type=Directory),
        click.option(
            "--data", metavar="ZIP|DIR|NAME|URL", help="Images to find nearest ones in  [default: the run's own]"
        ),
        click.option(
            "--features",
            default="pixels",
            show_default=True,
            metavar="NAME",
            help="What near means: pixels, or a backbone, such as efficientnet_lite0, clip or dinov2",
        ),
        click.option(
            "--class", "label", type=click.IntRange(min=0), metavar="INT", help="The class, for labelled data"
        ),
        click.option("--outdir", type=Directory, required=True, help="Where the pictures go"),
        host_option,
        device_option,
    )
    for option in reversed(shared):
        command = option(command)
    return command


@click.command()
@click.option("--seeds", default="0-5", show_default=True, help="Numbers and ranges, as 0-5,20")
@click.option("--frames", type=click.IntRange(min=1), default=24, show_default=True, help="From one seed to the next")
@click.option("--columns", type=click.IntRange(min=2), default=12, show_default=True, help="Frames in the strip")
@click.option("--trunc", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Truncation psi")
@pictures_options
def interpolate(
    run_or_pkl: Path,
    seeds: str,
    frames: int,
    columns: int,
    trunc: float,
    data: str | None,
    features: str,
    label: int | None,
    outdir: Path,
    host: Path | None,
    device: str,
) -> None:
    """Walk from seed to seed in w: a GIF, and a strip with the nearest training image under each frame.

    If frames jump from one training image to the next, the generator has learned them by heart."""
    from stylegan_plugins import datacheck, pictures, sampling

    devices.choose(device)
    datacheck.check_output(outdir)
    numbers = pictures.seeds_for(seeds, 2)
    runs.choose_host(host)
    G, sampler, pickle = sampling.load_generator(run_or_pkl, devices.device())
    ws = list(sampling.latents(G, numbers, sampler=sampler, truncation=trunc, label=label))
    near = pictures.neighbours(pickle.parent, data, features, G, devices.device())
    for file in pictures.interpolation(G, ws, outdir, frames=frames, columns=columns, near=near):
        click.echo(file)


@click.command()
@click.option("--seeds", default="0-63", show_default=True, help="Numbers and ranges, as 0-63; one sample each")
@click.option("--trunc", type=click.FloatRange(min=0), default=0.7, show_default=True, help="psi of the second sheet")
@click.option("--pairs", type=click.IntRange(min=1), default=16, show_default=True, help="Samples on a ranked sheet")
@pictures_options
def sheet(
    run_or_pkl: Path,
    seeds: str,
    trunc: float,
    pairs: int,
    data: str | None,
    features: str,
    label: int | None,
    outdir: Path,
    host: Path | None,
    device: str,
) -> None:
    """Sample sheets: without truncation, with it, and, beside their nearest training images, the worst samples first.

    The worst are those farthest from any training image; sheet-nearest.png has those nearest to one."""
    from stylegan_plugins import datacheck, pictures, sampling

    devices.choose(device)
    datacheck.check_output(outdir)
    numbers = pictures.seeds_for(seeds, 1)
    runs.choose_host(host)
    G, sampler, pickle = sampling.load_generator(run_or_pkl, devices.device())
    made = {
        name: sampling.images(G, numbers, sampler=sampler, truncation=psi, label=label)
        for name, psi in (("full", 1.0), (f"trunc{trunc:g}", trunc))
    }
    near = pictures.neighbours(pickle.parent, data, features, G, devices.device())
    files, distances = pictures.sheets(made, outdir, near=near, pairs=pairs)
    for file in files:
        click.echo(file)
    if distances is not None:
        click.echo(
            f"Distance to the nearest training image, {features}: median {np.median(distances):.4g}, "
            f"{distances.min():.4g} (seed {numbers[distances.argmin()]}) to "
            f"{distances.max():.4g} (seed {numbers[distances.argmax()]})."
        )


@click.command()
@click.argument("run_or_pkl", type=Directory)
@click.option("--classes", type=click.IntRange(min=1), default=64, show_default=True, help="Number of drawn labels")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Class k is `sample` of SEED + k"
)
@click.option("--out", type=Directory, required=True, metavar="PKL")
@host_option
def export(run_or_pkl: Path, classes: int, seed: int, out: Path, host: Path | None) -> None:
    """Write a stock pickle of a conditioned run, whose classes are drawn labels, for the host's generate.py."""
    from stylegan_plugins import sampling

    devices.choose("cpu")
    runs.choose_host(host)
    sampling.export(run_or_pkl, out, classes, seed)
    click.echo(out)


@click.command()
@click.argument("runs_", metavar="RUN...", nargs=-1, required=True, type=Directory)
@click.option("--out", type=Directory, default=Path("report.html"), show_default=True, metavar="HTML")
@click.option(
    "--host", type=Directory, help="The host, to make newest samples and an interpolation with  [default: none]"
)
@click.option("--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True, help="With --host")
def report(runs_: tuple[Path, ...], out: Path, host: Path | None, device: str) -> None:
    """Write one HTML file about the run directories: settings, curves, samples, metrics, several runs side by side.

    It loads nothing from elsewhere and can be sent to others. Runs may still be going on."""
    from stylegan_plugins import report as reporting

    devices.choose(device)
    size = reporting.write(runs_, out, host)
    click.echo(f"{out} ({size / 1e6:.1f} MB)")


COMMANDS = (probe, evaluate, sample, compare, interpolate, sheet, export, report)
