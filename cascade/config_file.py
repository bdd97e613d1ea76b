"""Options of a command from a TOML file."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_option(example: str) -> Callable[[F], F]:
    """Return a decorator that adds ``--config``; the command line and the environment override the file."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_read_config,
        is_eager=True,
        expose_value=False,
        help=f"TOML file with options of this command by name ({example}); the command line overrides it.",
    )


def _read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not TOML: {error}") from error
    options = [parameter for parameter in context.command.params if isinstance(parameter, click.Option)]
    by_flag = {flag.removeprefix("--").replace("-", "_"): option for option in options for flag in option.opts}
    unknown = sorted(set(given) - set(by_flag))
    if unknown:
        raise click.BadParameter(f"{path} has unknown options {', '.join(unknown)}; see --help")
    defaults = {str(by_flag[key].name): _value(by_flag[key], value) for key, value in given.items()}
    context.default_map = {**(context.default_map or {}), **defaults}


def _value(option: click.Option, value: object) -> object:
    """Return a value as click takes it: a repeatable option takes a list, and reads a text as a list of letters."""
    return [value] if option.multiple and not isinstance(value, list) else value
