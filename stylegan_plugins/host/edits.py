"""Edits of host files as data: a place in a file, and new code. patcher.py applies them."""

from __future__ import annotations

from dataclasses import dataclass

# --- Anchors: which node of a file an edit is about. ---------------------------------------------------------------


@dataclass(frozen=True)
class Anchor:
    """A kind of node, with the `name` to look for; `words` describes it in messages."""

    name: str = ""
    words = "{}"

    def __str__(self) -> str:
        return self.words.format(self.name).rstrip()


@dataclass(frozen=True)
class Call(Anchor):
    """A call by the dotted name of the function (`torch.device`), or by a method's name alone (`.pin_memory`).

    `containing`: only calls whose arguments contain this source text, in any style of blanks and quotes.
    `assigned_to`: only calls in the value of an assignment to this target."""

    containing: str = ""
    assigned_to: str = ""

    def __str__(self) -> str:
        return f"the call {self.name}({'...' + self.containing + '...' if self.containing else '...'})"


class Assignment(Anchor):
    """An assignment by its target, as written: `stats_collector`."""

    words = "an assignment to {}"


class Increment(Anchor):
    """A `+=` by its target."""

    words = "{} += ..."


class Deletion(Anchor):
    """A `del` statement by its target."""

    words = "del {}"


class Imports(Anchor):
    """The place in front of a file's first import."""

    words = "an import"


class Command(Anchor):
    """A function that is a click command: decorated with `@click.command()` or `@group.command()`. With a `name`, only
    the function of that name."""

    words = "a click command {}"


# --- Edits. --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """One change of one host file. Exactly one of `before`, `after`, `replace`, `argument`, `decorate` is given.

    before, after   insert `code` as a statement there
    replace         put the expression `code` in place of a call; {function}, {receiver}, {arguments} and {argument}
                    stand for the function, the object of a method, all arguments, and the first argument
    argument        give the call the keyword argument `code` ("name=value"), in place of one of that name
    decorate        put the decorator `code` on top of a command
    every           edit every place that matches, not only the first one
    optional        a file without the anchor needs no edit; `reason` says why
    """

    file: str
    code: str
    reason: str
    function: str | None = None
    before: Anchor | None = None
    after: Anchor | None = None
    replace: Call | None = None
    argument: Call | None = None
    decorate: Command | None = None
    every: bool = False
    optional: bool = False

    @property
    def anchor(self) -> Anchor:
        return next(a for a in (self.before, self.after, self.replace, self.argument, self.decorate) if a is not None)

    def __str__(self) -> str:
        where = f" of {self.function}()" if self.function else ""
        return f"{self.anchor}{where}"
