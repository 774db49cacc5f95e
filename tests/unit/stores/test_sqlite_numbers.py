from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest.record import encode_value
from flask_chest.stores.sqlite.connections import add_functions
from flask_chest.stores.sqlite.variables import NUMBER


def read(numbers: Sequence[float]) -> list[float]:
    with closing(sqlite3.connect(":memory:")) as connection:
        add_functions(connection)
        select = f"SELECT {NUMBER.format(value=':number')}"
        return [connection.execute(select, {"number": encode_value(number)}).fetchone()[0] for number in numbers]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)))
def test_number_is_read_to_its_last_digit(numbers: list[float]) -> None:
    assert read(numbers) == list(map(float, numbers))


@pytest.mark.slow
def test_short_number_is_read_to_its_last_digit() -> None:
    draw = random.Random(0)
    numbers = [
        float(f"{draw.random() * 10 ** draw.randint(-4, 6):.{draw.randint(1, 17)}g}") for _ in range(50_000)
    ]
    assert read(numbers) == numbers
