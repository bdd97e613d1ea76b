"""Write docs/commands.md from the help texts of the commands.

Run it after a change to a command: python docs/generate.py
"""

from pathlib import Path

import click

from canonistia import main

ROOT = Path(__file__).resolve().parent.parent


def command_table() -> str:
    """Return the commands with their one-line help, as a Markdown table that links to each one's section."""
    rows = [f"| [`canonistia {name}`](#{name}) | {command.get_short_help_str(200)} |" for name, command in commands()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])


def command_pages() -> str:
    """Return the table of commands, and the full help of each."""
    pages = ["# Commands", "", "Written by `docs/generate.py` from `--help`.", "", command_table()]
    for name, command in commands():
        front = click.Context(main, info_name="canonistia", **main.context_settings)
        context = click.Context(command, front, info_name=name, terminal_width=100, max_content_width=100)
        pages += ["", f"## {name}", "", "```", command.get_help(context), "```"]
    return "\n".join(pages) + "\n"


def commands() -> list[tuple[str, click.Command]]:
    """Return every command with its name, in the order of ``canonistia --help``."""
    context = click.Context(main)
    return [(name, command) for name in main.list_commands(context) if (command := main.get_command(context, name))]


if __name__ == "__main__":
    (ROOT / "docs" / "commands.md").write_text(command_pages(), encoding="utf-8")
