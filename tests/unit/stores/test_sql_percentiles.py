"""The fractions by which databases take percentiles."""

from __future__ import annotations

from math import ceil

import pytest

from flask_chest.stores.sql.measures import fraction
from flask_chest.stores.sql.written import digits

SIZES = [*range(1, 4_001), *(size + near for size in (10**6, 10**9, 2**40) for near in range(-101, 102))]


@pytest.mark.parametrize("p", range(1, 101))
def test_fraction_has_the_nearest_rank_among_any_number_of_numbers(p: int) -> None:
    share = float(digits(fraction(p)))  # as a database reads it
    assert [n for n in SIZES if ceil(share * n) != (n * p + 99) // 100] == []


def test_share_itself_would_miss_the_nearest_rank() -> None:
    assert ceil(28 / 100 * 25) == 8 != ceil(fraction(28) * 25) == (25 * 28 + 99) // 100
