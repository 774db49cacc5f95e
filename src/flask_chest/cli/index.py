"""``flask chest index``: by which variables the database finds records at once."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress

import click

from flask_chest.cli._group import Failure, asking_store, chest_group, the_chests
from flask_chest.cli._options import json_option
from flask_chest.cli._output import say, say_json, say_progress
from flask_chest.errors import CapabilityMissing, StoreAbsent
from flask_chest.protocols import VariableIndex, VariableIndexes

_LOOK_SECONDS = 0.5
"""Seconds between two looks at how far an index is."""


@chest_group.group("index")
def index() -> None:
    """Find records by a variable without reading all the others."""


@index.command("list")
@json_option
def list_indexes(*, as_json: bool) -> None:
    """Show the variables that have an index, and whether the database uses it.

    \b
    Example: flask --app shop chest index list
    """  # noqa: D301 - \b is click's mark for lines to keep
    known = list[VariableIndex]()
    for store in _indexing():
        with suppress(StoreAbsent), asking_store():
            known += store.indexes()
    for each in known:
        if as_json:
            say_json(each)
        else:
            say(f"{each.variable}: {each.name}{'' if each.valid else f', {unfinished(each.variable)}'}")
    if not known and not as_json:
        say("No variable has an index: flask chest index add NAME makes one.", err=True)


@index.command("add")
@click.argument("name")
def add_index(name: str) -> None:
    """Make an index on the variable NAME, by which query --where reads only the records that may match.

    With PostgreSQL, MySQL, MariaDB and MongoDB the app goes on writing meanwhile; with SQLite its records wait in
    the journals until the index is made. An index that an interruption left behind is made again.

    \b
    Example: flask --app shop chest index add user_id
    """  # noqa: D301
    for store in _indexing():
        with asking_store():
            seconds = make_index(store, name)
        say(f"{name} has an index already." if seconds is None else f"The index on {name} took {seconds:.1f} s.")


@index.command("remove")
@click.argument("name")
def remove_index(name: str) -> None:
    """Remove the index on the variable NAME; the records stay, and are found all the same.

    \b
    Example: flask --app shop chest index remove user_id
    """  # noqa: D301
    removed = 0
    for store in _indexing():
        with suppress(StoreAbsent), asking_store():
            removed += store.remove_index(name)
    if not removed:
        raise Failure(f"{name} has no index; see: flask chest index list")
    say(f"The index on {name} is removed.")


def make_index(store: VariableIndexes, name: str) -> float | None:
    """Make the index and return the seconds that took, or ``None`` if there was one; show how far it is.

    Another thread makes it, so that an interruption need not wait for the database.
    """
    made = Future[bool]()
    begin = time.monotonic()
    threading.Thread(target=_make, args=(store, name, made), daemon=True).start()
    try:
        while wait([made], _LOOK_SECONDS).not_done:
            if sys.stderr.isatty():
                _show(store, name, seconds=time.monotonic() - begin)
    except KeyboardInterrupt:
        raise Failure(
            "Interrupted: the database may go on by itself, or leave an index that it does not use, or none; "
            f"flask chest index list tells. To make it after all, run flask chest index add {name}"
        ) from None
    return time.monotonic() - begin if made.result() else None


def _make(store: VariableIndexes, name: str, made: Future[bool]) -> None:
    try:
        made.set_result(store.add_index(name))
    except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits
        made.set_exception(exc)


def _show(store: VariableIndexes, name: str, *, seconds: float) -> None:
    share = None
    with suppress(Exception):  # a build goes on whether or not anybody can tell how far it is
        share = store.index_progress(name)
    far = "" if share is None else f"{share:.0%}, "
    say_progress(f"{name}: {far}{seconds:.0f} s")


def unfinished(name: str) -> str:
    """Return what to do about an index on *name* that the database does not use."""
    return f"which the database does not use: if nobody is making it, run flask chest index add {name}"


def _indexing() -> list[VariableIndexes]:
    """Return the stores of the app's chests; exit where one has no such indexes."""
    stores = list[VariableIndexes]()
    for chest in the_chests():
        store = chest._state.here.store
        if not isinstance(store, VariableIndexes):
            raise CapabilityMissing(store, "VariableIndexes")
        stores.append(store)
    return stores
