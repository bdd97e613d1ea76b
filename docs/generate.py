"""Writes what the documents take from the command line: docs/commands.md and the table in README.md.

Run it after a change to a command: python docs/generate.py
"""

import re
from pathlib import Path

import click

from canonistia import main

ROOT = Path(__file__).resolve().parent.parent
_START, _END = "<!-- commands: written by docs/generate.py -->", "<!-- end of commands -->"


def command_table() -> str:
    """Return the commands with their one-line help, as a Markdown table."""
    rows = [f"| `canonistia {name}` | {command.get_short_help_str(200)} |" for name, command in _commands()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])


def command_pages() -> str:
    """Return the full help of every command."""
    pages = ["# Commands", "", "Written by `docs/generate.py` from `--help`."]
    for name, command in _commands():
        front = click.Context(main, info_name="canonistia", **main.context_settings)
        context = click.Context(command, front, info_name=name, terminal_width=100, max_content_width=100)
        pages += ["", f"## {name}", "", "```", command.get_help(context), "```"]
    return "\n".join(pages) + "\n"


def with_table(readme: str) -> str:
    """Return the README with its table replaced."""
    pattern = re.compile(re.escape(_START) + ".*" + re.escape(_END), re.DOTALL)
    return pattern.sub(lambda _: f"{_START}\n{command_table()}\n{_END}", readme)


def _commands() -> list[tuple[str, click.Command]]:
    context = click.Context(main)
    return [(name, command) for name in main.list_commands(context) if (command := main.get_command(context, name))]


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "commands.md").write_text(command_pages(), encoding="utf-8")
