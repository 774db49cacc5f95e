"""The page of all commands, made of their help: ``python -m tests.support.commands_page`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from flask_chest.cli import chest_group

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
_HEAD = """# All commands

What each command says with `--help`. [The command line](operating.md) shows them at work.
"""
_WIDTH = 100


def page() -> str:
    """Return the page as it should be."""
    return "\n".join([_HEAD, *_described(chest_group, "flask chest")])


def _described(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path, max_content_width=_WIDTH, terminal_width=_WIDTH)
    if not isinstance(command, click.Group):
        name = path.removeprefix("flask chest ")
        yield f"## {name}\n\n<!-- help -->\n```text\n{command.get_help(context)}\n```\n"
        return
    for name in command.list_commands(context):
        each = command.get_command(context, name)
        if each is not None and not each.hidden:
            yield from _described(each, f"{path} {name}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
