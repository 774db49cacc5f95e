"""Which names of a ``g`` that outlives requests belong to the current one."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from weakref import WeakKeyDictionary, ref

from flask_chest._process import PerProcess


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
        with _turns.get():
            # First, so that no end of another request in between gives the object its class back.
            _watchers[shared] = (*_watchers.get(shared, ()), ref(self))
            # A class that refuses to be subclassed leaves the comparison by identity.
            with suppress(Exception):
                if type(shared) not in _plain_kinds:
                    # Flask's own __setattr__ would make an entry of g named __class__.
                    object.__setattr__(shared, "__class__", _watched(type(shared)))

    def of_request(self, g: object) -> Mapping[str, object]:
        """Return what the request has on *g*, which is the shared one up to Flask 3.1 and its own after that."""
        return self.own() if g is self.shared else vars(g)

    def note(self, name: str) -> None:
        """Note that this request has set *name*."""
        self._set.add(name)

    def own(self) -> dict[str, object]:
        """Return what this request has set, or changed by ``setdefault``."""
        before = self._before
        return {
            name: value
            for name, value in vars(self.shared).items()
            if name in self._set or name not in before or before[name] is not value
        }

    def end(self) -> None:
        """Stop watching; safe again. The last of overlapping requests gives the object its class back."""
        with _turns.get():
            watchers = tuple(each for each in _watchers.get(self.shared, ()) if each() not in {None, self})
            if watchers:
                _watchers[self.shared] = watchers
            elif _watchers.pop(self.shared, None) is not None:
                kind = type(self.shared)
                with suppress(KeyError):  # it was not watched, or it has a class of the app's by now
                    object.__setattr__(self.shared, "__class__", _plain_kinds[kind])


_turns = PerProcess(threading.RLock)
"""The lock under which the watchers of a ``g`` and its class change together.

A stream may end while a finalizer runs, which may be in the middle of a turn of the same thread, so it is one
that a thread may take again. A forked child has its own: the thread that held it is not there.
"""
_watchers: WeakKeyDictionary[object, tuple[ref[SharedG], ...]] = WeakKeyDictionary()
"""Watchers of each ``g``. Weak on both sides: a streamed response that nobody closes never ends its watch.
Tuples, since the class looks at them without the lock."""
_watched_kinds: dict[type, type] = {}
"""Subclass that notes, by the class of a ``g``; an app has one."""
_plain_kinds: dict[type, type] = {}
"""Class of a ``g``, by the subclass that notes."""


def _watched(kind: type[object]) -> type[object]:
    if kind in _watched_kinds:
        return _watched_kinds[kind]

    def note(instance: object, name: str, value: object) -> None:
        for watcher in _watchers.get(instance, ()):
            if (watching := watcher()) is not None:
                watching.note(name)
        kind.__setattr__(instance, name, value)

    watched = type(kind.__name__, (kind,), {"__setattr__": note, "__module__": kind.__module__})
    _watched_kinds[kind] = watched
    _plain_kinds[watched] = kind
    return watched
