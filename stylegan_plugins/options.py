"""A plug-in's options: a frozen dataclass <-> click options `--<plugin>-<field>` <-> training_options.json."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from typing import Any

import click
from click.core import ParameterSource

from stylegan_plugins.errors import OptionError, PluginError

KINDS = {bool: "BOOL", int: "INT", float: "FLOAT", str: "TEXT"}  # types of options, and their names in help texts
PRESET = "preset"  # the option that chooses one of a plug-in's PRESETS


@dataclasses.dataclass(frozen=True)
class Preset:
    """Published settings of a plug-in. The attribute `PRESETS` holds them by name, and `--<plugin>-preset` chooses one.
    Options that are given win over the preset, and the preset wins over defaults.

    values  values of the plug-in's fields, by name of the field
    source  the publication or the code that the values come from, for `stylegan-plugins info`
    others  values of fields of other plug-ins, `{plugin: {field: value}}`; `requires` or `brings` names these
            plug-ins"""

    values: dict[str, Any]
    source: str
    others: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def values_for(self, plugin: str) -> dict[str, dict[str, Any]]:
        """Return all values of the preset by plug-in. `plugin`: the plug-in that has the preset."""
        return {plugin: self.values, **self.others}


@dataclasses.dataclass(frozen=True)
class CountsWith:
    """A condition on another option, without which an option has no effect and is refused.

    other    a field of the same plug-in, or an option of train.py, such as `--mirror`
    holds    a function that returns whether the option has an effect. Its argument is the value of the field or, for an
             option of train.py, the arguments of the training loop before any plug-in has changed them
    example  a value of the other option that meets the condition, for the error message"""

    other: str
    holds: typing.Callable[[Any], bool]
    example: Any


def option(
    default: Any,
    help: str,
    *,
    choices: typing.Sequence[str] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    metavar: str | None = None,
    counts: typing.Sequence[CountsWith] = (),
) -> Any:
    """Return a field of an options dataclass. The field's annotation is its type: bool, int, float, str, or one of them
    `| None`.

    default           value when the option is not given
    help              a short noun phrase, with the meaning of 0 or of a default None
    choices           the only allowed values of a str; None: any text
    minimum, maximum  inclusive bounds of an int or a float; None: no bound
    metavar           word for the value in help texts; None: BOOL, INT, FLOAT or TEXT, by the type. With FILE a run
                      records the path of an existing file as an absolute path
    counts            all conditions for the option to have an effect, of the class CountsWith; empty: it always has
                      one"""
    bounds = {"choices": choices, "minimum": minimum, "maximum": maximum, "metavar": metavar}
    return dataclasses.field(default=default, metadata={"help": help, "counts": counts, **bounds})


def flag(plugin: str, field: str) -> str:
    """Return the flag of a field: `--diffaugment-policy` for `policy` of `diffaugment`."""
    return f"--{plugin}-{field.replace('_', '-')}"


def parameter(plugin: str, field: str) -> str:
    """Return the name under which click passes the value: `diffaugment_policy`."""
    return flag(plugin, field)[2:].replace("-", "_")


def check_presets(plugin: str, cls: Any, presets: typing.Mapping[str, Preset]) -> None:
    """Raise PluginError if a preset sets an option that the plug-in does not have."""
    known = [field.name for field in dataclasses.fields(cls)] if cls else []
    for name, preset in presets.items():
        unknown = next((field for field in preset.values if field not in known), None)
        if unknown is not None:
            raise PluginError(
                f"--plugin: the preset {name!r} of {plugin!r} sets {unknown!r}, which is none of its options."
            )


def check(plugin: str, cls: Any) -> None:
    """Raise PluginError if a plug-in's OPTIONS are not a dataclass whose fields come from `option`."""
    parameters = getattr(cls, "__dataclass_params__", None) if isinstance(cls, type) else None
    if parameters is None or not parameters.frozen:
        raise PluginError(f"--plugin: OPTIONS of {plugin!r} is {cls!r}; give a frozen dataclass.")
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    for field in dataclasses.fields(cls):
        if "help" not in field.metadata:
            raise PluginError(
                f"--plugin: the option {field.name!r} of {plugin!r} has no help: make it with stylegan_plugins.option."
            )
        if _type(hints[field.name])[0] not in KINDS:
            raise PluginError(
                f"--plugin: the option {field.name!r} of {plugin!r} is annotated {hints[field.name]!r}; options are "
                "bool, int, float or str, or one of them `| None`."
            )
        if field.name == PRESET:
            raise PluginError(f"--plugin: {plugin!r} has an option {PRESET!r}; that name is for its PRESETS.")
        for needed in field.metadata["counts"]:
            if not needed.other.startswith("--") and needed.other not in names:
                raise PluginError(
                    f"--plugin: the option {field.name!r} of {plugin!r} counts with {needed.other!r}, which is none of "
                    "its options."
                )


