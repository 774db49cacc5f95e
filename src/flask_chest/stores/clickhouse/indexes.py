"""Variables with a column of their own, which is what ClickHouse has in place of an index.

A question about such a variable reads that column alone, not the map of all variables. It holds the same text,
so whoever asks for it gets the same answer, also in parts where it was not made yet: there it is computed.
"""
# ruff: noqa: S608 - all that comes from outside is a literal

from __future__ import annotations

from collections.abc import Sequence

from flask_chest.protocols import IndexesBySQL, VariableIndex
from flask_chest.stores._indexes import check_indexable
from flask_chest.stores.clickhouse.columns import AS_JSON, column_of_json
from flask_chest.stores.clickhouse.schema import ClickHousePart
from flask_chest.stores.clickhouse.text import literal, quoted


class ClickHouseIndexes(ClickHousePart, IndexesBySQL):
    """Makes columns of variables, each with a few bits that say in which blocks a value may be."""

    def indexes(self) -> Sequence[VariableIndex]:
        """Return the variables with a column of their own, by name."""
        self._schema.check()
        return [
            VariableIndex(variable=name, name=column)
            for name, column in sorted(self._database.columns_of(AS_JSON).items())
        ]

    def add_index(self, variable: str, /) -> bool:
        """Make the column of *variable*, and return whether there was none; the app goes on writing."""
        name = check_indexable(variable)
        self._schema.check()
        database = self._database
        if name in database.columns_of(AS_JSON):
            return False
        for statement in self._index_statements(name):
            database.run(statement)
        database.await_mutations(database.records)
        return True

    def index_sql(self, variable: str, /) -> str:
        """Return the statements that `add_index` would run now, or an empty text."""
        name = check_indexable(variable)
        self._schema.check()
        there = name in self._database.columns_of(AS_JSON)
        return "" if there else "".join(f"{statement};\n" for statement in self._index_statements(name))

    def index_progress(self, variable: str, /) -> float | None:
        """Return the share of the parts in which the column is made, or ``None`` where it is in all."""
        database = self._database
        column = f"{AS_JSON}{check_indexable(variable)}"
        self._schema.check()
        ((left, parts),) = database.rows(
            "SELECT maxOrNull(parts_to_do),"
            f" (SELECT count() FROM system.parts WHERE active AND {database.of_records})"
            f" FROM system.mutations WHERE NOT is_done AND {database.of_records}"
            f" AND command LIKE {literal(f'%MATERIALIZE COLUMN {column}%')}"
        )
        return None if left is None else max(0.0, 1 - int(left) / max(1, int(parts)))

    def remove_index(self, variable: str, /) -> bool:
        """Remove the column of *variable*, and return whether there was one."""
        name = check_indexable(variable)
        self._schema.check()
        if name not in self._database.columns_of(AS_JSON):
            return False
        column = quoted(f"{AS_JSON}{name}")
        drop = f"{self._alter} DROP INDEX IF EXISTS {column}, DROP COLUMN IF EXISTS {column}"
        self._database.run(drop)
        return True

    def _index_statements(self, name: str) -> list[str]:
        column = quoted(f"{AS_JSON}{name}")
        index = f"ADD INDEX IF NOT EXISTS {column} {column} TYPE bloom_filter(0.01) GRANULARITY 1"
        changes = (
            f"{column_of_json(name)}, {index}",
            f"MATERIALIZE COLUMN {column}",
            f"MATERIALIZE INDEX {column}",
        )
        return [f"{self._alter} {change}" for change in changes]
