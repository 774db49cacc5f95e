"""``flask chest migrate``: the one command that makes a store."""

from __future__ import annotations

import click

from flask_chest.cli._group import asking_store, chest_group, the_chests
from flask_chest.cli._output import say
from flask_chest.errors import ConfigurationError, SchemaError


@chest_group.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where something would be changed.")
def migrate(*, check: bool) -> None:
    """Make the tables of the app's chests where they are missing, and migrate older ones.

    The first record does that by itself, unless the store was given create=False: then it is for this command,
    run by an app whose role may create tables.

    \b
    Example: flask --app shop chest migrate --check
    """  # noqa: D301 - \b is click's mark for lines to keep
    wrong = 0
    for chest in the_chests():
        state = chest._state
        with asking_store():
            try:
                if not check:
                    state.here.open_store()
                say(f"{state.here.store.status().description}: up to date.")
            except (SchemaError, ConfigurationError) as exc:
                wrong += 1
                say(str(exc))
    if wrong:
        raise SystemExit(1)
