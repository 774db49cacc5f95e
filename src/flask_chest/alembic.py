"""For Alembic: keeps autogenerate from dropping the tables of a chest, which are in no metadata of the app.

::

    from flask_chest.alembic import include_name

    context.configure(connection=connection, target_metadata=metadata, include_name=include_name)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias, overload

from flask_chest.stores.sql.tables import table_names

IncludeName: TypeAlias = Callable[[str | None, str, object], bool]
"""Alembic's hook: whether what the database has under a name, of a kind and in a parent, is compared."""


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
    """Leave the tables of the chests out of what Alembic compares, with all that belongs to them.

    As it is, it is a hook for ``context.configure(include_name=…)``, for a chest with the default ``name=``.
    Called with a hook of the app's *own*, it makes one that also asks that; *chests* are the names of all.
    """
    if callable(own) or type_ is None:
        return _excluding(chests, own if callable(own) else None)
    return _excluding(chests, None)(own, type_, parent_names)


def _excluding(chests: Collection[str], own: Callable[..., bool] | None) -> IncludeName:
    names = {chests} if isinstance(chests, str) else chests
    tables = {table.lower() for name in names for table in table_names(name).values()}

    def include(name: str | None, type_: str, parent_names: object, /) -> bool:
        # Without a table its indexes and constraints are not looked at.
        if type_ == "table" and name is not None and name.lower() in tables:
            return False
        return own is None or own(name, type_, parent_names)

    return include
