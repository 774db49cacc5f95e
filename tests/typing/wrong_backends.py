"""Backends with a mistake each. The errors expected of mypy and pyright stand above the lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from flask_chest import Exporter, FlaskChest, Query, Record, Sink, Store
from flask_chest.protocols import StoreStatus


class WithoutStatus:
    def open(self) -> None: ...

    def write(self, records: Sequence[Record], /) -> None: ...

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        return []

    def close(self) -> None: ...


class Misspelt(Sink):
    def wriet(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class MisspeltExporter(Exporter):
    @property
    def name(self) -> str:
        return "misspelt"

    def exprot(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class WrongSignature:
    def open(self) -> None: ...

    def write(self, record: Record, /) -> None: ...

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
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


class RightExporter:
    name = "right"

    def export(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class AsyncExporter:
    name = "async"

    async def export(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


def make_nothing() -> None: ...


chest = FlaskChest()

# by mypy: "WithoutStatus" is missing following "Store" protocol member: status
# by pyright: "status" is not present
without: Store = WithoutStatus()

# by mypy: Cannot instantiate abstract class "Misspelt" with abstract attribute "write"
# by pyright: Cannot instantiate abstract class "Misspelt" "Sink.write" is not implemented
misspelt = Misspelt()

# by mypy: Cannot instantiate abstract class "MisspeltExporter" with abstract attribute "export"
# by pyright: Cannot instantiate abstract class "MisspeltExporter" "Exporter.export" is not implemented
misspelt_exporter = MisspeltExporter()

# by mypy: def write(self, Record, /) -> None
# by pyright: "Sequence[Record]" is not assignable to "Record"
wrong: Store = WrongSignature()

# by mypy: def write(self, Sequence[Record], /) -> Coroutine[Any, Any, None]
# by pyright: "CoroutineType[Any, Any, None]" is not assignable to "None"
unawaited: Sink = AsyncSink()

# by mypy: "NamelessExporter" is missing following "Exporter" protocol member: name
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

# by mypy: Argument "store" to "FlaskChest" has incompatible type "Callable[[], None]"
# by pyright: Type "() -> None" is not assignable to type "() -> Store"
FlaskChest(store=make_nothing)

# by mypy: Argument "start_at" to "add_exporter" of "FlaskChest" has incompatible type "Literal['end']"
# by pyright: "Literal['end']" is not assignable to type "Literal['beginning']"
chest.add_exporter(RightExporter(), start_at="end")

# by mypy: Argument "interval" to "add_exporter" of "FlaskChest" has incompatible type "int"
# by pyright: "Literal[30]" is not assignable to "timedelta"
chest.add_exporter(RightExporter(), interval=30)

# by mypy: Dict entry 0 has incompatible type "str": "object"
# by pyright: Type "object" is not assignable to type "JSONValue | Condition | tuple[Condition, ...]"
chest.query(where={"user": object()})

# by mypy: No overload variant of "query" of "FlaskChest" matches argument type "str"
# by pyright: "Literal['yesterday']" is not assignable to "datetime"
chest.query(since="yesterday")
