"""Which of the variables that are to be indexed lack an index, and when a process makes it by itself."""

from __future__ import annotations

from collections.abc import Sequence

from flask_chest.protocols import Store, VariableIndexes
from flask_chest.record import Query


def missing_indexes(store: VariableIndexes, names: Sequence[str]) -> list[str]:
    """Return those of *names* on which there is no index that the database uses; raise what *store* raises."""
    there = {index.variable for index in store.indexes() if index.valid}
    return [name for name in names if name not in there]


def index_empty(store: Store, names: Sequence[str]) -> None:
    """Make the indexes on *names* in a store without records; raise what the store raises.

    Once there are records it may take long, and some databases let nobody write meanwhile: then it is for an
    operator. An index that is not valid is left alone, too, as another process may be making it.
    """
    if not names or not isinstance(store, VariableIndexes) or any(store.query(Query(limit=1))):
        return
    there = {index.variable for index in store.indexes()}
    for name in names:
        if name not in there:
            store.add_index(name)
