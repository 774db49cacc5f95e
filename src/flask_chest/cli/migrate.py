"""``flask chest migrate``: the one command that makes a store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import click

from flask_chest._clocks import nanoseconds
from flask_chest.cli._group import asking_store, chest_group, the_chests
from flask_chest.cli._output import say, say_data
from flask_chest.cli.index import make_index
from flask_chest.declared import Declaration
from flask_chest.errors import ConfigurationError, SchemaError, StoreAbsent
from flask_chest.extension.derived import missing_indexes
from flask_chest.protocols import FlatViews, IndexesBySQL, Partitioned, Store, VariableIndexes

SOON_NANO = nanoseconds(timedelta(days=2))
"""Time from now within which there should be partitions already."""


@chest_group.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where something would be changed.")
@click.option(
    "--sql",
    "as_sql",
    is_flag=True,
    help="Change nothing; print the statements that make the views, and partitions and indexes that are missing.",
)
def migrate(*, check: bool, as_sql: bool) -> None:
    """Make the tables of the app's chests where they are missing, and migrate older ones.

    The first record does that by itself, unless the store was given create=False: then it is for this command,
    run by an app whose role may create tables. It also makes the indexes of CHEST_INDEXED and of declared
    classes, as index add does, and the views of these classes; a view of an earlier declaration is replaced.

    \b
    Example: flask --app shop chest migrate --check
    """  # noqa: D301 - \b is click's mark for lines to keep
    if as_sql:
        _say_sql()
        return
    wrong = 0
    for chest in the_chests():
        state = chest._state
        with asking_store():
            try:
                store = state.here.store
                if not check:
                    store.open()  # not as an app does, which would begin to make the indexes itself
                description = store.status().description
                derived = state.derived()
                missing = _without_partition(store)
                missing += _without_index(store, derived.indexed, check=check)
                missing += _without_view(store, derived.views, check=check)
                say(f"{description}: {', '.join(missing) or 'up to date'}.")
                wrong += len(missing)
            except (SchemaError, ConfigurationError) as exc:
                wrong += 1
                say(str(exc))
    if wrong:
        raise SystemExit(1)


def _without_index(store: Store, names: Sequence[str], *, check: bool) -> list[str]:
    """Return which of *names* have no index; without *check* make it instead."""
    if not isinstance(store, VariableIndexes):
        return []
    missing = missing_indexes(store, names)
    if check:
        return [f"no index on {', '.join(missing)}"] if missing else []
    for name in missing:
        if (seconds := make_index(store, name)) is not None:
            say(f"The index on {name} took {seconds:.1f} s.")
    return []


def _without_partition(store: Store) -> list[str]:
    """Return that partitions are missing; what makes the tables has made them, if it may."""
    if isinstance(store, Partitioned) and store.partitions().ends_before(time.time_ns() + SOON_NANO):
        return ["no partition for the day after tomorrow"]
    return []


def _without_view(store: Store, views: Sequence[Declaration], *, check: bool) -> list[str]:
    """Return which of *views* are missing or differ; without *check* make them instead."""
    if not isinstance(store, FlatViews):
        return []
    wrong: list[str] = []
    for declaration in views:
        name, found = store.view_name(declaration), store.view_state(declaration)
        if found == "same":
            continue
        if check:
            wrong.append(f"no view {name}" if found == "absent" else f"another view {name}")
        else:
            store.make_view(declaration)
            say(f"The view {name} was {'made' if found == 'absent' else 'replaced'}.")
    return wrong


def _say_sql() -> None:
    for chest in the_chests():
        store, derived = chest._state.here.store, chest._state.derived()
        if isinstance(store, Partitioned):
            with suppress(StoreAbsent), asking_store():
                if statements := store.partitions_sql():
                    say_data(statements.rstrip())
        if isinstance(store, FlatViews):
            for declaration in derived.views:
                say_data(store.view_sql(declaration).rstrip())
        if isinstance(store, VariableIndexes):
            for statements in filter(None, (_index_sql(store, name) for name in derived.indexed)):
                say_data(statements.rstrip())


def _index_sql(store: VariableIndexes, name: str) -> str:
    with suppress(StoreAbsent), asking_store():
        if isinstance(store, IndexesBySQL):
            return store.index_sql(name)
    return f"-- The index on {name}: flask chest index add {name}"
