"""`include_name` for Alembic: keeps autogenerate from dropping the tables of a chest.

They are in no metadata of the app, so Alembic would take them for tables that the app has removed.

::

    from flask_chest.alembic import include_name

    context.configure(connection=connection, target_metadata=metadata, include_name=include_name)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias, overload

from flask_chest.stores.sql.partitions import kind_of
from flask_chest.stores.sql.tables import table_names

IncludeName: TypeAlias = Callable[[str | None, str, object], bool]
"""Alembic's hook: returns whether an object of the database is compared, by its name, type and parents."""


@overload
def include_name(name: str | None, type_: str, parent_names: object, /) -> bool: ...


@overload
def include_name(
    own: Callable[..., bool] | None = None, /, *, chests: Collection[str] = ("flask_chest",)
) -> IncludeName: ...


def include_name(
    own: Callable[..., bool] | str | None = None,
    type_: str | None = None,
    parent_names: object = None,
    /,
    *,
    chests: Collection[str] = ("flask_chest",),
) -> bool | IncludeName:
    """Exclude the tables of chests, and their indexes and constraints, from what Alembic compares.

    For a chest with the default ``name=``, pass the function itself to ``context.configure(include_name=…)``.
    Called with the app's *own* hook, or with the names of all *chests*, it returns a hook that excludes their
    tables and asks *own* about the rest.
    """
    if callable(own) or type_ is None:
        return _excluding(chests, own if callable(own) else None)
    return _excluding(chests, None)(own, type_, parent_names)


def _excluding(chests: Collection[str], own: Callable[..., bool] | None) -> IncludeName:
    names = {chests} if isinstance(chests, str) else chests
    tables = {table.lower() for name in names for table in table_names(name).values()}
    begins = tuple(f"{name.lower()}_" for name in names)

    def include(name: str | None, type_: str, parent_names: object, /) -> bool:
        # Without a table its indexes and constraints are not looked at.
        if type_ == "table" and name is not None:
            lower = name.lower()
            partitions = (lower.removeprefix(begin) for begin in begins if lower.startswith(begin))
            if lower in tables or any(kind_of(end) is not None for end in partitions):
                return False
        return own is None or own(name, type_, parent_names)

    return include
