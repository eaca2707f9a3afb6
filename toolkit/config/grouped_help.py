"""Help texts: options in groups that follow from the settings classes, the important ones first, and an example."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

OPTIONS = "Options"
"""Title of the options that belong to no settings class."""
_ALL = "hbt.help_all"


class SettingOption(click.Option):
    """An option in a group of the help, which may have names that the help does not show."""

    def __init__(
        self, *names: Any, group: str = OPTIONS, first: bool = True, unshown: tuple[str, ...] = (), **options: Any
    ) -> None:
        """group: its title. first: whether --help shows it; --help-all shows every option.

        unshown: names of the option that work, and are not shown.
        """
        super().__init__(*names, **options)
        self.group, self.first, self.unshown = group, first, unshown

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the names that are shown, and the help text."""
        names = self.opts
        self.opts = [name for name in names if name not in self.unshown]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


class Verb(click.Command):
    """A command whose help has groups of options and examples."""

    def __init__(self, *arguments: Any, examples: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters with --help-all, if --help does not show every option."""
        found = super().get_params(ctx)
        if any(not _first(param) for param in found):
            found = [*found[:-1], _help_all(), *found[-1:]]
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group, in the order in which the command names them."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None and (ctx.meta.get(_ALL) or _first(param)):
                groups.setdefault(getattr(param, "group", OPTIONS), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)
        left = sum(not _first(param) for param in self.get_params(ctx))
        if left and not ctx.meta.get(_ALL):
            formatter.write_paragraph()
            formatter.write_text(f"{left} more options: {ctx.command_path} --help-all")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own."""
        if self.examples:
            with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


@dataclass(frozen=True)
class Entry:
    """A command that is imported when it is needed, which keeps `hbt --help` fast."""

    name: str
    place: str
    """MODULE:NAME of the command."""
    summary: str
    """Line in the list of commands."""


class Verbs(click.Group):
    """Commands in titled groups, in the order in which they are used."""

    command_class = Verb

    def __init__(self, *arguments: Any, entries: dict[str, tuple[Entry, ...]], **options: Any) -> None:
        """entries: title -> the commands of the group."""
        super().__init__(*arguments, **options)
        self.titled = entries
        self.entries = {entry.name: entry for group in entries.values() for entry in group}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with a name; None if there is none."""
        if cmd_name not in self.entries:
            return None
        module, _, name = self.entries[cmd_name].place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line for each command."""
        for title, group in self.titled.items():
            with formatter.section(title):
                formatter.write_dl([(entry.name, entry.summary) for entry in group])


def _first(param: click.Parameter) -> bool:
    return getattr(param, "first", True)


def _help_all() -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            ctx.meta[_ALL] = True
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()

    text = "Show every option and exit."
    return click.Option(["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=show, help=text)
