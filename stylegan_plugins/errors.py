"""Errors that a user can correct. The message is one line: the fault, the value, and a remedy."""

import importlib.util
import io
import sys
from typing import NoReturn

import click


class UserError(click.ClickException, ValueError):
    """An input of the user cannot be used. click prints the message alone and exits with code 2."""

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
    """A data set that the host cannot read: a broken archive, a file that is not an image, mixed or odd sizes."""


class NotYetError(DataError):
    """A run has not reached its first tick, so it has no results yet."""


class StateError(UserError):
    """A run cannot continue: its state is missing, cannot be read or written, or the run is complete."""


class DamagedStateError(StateError):
    """A training state differs from the state that was written, so that the one before it is the newest."""


class RunError(UserError):
    """A run ended with an error outside of this package, or with values that are not finite."""


def fail(error: UserError) -> NoReturn:
    """Print one line and end with exit code 2."""
    error.show()
    sys.exit(2)


def printable(text: object) -> str:
    """Return text that a terminal can show, with control characters and lone surrogates as escapes. A stranger may have
    put control characters into a name; no terminal takes lone surrogates."""
    shown = lambda c: c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii")
    return "".join(map(shown, str(text)))


def escape_unencodable() -> None:
    """Let standard output and standard error write characters that their encoding lacks as escapes, so that the name of
    a file cannot end a program. Another setting of the user stays, such as PYTHONIOENCODING=ascii:replace."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def tell(text: object, err: bool = False) -> None:
    """Print text that may contain names from a file."""
    click.echo(printable(text), err=err)


def require(package: str, extra: str = "analysis") -> None:
    """Raise DataError if a package of an extra is not installed."""
    if importlib.util.find_spec(package) is None:
        raise DataError(f"This needs {package}: pip install 'stylegan-plugins[{extra}]'.")
