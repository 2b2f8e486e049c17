"""``sepakat``: the command line. Every flag of ``serve`` is made from its setting."""

from __future__ import annotations

import os
import sys
from itertools import groupby
from pathlib import Path

import click

from resp_server import __version__, logs, settings

BAD_USAGE = 2
FAILED = 1


class _Serve(click.Command):
    """A command whose settings are listed under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_attribute = {param.name: param for param in self.get_params(ctx)}
        for heading, fields in groupby(settings.FIELDS, key=lambda field: field.group):
            with formatter.section(heading):
                params = [by_attribute.pop(field.attribute) for field in fields]
                formatter.write_dl([record for param in params if (record := param.get_help_record(ctx))])
        with formatter.section("Other"):
            rest = by_attribute.values()
            formatter.write_dl([record for param in rest if (record := param.get_help_record(ctx))])


def _flag(field: settings.Field) -> click.Option:
    about = f"{field.summary} [default: {field.default or 'none'}]"
    return click.Option([f"--{field.name}", field.attribute], metavar=field.kind.short, help=about)


_CONFIG = click.Option(
    ["--config", "file"],
    type=click.Path(path_type=Path),
    envvar="SEPAKAT_CONFIG",
    help="TOML file of settings by name, such as tcp-backlog = 511.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="sepakat %(version)s")
def sepakat() -> None:
    """Distributed locks, at-least-once queues and coherent caches over the Redis protocol."""


@sepakat.command(cls=_Serve, params=[*map(_flag, settings.FIELDS), _CONFIG])
def serve(file: Path | None, **flags: str | None) -> int:
    """Runs the server until SIGTERM or SIGINT.

    Each setting is a flag, a variable (--tcp-backlog is SEPAKAT_TCP_BACKLOG) or a line of the --config file; a flag
    wins over a variable, a variable over the file. Sizes take Redis's units: 1k is 1000 bytes, 1kb is 1024.
    """
    from resp_server.edge import app

    given = {name: text for name, text in flags.items() if text is not None}
    in_force = settings.load(given, os.environ, file)
    try:
        logs.configure(in_force.loglevel, in_force.log_format, in_force.logfile)
    except OSError as error:
        raise settings.SettingError(f"logfile {in_force.logfile} cannot be opened: {error.strerror}") from None
    try:
        return app.serve(in_force)
    except app.StartError as error:
        raise _Failure(str(error)) from None


@sepakat.command("settings", short_help="Prints every setting as a variable.")
def print_settings() -> None:
    """Prints every setting with its default, as variables: the start of an .env file."""
    click.echo(settings.example(), nl=False)


class _Failure(click.ClickException):
    """The server could not start, for a reason outside its settings."""

    exit_code = FAILED


def main() -> None:
    """Runs the command line; what a person did wrong is one line on standard error."""
    try:
        code = sepakat.main(prog_name="sepakat", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = BAD_USAGE
    except click.ClickException as error:
        click.echo(f"sepakat: {error.format_message()}", err=True)
        code = error.exit_code
    except settings.SettingError as error:
        click.echo(f"sepakat: {error}", err=True)
        code = BAD_USAGE
    except click.Abort:
        code = FAILED
    sys.exit(code)
