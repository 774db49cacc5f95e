"""Indexes on variables in MongoDB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pymongo
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import OperationFailure

from flask_chest.protocols import VariableIndex, VariableIndexes
from flask_chest.stores._indexes import check_indexable, is_indexable
from flask_chest.stores.mongodb.client import Collections, MongoDBPart
from flask_chest.stores.mongodb.documents import Document

LONGEST_BUILD = 24 * 60 * 60
"""Seconds after which we give up an index: a store's time-out for an answer is too short for one."""

_INDEX_NOT_FOUND = 27
_PREFIX = "variables."
_REST = [("time_unix_nano", DESCENDING), ("_id", DESCENDING)]
"""What follows the variable: the order of an answer."""


class MongoDBIndexes(MongoDBPart, VariableIndexes):
    """Knows an index by its keys, so that one which an administrator made counts, too.

    They hold the documents that lack the variable as well: some engines use no partial index for such a search.
    """

    def indexes(self) -> Sequence[VariableIndex]:
        """Return the indexes on variables, by name of the variable; one that is being built is not valid yet."""
        with self._collections.checked() as collections:
            found = sorted(_found(collections.records.list_indexes()))
            builds = _builds(collections) if found else {}
        return [VariableIndex(variable=variable, name=name, valid=name not in builds) for variable, name in found]

    def add_index(self, variable: str, /) -> bool:
        """Make the index on *variable*, and return whether there was none; records are written meanwhile."""
        check_indexable(variable)
        if any(index.valid for index in self.indexes() if index.variable == variable):
            return False
        with self._collections.checked() as collections, pymongo.timeout(LONGEST_BUILD):
            # Where another process builds it, this waits for that.
            collections.records.create_index(
                [(_PREFIX + variable, ASCENDING), *_REST], name=f"{collections.records.name}_by_{variable}"
            )
        return True

    def index_progress(self, variable: str, /) -> float | None:
        """Return the share that is done of the step that the server is at for the index on *variable*.

        Return ``None`` where nobody makes it, or the user may not see what the server does.
        """
        check_indexable(variable)
        with self._collections.checked() as collections:
            return _builds(collections).get(f"{collections.records.name}_by_{variable}")

    def remove_index(self, variable: str, /) -> bool:
        """Remove the index on *variable*, and return whether there was one."""
        check_indexable(variable)
        removed = False
        with self._collections.checked() as collections:
            for found, name in list(_found(collections.records.list_indexes())):
                if found == variable:
                    removed = _drop(collections, name) or removed
        return removed


def _found(indexes: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the variable and the name of each of *indexes* that is on a variable."""
    for index in indexes:
        (first, direction), *rest = index["key"].items()
        variable = str(first).removeprefix(_PREFIX)
        if (
            variable != first
            and is_indexable(variable)
            and [(name, int(order)) for name, order in rest] == _REST
            and direction == ASCENDING
            and "partialFilterExpression" not in index
        ):
            yield variable, str(index["name"])


def _drop(collections: Collections, name: str) -> bool:
    try:
        collections.records.drop_index(name)
    except OperationFailure as exc:
        if exc.code != _INDEX_NOT_FOUND:  # another process was first
            raise
        return False
    return True


def _builds(collections: Collections) -> Mapping[str, float]:
    database = collections.database
    try:
        operations = list(database.client["admin"].aggregate([{"$currentOp": {"allUsers": True}}]))
    except OperationFailure:  # the user lacks the right, or the server the command
        return {}
    return builds(operations, database=database.name, collection=collections.records.name)


def builds(operations: Iterable[Document], *, database: str, collection: str) -> Mapping[str, float]:
    """Return which indexes of *collection* the *operations* build, by name, with the share that is done."""
    found: dict[str, float] = {}
    for operation in operations:
        command = operation.get("command")
        if (
            isinstance(command, Mapping)
            and command.get("createIndexes") == collection
            and command.get("$db", database) == database
        ):
            for index in command.get("indexes", ()):
                # Whoever waits for a build is seen too, without its progress.
                name, share = index["name"], _share(operation.get("progress"))
                found[name] = max(found.get(name, 0.0), share)
    return found


def _share(progress: object) -> float:
    if not isinstance(progress, Mapping):
        return 0.0
    done, total = progress.get("done"), progress.get("total")
    return min(1.0, done / total) if isinstance(done, int) and isinstance(total, int) and total > 0 else 0.0