def click_options(plugin: str, cls: type | None, presets: typing.Mapping[str, Preset]) -> list[click.Option]:
    """Return the click options of a plug-in. All default to None, "not given"; defaults come from the dataclass."""
    result = []
    hints = typing.get_type_hints(cls) if cls else {}
    for field in dataclasses.fields(cls) if cls else ():
        kind, _ = _type(hints[field.name])
        default = "none" if field.default is None else str(field.default).lower() if kind is bool else field.default
        result.append(
            click.Option(
                [flag(plugin, field.name), parameter(plugin, field.name)],
                type=_click_type(kind, field.metadata),
                metavar=field.metadata.get("metavar") or (None if field.metadata.get("choices") else KINDS[kind]),
                help=f"{field.metadata['help']}  [default: {default}; needs --plugin={plugin}]",
            )
        )
    if presets:
        result.append(
            click.Option(
                [flag(plugin, PRESET), parameter(plugin, PRESET)],
                type=click.Choice(list(presets)),
                help=f"published settings; options that are given win over them  [needs --plugin={plugin}]",
            )
        )
    return result


def build(plugin: str, cls: type | None, values: typing.Mapping[str, Any]) -> Any:
    """Return an options object from given values by field name, with defaults for the rest; None without a class.

    Raises OptionError for an unknown field, a wrong type or a value out of bounds."""
    known = {field.name: field for field in dataclasses.fields(cls)} if cls else {}
    hints = typing.get_type_hints(cls) if cls else {}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            names = ", ".join(flag(plugin, other) for other in known) or "none"
            raise OptionError(f"{flag(plugin, name)}: {plugin} has no such option. It has: {names}.")
        kind, optional = _type(hints[name])
        convert = _click_type(kind, known[name].metadata).convert
        if isinstance(value, list | tuple | dict):  # from an edited file; click does not expect it
            raise OptionError(f"{flag(plugin, name)}: expected {KINDS[kind].lower()}, not {value!r:.50}.")
        try:
            checked[name] = None if value is None and optional else convert(value, None, None)
        except click.BadParameter as error:
            raise OptionError(f"{flag(plugin, name)}: {error.message}") from error
    return cls(**checked) if cls else None


def from_anywhere(cls: type | None, name: str, value: Any) -> Any:
    """Return the value of an option as a run records it: an absolute path if the option's metavar is FILE."""
    field = next((field for field in dataclasses.fields(cls) if field.name == name), None) if cls else None
    is_file = field is not None and field.metadata.get("metavar") == "FILE" and value != field.default
    return os.path.abspath(value) if is_file and os.path.isfile(value) else value


def check_effect(
    plugin: str, options: Any, given: typing.Mapping[str, Any], args: typing.Mapping[str, Any] | None = None
) -> None:
    """Raise OptionError for an option that was given and has no effect, according to its `counts`.

    given: values by field; args: arguments of the training loop, None while they are not known"""
    for field in () if options is None else dataclasses.fields(options):
        reasons, advice = [], []
        for needed in field.metadata["counts"] if field.name in given else ():
            if needed.other.startswith("--"):
                if args is not None and not needed.holds(args):
                    advice.append(f"{needed.other}={needed.example}")
                    reasons.append(f"without {advice[-1]}")
            elif not needed.holds(value := getattr(options, needed.other)):
                other = flag(plugin, needed.other)
                advice.append(f"{other}={written(needed.example)}")
                reasons.append(f"with {other}={written(value)}")
        if reasons:
            raise OptionError(
                f"{flag(plugin, field.name)}={written(given[field.name])} has no effect {' and '.join(reasons)}. Leave "
                f"it out, or give {' '.join(advice)}, for example."
            )


def refuse_given(name: str, why: str) -> None:
    """Raise OptionError if an option of the running command was given. name: of its parameter; why: the reason why it
    has no effect."""
    context = click.get_current_context()
    if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
        flag = f"--{name.replace('_', '-')}"
        raise OptionError(f"{flag}={written(context.params[name])} has no effect {why}. Leave the option out.")


def written(value: Any) -> str:
    """Return a value in the form of the command line."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def as_dict(options: Any) -> dict[str, Any]:
    """Return all fields by name, defaults included, for training_options.json."""
    return {} if options is None else dataclasses.asdict(options)


def _type(hint: Any) -> tuple[type, bool]:
    """Return the plain type of an annotation, and whether None is allowed."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        plain = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return (plain[0] if len(plain) == 1 else object), len(plain) < len(typing.get_args(hint))
    return hint, False


def _click_type(kind: type, metadata: typing.Mapping[str, Any]) -> click.ParamType:
    if metadata.get("choices"):
        return click.Choice(list(metadata["choices"]))
    bounds: dict[str, Any] = {"min": metadata.get("minimum"), "max": metadata.get("maximum")}
    if kind is int:
        return click.IntRange(**bounds)
    if kind is float:
        return _Finite(**bounds)
    return click.BOOL if kind is bool else click.STRING


class _Finite(click.FloatRange):
    """A finite number: click lets nan and inf through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number or number in (float("inf"), float("-inf")):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number
