"""The page of all commands, from their own help."""

from collections.abc import Iterator
from typing import Any

import typer

from regard.cli.main import app


def commands_page() -> str:
    found = typer.main.get_command(app)
    lines = ["# Commands", "", "`regard COMMAND --help` shows the same in a terminal.", ""]
    for words, command in walk(found, ("regard",)):
        lines += _section(words, command)
    return "\n".join(lines)


def walk(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with its words, such as ("regard", "data", "check"); a group's own stand in its place."""
    for name, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from walk(command, (*words, name))
        else:
            yield (*words, name), command


def _section(words: tuple[str, ...], command: Any) -> list[str]:
    context = command.context_class(command, info_name=" ".join(words))
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [f"## {' '.join(words)}", "", "```text", usage, "```", "", prose(command.help or ""), ""]
    records = [(param.param_type_name, param.get_help_record(context)) for param in command.params]
    for kind in ("argument", "option"):
        for record in [record for found, record in records if found == kind and record]:
            name, what = record
            lines += [f"- `{name}`: {prose(what)}"]
    return [*lines, ""]


def prose(text: str) -> str:
    """Plain text as Markdown that looks the same; what stands between backticks is code already."""
    parts = text.split("`")
    for place in range(0, len(parts), 2):
        for letter in "\\*_[]<>|#":
            parts[place] = parts[place].replace(letter, f"\\{letter}")
    return "`".join(parts)
