"""Answers by column: files of Parquet and Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from flask_chest.cli._files import written_whole
from flask_chest.cli._group import asking_store
from flask_chest.cli._output import amount, say_progress
from flask_chest.errors import StoreAbsent
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import Columns
from flask_chest.record import Query

FileFormat: TypeAlias = Literal["parquet", "arrow"]
FILE_FORMATS: tuple[FileFormat, ...] = ("parquet", "arrow")


def write_columns(
    chests: Sequence[FlaskChest], wanted: Query, output: Path, form: FileFormat, *, timeout: timedelta | None
) -> int:
    """Write what the stores of *chests* answer into the file *output*; return the number of records."""
    from flask_chest.extension import arrow  # noqa: PLC0415 - an extra

    kinds = arrow.kinds_of(each for chest in chests for each in chest._state.derived().views)
    counted = Counted(chunk for chest in chests for chunk in column_answers(chest, wanted, timeout=timeout))
    write = arrow.write_parquet if form == "parquet" else arrow.write_arrow
    with written_whole(output) as partial:
        write(partial, arrow.batches(counted, kinds), kinds)
    return counted.count


def column_answers(chest: FlaskChest, wanted: Query, *, timeout: timedelta | None) -> Iterator[Columns]:
    """Yield the columns of what the store of *chest* answers: none where there is none yet; exit if it cannot."""
    from flask_chest.extension.arrow import columns_of  # noqa: PLC0415 - an extra

    with suppress(StoreAbsent), asking_store():
        yield from columns_of(chest._state.here.store, wanted, timeout=timeout)


class Counted:
    """Counts the records of *chunks* on the way, and shows how many there were."""

    def __init__(self, chunks: Iterable[Columns]) -> None:
        self._chunks = chunks
        self.count = 0

    def __iter__(self) -> Iterator[Columns]:
        for chunk in self._chunks:
            self.count += len(chunk["id"])
            say_progress(amount(self.count))
            yield chunk
