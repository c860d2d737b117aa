"""Errors that a user can mend: one line that says what is wrong, with the value, and what to do."""

import importlib.util
import io
import sys
from typing import NoReturn

import click


class UserError(click.ClickException, ValueError):
    """Something the user gave cannot be used. click prints the message alone and exits with code 2."""

    exit_code = 2

    def format_message(self) -> str:
        """Return the message as a terminal shows it, in one line."""
        return printable(self.message).replace("\n", "\\n")


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


class NotYetError(DataError):
    """Nothing is known about a run yet: there is something after its first tick."""


class StateError(UserError):
    """A run cannot go on: its state is missing, cannot be read or written, or the run is complete."""


class DamagedStateError(StateError):
    """A training state is not what was written, so that the one before it is the newest."""


class RunError(UserError):
    """A run ended by an error that is not of our making, or by values that are not finite."""


def fail(error: UserError) -> NoReturn:
    """Print one line and end with exit code 2."""
    error.show()
    sys.exit(2)


def printable(text: object) -> str:
    """Return text whose lines a terminal shows as they are: control characters, which a stranger may have put into a
    name, and half characters, which no terminal takes, are written as escapes."""
    shown = lambda c: c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii")
    return "".join(map(shown, str(text)))


def escape_unencodable() -> None:
    """Let standard output and standard error write what their encoding lacks as escapes, so that no name of a file ends
    a program. What the user has set otherwise, as with PYTHONIOENCODING=ascii:replace, stays."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def tell(text: object, err: bool = False) -> None:
    """Print text that may have names from a file in it."""
    click.echo(printable(text), err=err)


def require(package: str, extra: str = "analysis") -> None:
    """Raise DataError if a package of an extra is not installed."""
    if importlib.util.find_spec(package) is None:
        raise DataError(f"This needs {package}: pip install 'stylegan-plugins[{extra}]'.")
