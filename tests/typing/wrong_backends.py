"""Backends with a mistake each. The errors expected of mypy and pyright stand above the lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flask_chest import Exporter, FlaskChest, Query, Record, Sink, Store
from flask_chest.protocols import StoreStatus


class WithoutStatus:
    def open(self) -> None: ...

    def write(self, records: Sequence[Record], /) -> None: ...

    def query(self, query: Query, /) -> Iterable[Record]:
        return []

    def close(self) -> None: ...


class Misspelt(Sink):
    def wriet(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class WrongSignature:
    def open(self) -> None: ...

    def write(self, record: Record, /) -> None: ...

    def query(self, query: Query, /) -> Iterable[Record]:
        return []

    def close(self) -> None: ...

    def status(self) -> StoreStatus:
        return StoreStatus(description="nothing", records=0)


class AsyncSink:
    async def write(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class NamelessExporter:
    def export(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class AsyncExporter:
    name = "async"

    async def export(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


chest = FlaskChest()

# by mypy: "WithoutStatus" is missing following "Store" protocol member
# by pyright: "status" is not present
without: Store = WithoutStatus()

# by mypy: Cannot instantiate abstract class "Misspelt" with abstract attribute "write"
# by pyright: Cannot instantiate abstract class "Misspelt"
misspelt = Misspelt()

# by mypy: def write(self, Record, /) -> None
# by pyright: "Sequence[Record]" is not assignable to "Record"
wrong: Store = WrongSignature()

# by mypy: def write(self, Sequence[Record], /) -> Coroutine[Any, Any, None]
# by pyright: "CoroutineType[Any, Any, None]" is not assignable to "None"
unawaited: Sink = AsyncSink()

# by mypy: "NamelessExporter" is missing following "Exporter" protocol member
# by pyright: "name" is not present
nameless: Exporter = NamelessExporter()

# by mypy: def export(self, Sequence[Record], /) -> Coroutine[Any, Any, None]
# by pyright: "CoroutineType[Any, Any, None]" is not assignable to "None"
undelivered: Exporter = AsyncExporter()

# by mypy: Argument "store" to "FlaskChest" has incompatible type "WithoutStatus"
# by pyright: "status" is not present
FlaskChest(store=WithoutStatus())

# by mypy: Argument 1 to "add_exporter" of "FlaskChest" has incompatible type "NamelessExporter"
# by pyright: "name" is not present
chest.add_exporter(NamelessExporter())
