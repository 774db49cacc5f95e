"""Blocks of records in the format Native, read back by the driver's own parser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver import ctypes
from clickhouse_connect.driver.transform import NativeTransform
from hypothesis import given
from hypothesis import strategies as st

from flask_chest.errors import RecordRefused
from flask_chest.record import JSONValue, Record
from flask_chest.stores.clickhouse.native import block_of
from flask_chest.stores.clickhouse.rows import COLUMNS, record_of
from flask_chest.testing import make_record
from json_values import json_values, texts


class _Source:
    """An answer that comes in one piece."""

    last_message = None

    def __init__(self, block: bytes) -> None:
        self.gen: Iterator[bytes] = iter([block])

    def close(self) -> None:
        """Do nothing."""


def read(block: bytes) -> Any:
    buffer: Any = ctypes.RespBuffCls
    return NativeTransform.parse_response(buffer(_Source(block)))


@pytest.mark.slow
@given(held=st.lists(st.dictionaries(texts, json_values, max_size=4), min_size=1, max_size=5))
def test_block_holds_the_records(held: list[dict[str, JSONValue]]) -> None:
    records = [make_record(variables=variables) for variables in held]
    found = read(block_of(records))
    assert found.column_names == COLUMNS
    assert list(map(record_of, found.result_rows)) == records


@pytest.mark.parametrize("length", [0, 1, 127, 128, 1023, 1024, 16_383, 16_384, 3_000_000])
def test_text_of_any_length_is_written(length: int) -> None:
    record = make_record(route="é" * length, trace_id="x" * length, variables={"v": "\n" * length})
    assert [record_of(row) for row in read(block_of([record])).result_rows] == [record]


def test_what_is_absent_and_what_is_there_stand_side_by_side() -> None:
    records = [
        make_record(trace_id="a", span_id="", trace_flags=0, trace_remote=False, error="", route=None),
        make_record(),
        make_record(trace_flags=-(2**63), trace_remote=True, endpoint="é", duration_ns=2**63 - 1),
    ]
    assert [record_of(row) for row in read(block_of(records)).result_rows] == records


def test_block_of_the_same_records_is_the_same() -> None:
    """By its digest the server knows a batch that comes again."""
    records = [make_record(route=f"/{number % 7}", variables={str(number): number}) for number in range(50)]
    assert block_of(records) == block_of(list(records))


@pytest.mark.parametrize(
    ("unstorable", "reason"),
    [
        (make_record(status_code=True), "status_code is of the type bool"),
        (make_record(duration_ns=2**63), "one of its numbers is beyond 64 bits"),
        (make_record(trace_flags=-(2**63) - 1), "one of its numbers is beyond 64 bits"),
        (make_record(sample_rate=float("nan")), "sample_rate is not above 0 and at most 1"),
        (make_record(route="\ud800"), "one of its texts holds a lone surrogate"),
        (make_record(trace_id="\ud800"), "one of its texts holds a lone surrogate"),
        (make_record(variables={"\ud800": 1}), "one of its texts holds a lone surrogate"),
        (make_record(variables={"v": ["\ud800"]}), "one of its texts holds a lone surrogate"),
        (make_record(variables={1: 1}), "a variable's name is of the type int"),  # type: ignore[dict-item]  # that is the fault
        (make_record(variables={"v": 2**63}), "variable 'v' holds an integer beyond 64 bits"),
        (make_record(variables={"v": float("inf")}), "variable 'v' holds a float that is not finite"),
        (make_record(variables={"v": [float("nan")]}), "variable 'v' holds a float that is not finite"),
        (make_record(variables={"v": b""}), "variable 'v' holds a bytes, which is not a JSON value"),  # type: ignore[dict-item]  # as above
    ],
)
def test_record_that_cannot_be_kept_is_named_with_the_reason(unstorable: Record, reason: str) -> None:
    with pytest.raises(RecordRefused) as refused:
        block_of([make_record(), unstorable, make_record()])
    assert refused.value.reasons == {unstorable.id: reason}


@pytest.mark.slow
def test_to_write_a_block_loads_neither_pandas_nor_numpy() -> None:
    code = (
        "import sys; from flask_chest.testing import make_record;"
        "from flask_chest.stores.clickhouse.native import block_of; block_of([make_record()]);"
        "sys.exit(len({'pandas', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
