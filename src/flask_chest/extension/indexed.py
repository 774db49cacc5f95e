"""Which of the variables that are to be indexed lack an index, and when a process makes it by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.protocols import Store, VariableIndexes
from flask_chest.record import Query


def missing_indexes(store: VariableIndexes, names: Sequence[str]) -> list[str]:
    """Return those of *names* on which there is no index that the database uses; raise what *store* raises."""
    there = {index.variable for index in store.indexes() if index.valid}
    return [name for name in names if name not in there]


def index_if_empty(
    store: Store, names: Sequence[str], *, failed: Callable[[Exception], object]
) -> threading.Thread | None:
    """Begin to make the indexes on *names* if *store* holds no records, and return the thread that does.

    Once there are records it may take long, and some databases let nobody write meanwhile: then it is for an
    operator. An index that is not valid is left alone, too, as another process may be making it. In a thread of
    its own, since a database may wait for every transaction that has begun before, the caller's among them.
    Raise what *store* raises, and tell *failed* what it raises in the thread, which holds nothing else.
    """
    if not names or not isinstance(store, VariableIndexes) or any(store.query(Query(limit=1))):
        return None
    there = _indexed(store)
    missing = [name for name in names if name not in there]
    if not missing:
        return None
    thread = threading.Thread(
        target=_make, args=(store, missing, failed), name="flask_chest indexes", daemon=True
    )
    thread.start()
    return thread


def _make(store: VariableIndexes, names: Sequence[str], failed: Callable[[Exception], object]) -> None:
    with suppress_instrumentation():
        for name in names:
            try:
                _make_one(store, name)
            except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything
                failed(exc)


def _make_one(store: VariableIndexes, name: str) -> None:
    try:
        store.add_index(name)
    except Exception:
        if name not in _indexed(store):  # else another process was first
            raise


def _indexed(store: VariableIndexes) -> set[str]:
    return {index.variable for index in store.indexes()}
