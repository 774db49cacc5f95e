"""Statistics of any variables, compared with what plain Python makes of the records."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import count
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_chest.protocols import GroupBy, Variable
from flask_chest.record import JSONValue, Query, Record, same_value
from flask_chest.testing import make_record
from flask_chest.testing.contracts import CountingStore
from json_values import integers, json_values, texts

_few: st.SearchStrategy[JSONValue] = st.sampled_from(
    [0, 0.0, False, 1, 1.0, True, "1", None, [1], [1.0], {"a": 1, "b": 2}, {"b": 2, "a": 1}, -0.0]
)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_values = _few | json_values | integers | _floats
_names = st.sampled_from(["v", "w"]) | texts
_moments = count(1)


@st.composite
def _records(draw: st.DrawFn) -> tuple[str, str, list[Record]]:
    first, second = draw(_names), draw(_names)
    request_id = str(uuid4())  # tells this example's records from those of the others
    began = next(_moments) * 10
    rows = draw(
        st.lists(
            st.tuples(
                st.dictionaries(st.sampled_from([first, second]) | texts, _values, max_size=4),
                st.sampled_from([None, "/a", "/b"]),
                st.integers(0, 3),
            ),
            max_size=12,
        )
    )
    return (
        first,
        second,
        [
            make_record(request_id=request_id, variables=variables, route=route, time_unix_nano=began + moment)
            for variables, route, moment in rows
        ],
    )


class StatisticsProperty:
    """Needs the fixture *store*, which is open; what else it holds does not matter."""

    # What finds a fault in one store may well find one in another: their examples are kept together.
    @settings(
        max_examples=25,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,
        ],
    )
    @given(asked=_records(), limit=st.integers(0, 5))
    def test_statistics_of_any_variables_are_those_of_the_records(
        self, store: CountingStore, asked: tuple[str, str, list[Record]], limit: int
    ) -> None:
        variable, other, records = asked
        store.write(records)
        query = Query(request_id=records[0].request_id if records else "nobody's")
        expected = _grouped(records, lambda record: variable in record.variables, Variable(variable))
        found = store.top(variable, query, limit=limit)
        assert [each.records for each in found] == [len(group) for _, group in expected[:limit]]
        assert all(same_value(each.value, value) for each, (value, _) in zip(found, expected, strict=False))
        for by in (None, "route", Variable(other)):
            _assert_summaries(store, variable, query, records, by)


def _assert_summaries(
    store: CountingStore, variable: str, query: Query, records: list[Record], by: GroupBy | None
) -> None:
    expected = _grouped(records, lambda record: type(record.variables.get(variable)) in (int, float), by)
    found = store.summarise(variable, query, by=by)
    assert [each.records for each in found] == [len(group) for _, group in expected]
    for summary, (value, group) in zip(found, expected, strict=True):
        numbers = [float(record.variables[variable]) for record in group]  # type: ignore[arg-type]
        assert same_value(summary.group, value)
        assert (summary.minimum, summary.maximum) == (min(numbers), max(numbers))
        mean = float(sum(map(Fraction, numbers)) / len(numbers))
        assert math.isclose(summary.mean, mean, rel_tol=1e-9, abs_tol=1e-9 * max(map(abs, numbers)))


def _grouped(
    records: list[Record], is_wanted: Callable[[Record], bool], by: GroupBy | None
) -> list[tuple[JSONValue, list[Record]]]:
    groups: list[tuple[JSONValue, list[Record]]] = []
    for record in sorted(filter(is_wanted, records), key=lambda each: (each.time_unix_nano, each.id)):
        if isinstance(by, Variable):
            if by.name not in record.variables:
                continue
            value = record.variables[by.name]
        else:
            value = record.route if by is not None else None
        known = next((group for each, group in groups if same_value(each, value)), None)
        if known is None:
            groups.append((value, [record]))
        else:
            known.append(record)
    return sorted(groups, key=lambda item: -len(item[1]))  # stable: they are in the order first seen
