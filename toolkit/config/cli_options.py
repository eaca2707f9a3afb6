"""Make command-line options from the settings classes, which define their names, types, defaults and help texts."""

import ast
import dataclasses
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from toolkit.config.grouped_help import SettingOption

ALIASES = {"unlabelled": ("--unlabeled",)}
"""Name of a setting to additional spellings of its option."""
UNSHOWN = {
    "learning_rate": ("--lr",),
    "batch_size": ("--bs",),
    "epochs": ("--num-epochs", "--num-train-epochs"),
    "max_length": ("--max-len", "--max-seq-length"),
    "weight_decay": ("--wd",),
    "model": ("--encoder", "--model-name"),
    "text_column": ("--text-col",),
    "label_column": ("--label-col",),
    "kd_alpha": ("--alpha",),
    "kd_temperature": ("--temperature",),
    "kd_learning_rate": ("--kd-lr",),
}
"""Name of a setting to names of its option in other tools, which work and are not in the help."""
FIRST = (
    *("data", "text_column", "label_column", "folds", "model", "learning_rate", "epochs", "student", "teacher"),
    *("no_teacher", "unlabelled", "prune_to_ms", "target", "cascade", "pipeline", "name"),
)
"""Settings that --help shows; --help-all shows every one."""

Command = TypeVar("Command", bound=Callable[..., Any])


def options_of(
    *settings: type, leave_out: tuple[str, ...] = (), complete: Mapping[str, Any] = MappingProxyType({})
) -> Callable[[Command], Command]:
    """Return a decorator that adds one option to a command for each field of the settings classes.

    complete: shell completion of some of the settings.
    """

    def decorate(command: Command) -> Command:
        for each in reversed(settings):
            kinds, texts = _kinds(each), field_help(each)
            for field in reversed(dataclasses.fields(each)):
                if field.name not in leave_out:
                    more = {"group": _group(each), "shell_complete": complete.get(field.name)}
                    command = _option(field, kinds[field.name], texts[field.name], more)(command)
        return command

    return decorate


@cache
def _kinds(settings: type) -> dict[str, Any]:
    return get_type_hints(settings)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given on the command line, as settings; the others are None or empty."""
    typed = {name: value for name, value in values.items() if value is not None and value != ()}
    if "label_names" in typed:
        typed["label_names"] = tuple(name.strip() for name in typed["label_names"].split(",") if name.strip())
    return typed


def options_text(settings: Any) -> str:
    """Return the command-line options, each after a space, that give `settings`."""
    changed = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    }
    return "".join(_as_typed(name, value) for name, value in changed.items())


def _as_typed(name: str, value: Any) -> str:
    option = f" --{name.replace('_', '-')}"
    if name == "label_names":
        value = ",".join(value)
    if isinstance(value, tuple):
        return "".join(_as_typed(name, each) for each in value)
    return option if value is True else f"{option} {shlex.quote(str(value))}"


def _group(settings: type) -> str:
    """Return the title in the help of the options of a settings class: its name; of the corpus, Data."""
    return settings.__name__.removesuffix("Settings").replace("Corpus", "Data")


def _option(
    field: "dataclasses.Field[Any]", kind: Any, text: str, more: dict[str, Any]
) -> Callable[[Command], Command]:
    words: tuple[str, ...] = ()
    if get_origin(kind) in (UnionType, Union):  # None or a Literal comes last
        kind, *others = (k for k in get_args(kind) if k is not NoneType)
        words = get_args(others[0]) if others else ()
    name = "--" + field.name.replace("_", "-")
    unshown = UNSHOWN.get(field.name, ())
    names = (name, *ALIASES.get(field.name, ()), *unshown, field.name)
    shown: dict[str, Any] = more | {
        "cls": SettingOption,
        "first": field.name in FIRST,
        "unshown": unshown,
        "help": text.rstrip(".") + _default(field),
    }
    if kind is bool and field.name.startswith("no_"):
        return click.option(name, field.name, is_flag=True, default=None, **shown)
    if kind is bool:
        return click.option(f"{name}/--no-{name[2:]}", field.name, default=None, **shown)
    if field.name == "label_names":
        return click.option(*names, default=None, metavar="A,B", **shown)
    if get_origin(kind) is tuple:
        return click.option(*names, multiple=True, metavar="TEXT", **shown)
    if get_origin(kind) is Literal:
        return click.option(*names, type=click.Choice(get_args(kind)), default=None, **shown)
    if field.name == "trim_vocabulary":  # its number may be left out
        return click.option(*names, type=int, is_flag=False, flag_value=0, metavar="[N]", **shown)
    return click.option(*names, type=_NumberOrWord(words) if words else kind, default=None, **shown)


class _NumberOrWord(click.ParamType):
    """A number, or one of a few words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        self.name = f"float|{'|'.join(words)}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, or the number. Fails as a parameter of click does for anything else."""
        try:
            return value if value in self.words else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' or '.join(self.words)}.", param, ctx)


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is None or field.default == () or isinstance(field.default, bool):
        return "."
    return f" [default: {field.default}]."


@cache
def field_help(settings: type) -> dict[str, str]:
    """Return the string under each field of a settings class."""
    body = _classes(settings.__module__)[settings.__name__]
    texts = {}
    for line, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
            texts[line.target.id] = ast.literal_eval(below.value)
    return texts


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module, which is parsed once: at start-up, every millisecond counts."""
    body = ast.parse(inspect.getsource(sys.modules[module])).body
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}
