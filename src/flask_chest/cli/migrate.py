"""``flask chest migrate``: the one command that makes a store."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flask_chest.cli._group import asking_store, chest_group, the_chests
from flask_chest.cli._output import say
from flask_chest.cli.index import make_index
from flask_chest.errors import ConfigurationError, SchemaError
from flask_chest.extension.indexed import missing_indexes
from flask_chest.protocols import Store, VariableIndexes


@chest_group.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where something would be changed.")
def migrate(*, check: bool) -> None:
    """Make the tables of the app's chests where they are missing, and migrate older ones.

    The first record does that by itself, unless the store was given create=False: then it is for this command,
    run by an app whose role may create tables. It also makes the indexes of CHEST_INDEXED, as index add does.

    \b
    Example: flask --app shop chest migrate --check
    """  # noqa: D301 - \b is click's mark for lines to keep
    wrong = 0
    for chest in the_chests():
        state = chest._state
        with asking_store():
            try:
                store = state.here.store
                if not check:
                    store.open()  # not as an app does, which would begin to make the indexes itself
                description = store.status().description
                missing = _without_index(store, state.settings.indexed, check=check)
                say(f"{description}: {'no index on ' + ', '.join(missing) if missing else 'up to date'}.")
                wrong += len(missing)
            except (SchemaError, ConfigurationError) as exc:
                wrong += 1
                say(str(exc))
    if wrong:
        raise SystemExit(1)


def _without_index(store: Store, names: Sequence[str], *, check: bool) -> list[str]:
    """Return those of *names* that have no index and should; without *check* make it instead."""
    if not isinstance(store, VariableIndexes):
        return []
    missing = missing_indexes(store, names)
    if check:
        return missing
    for name in missing:
        if (seconds := make_index(store, name)) is not None:
            say(f"The index on {name} took {seconds:.1f} s.")
    return []
