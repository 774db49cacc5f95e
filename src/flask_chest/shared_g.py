"""Which names of a ``g`` that outlives requests belong to the current one."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from weakref import WeakKeyDictionary, WeakSet


class SharedG:
    """Tells apart what a request set on ``g`` from what was there before it.

    Up to Flask 3.1 a request under an outer ``app.app_context()``, as in tests and scripts, has that context's
    ``g``, with all that former requests left on it. While requests run, the object's class notes which names
    are set: comparing values would miss one that is set again to the same constant.
    """

    def __init__(self, shared: object) -> None:
        """Begin to watch *shared*."""
        self.shared = shared
        self._before = dict(vars(shared))
        self._set = set[str]()
        with _watching:
            # A class that refuses to be subclassed leaves the comparison by identity.
            with suppress(Exception):
                if type(shared) not in _plain_kinds:
                    # Flask's own __setattr__ would make an entry of g named __class__.
                    object.__setattr__(shared, "__class__", _watched(type(shared)))
            _watchers.setdefault(shared, WeakSet()).add(self)

    def of_request(self, g: object) -> Mapping[str, object]:
        """Give what the request has on *g*, which is the shared one up to Flask 3.1 and its own after that."""
        return self.own() if g is self.shared else vars(g)

    def note(self, name: str) -> None:
        """Count *name* as set by this request."""
        self._set.add(name)

    def own(self) -> dict[str, object]:
        """Give what this request has set, or changed by ``setdefault``."""
        before = self._before
        return {
            name: value
            for name, value in vars(self.shared).items()
            if name in self._set or name not in before or before[name] is not value
        }

    def end(self) -> None:
        """Stop watching; safe again. The last of overlapping requests gives the object its class back."""
        with _watching:
            watchers = _watchers.get(self.shared)
            if watchers is None:
                return
            watchers.discard(self)
            if not watchers:
                del _watchers[self.shared]
                kind = type(self.shared)
                if kind in _plain_kinds:
                    object.__setattr__(self.shared, "__class__", _plain_kinds[kind])


_watching = threading.Lock()
_watchers: WeakKeyDictionary[object, WeakSet[SharedG]] = WeakKeyDictionary()
"""Weak on both sides: a streamed response that nobody closes never ends its watch."""
_watched_kinds: dict[type, type] = {}
"""Class of a ``g`` → the class made of it that notes; an app has one."""
_plain_kinds: dict[type, type] = {}
"""The way back."""


def _watched(kind: type[object]) -> type[object]:
    if kind in _watched_kinds:
        return _watched_kinds[kind]

    def note(instance: object, name: str, value: object) -> None:
        for watcher in tuple(_watchers.get(instance, ())):
            watcher.note(name)
        kind.__setattr__(instance, name, value)

    watched = type(kind.__name__, (kind,), {"__setattr__": note, "__module__": kind.__module__})
    _watched_kinds[kind] = watched
    _plain_kinds[watched] = kind
    return watched
