"""Read a recipe from a TOML file, overridden by explicit settings, and write one."""

import dataclasses
import math
import tomllib
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from toolkit.config.recipe import PIPELINES, Recipe
from toolkit.config.settings import UNTRAINED, UNTRAINED_RATE
from toolkit.utils.console import say
from toolkit.utils.errors import InputError, require


def recipe_from(file: Path | None, given: dict[str, Any], unused: tuple[str, ...] = ("pruning",)) -> Recipe:
    """Return the recipe in a TOML file, or the defaults, overridden by the settings in `given` (by field name).

    unused: tables that the file may have although its pipeline does not use them; they are ignored then.
    Raises: InputError for an unreadable file, an unknown table or key, or a value of the wrong type.
    """
    tables = {} if file is None else _read_toml(file)
    named = "pipeline" in (tables.get("run") or {})
    sections: dict[str, Any] = {}
    for table, settings in _sections().items():
        fields = {f.name: f for f in dataclasses.fields(settings)}
        from_file = tables.pop(table, {})
        require(isinstance(from_file, dict), f"{file}: {table}", f"must be a table; write [{table}] on its own line")
        for key in from_file:
            require(key in fields, f"{file}: [{table}] {key}", f"no such setting; the settings are {', '.join(fields)}")
        values = from_file | {key: value for key, value in given.items() if key in fields}
        untrained = table == "training" and str(sections["model"].model).startswith(UNTRAINED)
        if untrained and values.get("learning_rate") is None:
            values["learning_rate"] = UNTRAINED_RATE
        kinds = get_type_hints(settings)
        sections[table] = settings(
            **{key: _typed(value, kinds[key], f"[{table}] {key}") for key, value in values.items()}
        )
    if tables:
        raise InputError(f"{file}: no such table [{next(iter(tables))}]; the tables are {', '.join(_sections())}")
    if named or "pipeline" in given:
        _ignore_unused(file, unused, sections, given)
    return Recipe(**sections)


def _ignore_unused(file: Path | None, unused: tuple[str, ...], sections: dict[str, Any], given: dict[str, Any]) -> None:
    """Replace tables of `file` that the pipeline does not use by the defaults, unless `given` has a setting of them."""
    pipeline = sections["run"].pipeline
    for table, settings in _sections().items():
        own = {field.name for field in dataclasses.fields(settings)}
        ignored = file is not None and table in unused and table not in PIPELINES[pipeline] and not own & set(given)
        if ignored and sections[table] != settings():
            say(f"{file}: table [{table}] is ignored, since pipeline {pipeline} does not use it")
            sections[table] = settings()


def recipe_of(file: Path | None, settings: dict[str, Any]) -> Recipe:
    """Return `recipe_from(file, settings)` after checking the names of `settings`.

    Raises: InputError as `recipe_from`, and for an unknown name.
    """
    known = {field.name for each in _sections().values() for field in dataclasses.fields(each)}
    for name in settings:
        require(name in known, name, "no such setting; docs/api.md and hbt run --help-all list them")
    return recipe_from(file, settings)


def write_recipe(recipe: Recipe, file: Path) -> None:
    """Write `recipe` as TOML."""
    file.write_text(recipe_text(recipe), "utf-8")


def recipe_text(recipe: Recipe) -> str:
    """Return `recipe` as TOML, without settings that are None, since TOML has no null."""
    import tomli_w

    tables = dataclasses.asdict(recipe)
    return tomli_w.dumps({t: {k: v for k, v in keys.items() if v is not None} for t, keys in tables.items()})


_TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def _sections() -> dict[str, Any]:
    return get_type_hints(Recipe)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"--recipe {file}: no such file") from None
    except RecursionError:
        raise InputError(f"--recipe {file}: nested too deep; write one table for each group of settings") from None
    except (OSError, ValueError) as error:  # a ValueError: not TOML, not UTF-8, or an integer of thousands of digits
        raise InputError(f"--recipe {file}: not readable as TOML: {error}") from None


def _typed(value: Any, kind: Any, where: str) -> Any:
    """Return `value`, checked to be of type `kind`; an int is accepted for a float."""
    if get_origin(kind) in (UnionType, Union):  # None or a Literal comes last
        kinds = [k for k in get_args(kind) if k is not NoneType]
        if isinstance(value, str) and len(kinds) == 2:  # a number or a word
            words = get_args(kinds[1])
            require(value in words, where, f"{value!r} is neither a number nor {' or '.join(words)}")
            return value
        return None if value is None else _typed(value, kinds[0], where)
    if get_origin(kind) is Literal:
        require(value in get_args(kind), where, f"{value!r} is not one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        require(isinstance(value, list | tuple), where, f"{value!r} is not a list")
        return tuple(_typed(v, str, where) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**53 else math.inf
    option = f"--{where.rpartition(' ')[2].replace('_', '-')}"
    require(not isinstance(value, float) or math.isfinite(value), option, f"{value} is not a finite number; give one")
    require(type(value) is kind, where, f"{value!r} is not {_TYPE_NAMES[kind]}")
    return value
