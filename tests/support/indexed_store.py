"""A store in memory that keeps the names of indexes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import VariableIndex, VariableIndexes
from flask_chest.stores.memory import MemoryStore


class IndexedStore(MemoryStore, VariableIndexes):
    """Fails with *failure* if it has one, and makes an index only while it is *free*."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, VariableIndex] = {}
        self.failure: Exception | None = None
        self.begun = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def indexes(self) -> Sequence[VariableIndex]:
        return [self.kept[name] for name in sorted(self.kept)]

    def add_index(self, variable: str, /) -> bool:
        self._check(variable)
        if variable in self.kept and self.kept[variable].valid:
            return False
        self.begun.set()
        assert self.free.wait(60)
        self.kept[variable] = VariableIndex(variable=variable, name=f"by_{variable}")
        return True

    def index_progress(self, variable: str, /) -> float | None:
        return None

    def remove_index(self, variable: str, /) -> bool:
        self._check(variable)
        return self.kept.pop(variable, None) is not None

    def _check(self, variable: str) -> None:
        if self.failure is not None:
            raise self.failure
        if not variable.isidentifier():
            raise ConfigurationError(f"{variable!r} cannot be indexed")
