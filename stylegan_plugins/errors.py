"""Errors that a user can mend: one line that says what is wrong, with the value, and what to do."""

import importlib.util
import sys
from typing import NoReturn

import click


class UserError(click.ClickException, ValueError):
    """Something the user gave cannot be used. click prints the message alone and exits with code 2."""

    exit_code = 2


class OptionError(UserError):
    """An option has a value that cannot be used, or belongs to a plug-in that is not active."""


class PluginError(UserError):
    """A plug-in is unknown, conflicts with another, lacks one that it requires, or has a faulty hook."""


class HostError(UserError):
    """A directory is not a host, or a host cannot be fetched."""


class PatchError(HostError):
    """A host file cannot be patched or restored; nothing was written."""


class DataError(UserError):
    """A data set cannot be read by the host: a broken archive, a file that is no image, mixed or odd sizes."""


class StateError(UserError):
    """A run cannot go on: its state is missing, cannot be read or written, or the run is complete."""


class DamagedStateError(StateError):
    """A training state is not what was written, so that the one before it is the newest."""


class RunError(UserError):
    """A run ended by an error that is not of our making, or by values that are not finite."""


def fail(error: UserError) -> NoReturn:
    """Print one line and end with exit code 2."""
    click.echo(f"Error: {printable(str(error))}", err=True)
    sys.exit(2)


def printable(text: str) -> str:
    """Return text of others for a terminal, one line: control characters and lone surrogates are escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def require(package: str, extra: str = "analysis") -> None:
    """Raise DataError if a package of an extra is not installed."""
    if importlib.util.find_spec(package) is None:
        raise DataError(f"This needs {package}: pip install 'stylegan-plugins[{extra}]'.")
