"""What is derived from the variables of records in a store: indexes on them, and views of declared classes.

A process makes it by itself while there are no records. Afterwards that may take long, or take from a process of
another generation of the app what it has made for itself: then it is for an operator, and `flask chest migrate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from flask import Flask

from flask_chest._process import native_lock, start_native_thread, threads_run
from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.capture.tracking import TrackedNames, all_rules_of
from flask_chest.declared import Declaration
from flask_chest.errors import ConfigurationError
from flask_chest.protocols import FlatViews, Leases, Store, VariableIndexes
from flask_chest.record import Query

_TASK = "indexes"
_LEASE = timedelta(hours=1)
"""Time after which another process may begin, should the first one hang."""


class Derived(NamedTuple):
    """What a chest wants to have in its store."""

    indexed: tuple[str, ...] = ()
    """Variables that are to have an index."""
    views: tuple[Declaration, ...] = ()
    """Declared classes that are to have a view."""

    @property
    def units(self) -> dict[str, str]:
        """Unit of each declared variable that has one."""
        fields = (field for each in self.views for field in each.fields)
        return {field.name: field.unit for field in fields if field.unit is not None}


def declarations_of(app: Flask | None, chest: object, tracked: Iterable[TrackedNames]) -> list[Declaration]:
    """Return what *tracked* declares, and what the views of *app* do for *chest* as they are now."""
    asked = list(tracked)
    for view in app.view_functions.values() if app is not None else ():
        asked += [rule.tracked for rule in all_rules_of(view) if rule.chests is None or chest in rule.chests]
    return list(dict.fromkeys(each for names in asked for each in names.declarations))


def derived_from(declarations: Sequence[Declaration], indexed: Sequence[str]) -> Derived:
    """Return what *declarations*, and the variables of the setting *indexed*, ask for.

    Raise `ConfigurationError` if two classes would have one view.
    """
    views: dict[str, Declaration] = {}
    for each in declarations:
        known = views.setdefault(each.view, each)
        if known.declared is not each.declared:
            first, second = known.declared, each.declared
            raise ConfigurationError(
                f"{first.__module__}.{first.__qualname__} and {second.__module__}.{second.__qualname__} would "
                "have one view: give one of them another name"
            )
    names = [field.name for each in declarations for field in each.fields if field.indexed]
    return Derived(tuple(dict.fromkeys([*indexed, *names])), tuple(views.values()))


def missing_indexes(store: VariableIndexes, names: Sequence[str]) -> list[str]:
    """Return those of *names* on which there is no index that the database uses; raise what *store* raises."""
    there = {index.variable for index in store.indexes() if index.valid}
    return [name for name in names if name not in there]


def make_if_empty(
    store: Store, derived: Derived, *, owner: str, failed: Callable[[Exception], object]
) -> Making | None:
    """Begin to make what is *derived* if *store* holds no records, and return what does.

    An index that is not valid is left alone, as another process may be making it, and so is a view that is there.
    Of several processes one makes them, if the store has leases: *owner* is a text of no other process. In a
    thread of its own, since a database may wait for every transaction that has begun before, the caller's among
    them. Raise what *store* raises, and tell *failed* what it raises in the thread, which holds nothing
    else.
    """
    if not any(derived) or not threads_run() or any(store.query(Query(limit=1))):
        return None
    makes: list[Callable[[], object]] = []
    if isinstance(store, FlatViews):
        makes += [partial(store.make_view, each) for each in derived.views if store.view_state(each) == "absent"]
    if isinstance(store, VariableIndexes):
        there = {index.variable for index in store.indexes()}
        makes += [partial(store.add_index, name) for name in derived.indexed if name not in there]
    if not makes:
        return None
    return Making(partial(_make_alone, store, makes, owner, failed))


class Making:
    """A thread that makes what is derived, native also under gevent, whose greenlets would all wait for it."""

    def __init__(self, make: Callable[[], None]) -> None:
        """Begin to *make*; ``RuntimeError`` where no more threads can be started."""
        self._over = native_lock()
        self._over.acquire()
        start_native_thread(partial(_and_then, make, self._over.release))

    def join(self, timeout: float) -> None:
        """Wait at most *timeout* seconds until it is over."""
        if self._over.acquire(timeout=timeout):
            self._over.release()


def _and_then(make: Callable[[], None], then: Callable[[], None]) -> None:
    try:
        make()
    finally:
        then()


def _make_alone(
    store: Store, makes: Sequence[Callable[[], object]], owner: str, failed: Callable[[Exception], object]
) -> None:
    with suppress_instrumentation():
        try:
            if not isinstance(store, Leases):
                _make(makes, failed)
            # In PostgreSQL, builds on one table may wait for each other: one fails, and its index stays invalid.
            elif store.hold(_TASK, owner=owner, lease=_LEASE):
                try:
                    _make(makes, failed)
                finally:
                    store.let_go(_TASK, owner=owner)
        except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything
            failed(exc)


def _make(makes: Sequence[Callable[[], object]], failed: Callable[[Exception], object]) -> None:
    for make in makes:
        try:
            make()
        except Exception as exc:  # noqa: BLE001 - as above; what comes next may succeed
            failed(exc)
