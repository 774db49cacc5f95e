"""What a sink and a store must do."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import product
from operator import attrgetter
from typing import Literal

import msgspec
import pytest

from flask_chest.errors import QueryTimeout, RecordRefused
from flask_chest.protocols import Sink, Store, hand_over
from flask_chest.record import Bound, Condition, JSONValue, Query, Record, ge, is_set, lt, one_of
from flask_chest.testing.records import make_record

_NUMBERS = (
    *(0, 1, -1, 0.0, 1.0, 0.5, 0.1 + 0.2, 1e-7, 5e-324, 1.7976931348623157e308, 1e16),
    *(10**16, 2**53 + 1, 2**63 - 1, -(2**63)),
)
_TEXTS = (
    *("", "0", "1", "1.0", "true", "null", "None", "a", "A", " a ", "x" * 8192),
    *(
        "'",
        '"',
        "\\",
        "\\u0041",
        "%",
        "%s",
        "%(x)s",
        "?",
        "{}",
        "a.b",
        "$set",
        "'; DROP TABLE flask_chest; --",
    ),
    *("a\n\t\r", "\x1f\x7f", "é", "e\u0301", "日本語", "😀", "\u2028", "\uffff"),
)
_ARRAYS: tuple[list[JSONValue], ...] = ([], [[]], [{}], [1], [1.0], [True], [None], ["1"], [1, 2], [2, 1])
_OBJECTS: tuple[dict[str, JSONValue], ...] = (
    {},
    {"": 0},
    {"a": []},
    {"a": 1},
    {"a": 1.0},
    {"a": None},
    {"b": 1, "a": [0.0]},
    {"a.b": {"$set": [1, {"'": '"'}]}},
)

VALUES: tuple[JSONValue, ...] = (None, True, False, *_NUMBERS, *_TEXTS, *_ARRAYS, *_OBJECTS)
"""No two are the same value: 1, 1.0, ``True`` and ``"1"`` are four."""

NAMES = (
    *("", " ", "a.b", "$set", "$", "[0]", "#-1", "%s", "'", '"', "\\", "a\nb", "é", "😀", "__class__"),
    "x" * 255,
)
"""Names of variables that are something else to somebody."""

_QUERIES = (
    Query(request_id="r1"),
    Query(id="absent"),
    Query(trace_id="t1"),
    Query(route="/a"),
    Query(method="POST"),
    Query(status_code=500),
    Query(status_class=5),
    Query(status_class=2, method="GET"),
    Query(status_class=2, status_code=500),
    Query(status_class=5, status_code=500),
    Query(status_class=2**70),
    Query(errors=True),
    Query(errors=True, status_class=2, since_unix_nano=6),
    Query(error="ValueError"),
    Query(error="ValueError", errors=True, route="/a"),
    Query(error="absent"),
    Query(since_unix_nano=4),
    Query(until_unix_nano=4),
    Query(where={"plan": "pro"}),
    Query(route="/a", method="POST"),
    Query(trace_id="t1", status_code=200, where={"plan": "pro"}),
    Query(since_unix_nano=2, until_unix_nano=6, route="/b"),
    Query(request_id="r1", trace_id="t0", route="/a", method="GET", status_code=200),
    Query(request_id="absent"),
    Query(route=""),
)

_OPERATORS: tuple[Literal["gt", "ge", "lt", "le"], ...] = ("gt", "ge", "lt", "le")


class SinkContract:
    """What a sink must do.

    Needs two fixtures: *sink*, and *kept*, a function that reads back all records that it keeps.
    """

    def test_record_is_kept_as_it_was(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        record = make_record(
            time_unix_nano=1_700_000_000_123_456_789,
            duration_ns=1,
            error="ValueError",
            trace_id="0af7651916cd43dd8448eb211c80319c",
            span_id="b7ad6b7169203331",
            trace_flags=1,
            trace_remote=True,
            variables={"user_id": 42, "plan": "pro", "total_time": 0.25, "beta": True, "cart": [1, None]},
        )
        hand_over(sink.write, [record])
        assert list(kept()) == [record]

    def test_every_field_at_its_limits_is_kept(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        records = [
            make_record(time_unix_nano=0, duration_ns=0, route=None, endpoint=None, variables={}),
            make_record(time_unix_nano=2**63 - 1, duration_ns=2**63 - 1, status_code=599, trace_flags=0),
            make_record(request_id="é" * 255, route="/😀/<path:a>", endpoint="a.b", trace_remote=False),
        ]
        sink.write(records)
        assert sorted(kept(), key=attrgetter("id")) == sorted(records, key=attrgetter("id"))

    def test_variable_comes_back_with_its_value_and_type(
        self, sink: Sink, kept: Callable[[], Sequence[Record]]
    ) -> None:
        records = [make_record(variables={"v": value}) for value in VALUES]
        sink.write(records)
        assert _by_id(kept()) == _by_id(records)

    def test_sample_rate_comes_back_as_the_same_double(
        self, sink: Sink, kept: Callable[[], Sequence[Record]]
    ) -> None:
        rates = (1.0, 0.1, 1 / 3, 1e-6, 0.1 + 0.2, 1 - 2**-53, 2.2250738585072014e-308)
        records = [make_record(sample_rate=rate) for rate in rates]
        sink.write(records)
        assert _by_id(kept()) == _by_id(records)

    def test_negative_zero_keeps_its_sign(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        sink.write([make_record(variables={"v": -0.0})])
        zero = kept()[0].variables["v"]
        assert isinstance(zero, float)
        assert math.copysign(1, zero) == -1

    def test_variable_of_any_name_is_kept(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        record = make_record(variables={name: {name: index} for index, name in enumerate(NAMES)})
        sink.write([record])
        assert list(kept()) == [record]

    def test_record_written_twice_is_kept_once(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        record = make_record()
        sink.write([record])
        sink.write([record])
        assert list(kept()) == [record]

    def test_record_twice_in_one_batch_is_kept_once(
        self, sink: Sink, kept: Callable[[], Sequence[Record]]
    ) -> None:
        record = make_record()
        sink.write([record, record])
        assert list(kept()) == [record]

    def test_batch_that_was_kept_in_part_is_completed(
        self, sink: Sink, kept: Callable[[], Sequence[Record]]
    ) -> None:
        records = [make_record() for _ in range(5)]
        sink.write(records[1:3])
        sink.write(records)
        assert {record.id for record in kept()} == {record.id for record in records}
        assert len(kept()) == len(records)

    def test_first_content_of_an_id_stays(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        first = make_record(variables={"v": 1})
        sink.write([first])
        sink.write([msgspec.structs.replace(first, variables={"v": 1.0}), make_record()])
        assert first in kept()
        assert len(kept()) == 2

    def test_empty_batch_changes_nothing(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        hand_over(sink.write, [])
        assert list(kept()) == []

    def test_large_batch_is_kept_whole(self, sink: Sink, kept: Callable[[], Sequence[Record]]) -> None:
        records = [make_record() for _ in range(2_500)]
        sink.write(records)
        assert {record.id for record in kept()} == {record.id for record in records}

    def test_sink_may_be_closed_twice(self, sink: Sink) -> None:
        sink.write([make_record()])
        sink.close()
        sink.close()


class StoreContract(SinkContract):
    """What a store must do; needs the fixture *store*, a store that is open and empty."""

    @pytest.fixture
    def sink(self, store: Store) -> Sink:
        """Test the store as a sink too."""
        return store

    @pytest.fixture
    def kept(self, store: Store) -> Callable[[], Sequence[Record]]:
        """Read back by a query without limits."""
        return lambda: list(store.query(Query(limit=None)))

    def test_store_may_be_opened_again(self, store: Store) -> None:
        record = make_record()
        store.write([record])
        store.open()
        assert list(store.query(Query())) == [record]

    @pytest.mark.parametrize(
        "unstorable",
        [
            make_record(variables={"v": "\ud800"}),
            make_record(variables={"\udfff": 1}),
            make_record(variables={"v": [2**63]}),
            make_record(variables={"v": {"w": -(2**63) - 1}}),
            make_record(variables={"v": math.nan}),
            make_record(variables={"v": math.inf}),
            make_record(request_id="\ud800"),
            make_record(duration_ns=2**63),
            make_record(sample_rate=0.0),
            make_record(sample_rate=1.5),
            make_record(sample_rate=math.nan),
            make_record(sample_rate=1),
        ],
        ids=[
            *("text", "name", "array", "object", "nan", "infinity", "request_id", "duration_ns"),
            *("no_rate", "large_rate", "nan_rate", "whole_rate"),
        ],
    )
    def test_record_that_cannot_be_kept_is_named_and_nothing_of_its_batch_kept(
        self, store: Store, unstorable: Record
    ) -> None:
        with pytest.raises(RecordRefused) as refused:
            store.write([make_record(), unstorable, make_record()])
        assert list(refused.value.reasons) == [unstorable.id]
        assert list(store.query(Query())) == []

    def test_newest_record_comes_first(self, store: Store) -> None:
        records = [make_record(time_unix_nano=time) for time in (5, 1, 4, 2, 3)]
        store.write(records)
        assert [record.time_unix_nano for record in store.query(Query())] == [5, 4, 3, 2, 1]

    def test_all_come_in_order_where_time_is_crowded_and_where_it_is_empty(self, store: Store) -> None:
        now, day = time.time_ns(), 24 * 3600 * 1_000_000_000
        crowds = [(now + day, 1), (now, 600), (now - day, 3), (now - 900 * day, 1_100), (1, 2)]
        moments = [begin + number % 550 for begin, count in crowds for number in range(count)]
        records = [make_record(time_unix_nano=moment) for moment in moments]
        store.write(records)
        found = list(store.query(Query(limit=None)))
        assert found == sorted(records, key=lambda each: (each.time_unix_nano, each.id), reverse=True)
        bounded = list(store.query(Query(limit=None, since_unix_nano=now - 2 * day, until_unix_nano=now + 300)))
        assert bounded == [each for each in found if now - 2 * day <= each.time_unix_nano < now + 300]

    def test_records_of_one_time_come_in_descending_order_of_their_ids(self, store: Store) -> None:
        ids = ["a", "C", "b", "é", "10", "9", "😀", "\uffff"]
        store.write([make_record(id=id_, time_unix_nano=7) for id_ in ids])
        assert [record.id for record in store.query(Query())] == sorted(ids, reverse=True)

    def test_answer_is_what_the_query_matches(self, store: Store) -> None:
        records = [
            make_record(
                time_unix_nano=index,
                request_id=f"r{index % 3}",
                trace_id=(None, "t0", "t1")[index // 3 % 3],
                route=(None, "/a", "/b")[index // 2 % 3],
                method=("GET", "POST")[index % 2],
                status_code=(200, 500, 204, 499, 599)[index // 4 % 5],
                error=(None, None, "ValueError")[index % 3],
                variables={"plan": ("pro", "free")[index // 5 % 2]},
            )
            for index in range(36)
        ]
        store.write(records)
        for query in _QUERIES:
            assert list(store.query(query)) == [each for each in reversed(records) if query.matches(each)]

    def test_since_is_inclusive_and_until_exclusive(self, store: Store) -> None:
        store.write([make_record(time_unix_nano=time) for time in range(5)])
        answer = store.query(Query(since_unix_nano=1, until_unix_nano=3))
        assert [record.time_unix_nano for record in answer] == [2, 1]

    def test_times_beyond_64_bits_may_be_asked_for(self, store: Store) -> None:
        record = make_record(time_unix_nano=2**63 - 1)
        store.write([record])
        assert list(store.query(Query(since_unix_nano=-(2**70), until_unix_nano=2**70))) == [record]
        assert list(store.query(Query(since_unix_nano=2**70))) == []
        assert list(store.query(Query(until_unix_nano=-(2**70)))) == []

    def test_where_asks_for_the_value_and_its_type(self, store: Store) -> None:
        records = [make_record(variables={"v": value}) for value in VALUES]
        store.write([*records, make_record(variables={})])
        found = [list(store.query(Query(where={"v": value}))) for value in VALUES]
        assert found == [[record] for record in records]

    def test_bound_is_met_by_values_of_its_kind_on_its_side(self, store: Store) -> None:
        _assert_bounds_hold(store, (*_NUMBERS, *_TEXTS), VALUES)

    def test_one_of_asks_for_values_and_their_types(self, store: Store) -> None:
        records = [make_record(variables={"v": value}) for value in VALUES]
        store.write([*records, make_record(variables={})])
        for begin in range(len(VALUES)):
            asked = one_of(*VALUES[begin : begin + 5])
            assert _found(store, asked) == records[begin : begin + 5][::-1]
        assert _found(store, one_of(*VALUES)) == records[::-1]
        assert _found(store, one_of()) == []

    def test_is_set_asks_for_records_that_have_the_variable(self, store: Store) -> None:
        records = [make_record(variables={"v": value}) for value in VALUES]
        store.write([*records, make_record(variables={}), make_record(variables={"V": 1})])
        assert _found(store, is_set()) == records[::-1]

    def test_bound_that_a_database_may_not_take_is_met_all_the_same(self, store: Store) -> None:
        texts = ("\ud800", "a\ud800", "a\0", "a\0b", "a\x01", "\0")
        unusual = ("a\ue000", "\0", "a\0", "a\0b", "a\0c", "a\x01", "a\x01\x01", "a\x02")
        _assert_bounds_hold(store, (*texts, 10**400, -(10**400), 2**64, 1.5 * 2**64), (*VALUES, *unusual))

    def test_several_conditions_must_all_hold(self, store: Store) -> None:
        records = [make_record(variables={"price": number, "plan": "pro"}) for number in range(9)]
        store.write([*records, make_record(variables={"price": 5}), make_record(variables={"plan": "pro"})])
        conditions = (("price", ge(3)), ("price", lt(6.5)), ("plan", is_set()))
        query = Query(where={"plan": "pro"}, conditions=conditions)
        assert list(store.query(query)) == records[6:2:-1]

    def test_where_asks_for_a_variable_of_any_name(self, store: Store) -> None:
        records = [make_record(variables={name: 1}) for name in NAMES]
        store.write(records)
        found = [list(store.query(Query(where={name: 1}))) for name in NAMES]
        assert found == [[record] for record in records]

    def test_where_asks_for_all_its_variables(self, store: Store) -> None:
        both = make_record(variables={"a": 1, "b": None})
        store.write([both, make_record(variables={"a": 1}), make_record(variables={"b": None})])
        assert list(store.query(Query(where={"a": 1, "b": None}))) == [both]

    def test_order_of_an_objects_names_does_not_matter(self, store: Store) -> None:
        record = make_record(variables={"v": {"a": 1, "b": 2}})
        store.write([record])
        assert list(store.query(Query(where={"v": {"b": 2, "a": 1}}))) == [record]

    @pytest.mark.parametrize(
        "where", [{"v": "\ud800"}, {"\ud800": 1}, {"v": 2**64}, {"v": math.nan}, {"v": [2**64]}], ids=ascii
    )
    def test_what_cannot_be_kept_is_not_found(self, store: Store, where: Mapping[str, JSONValue]) -> None:
        store.write([make_record(variables={"v": 1})])
        assert list(store.query(Query(where=where))) == []

    @pytest.mark.parametrize("text", ["' OR 1=1 --", '"', "%", "_", "\\", "'; DROP TABLE flask_chest; --", "*"])
    def test_text_in_a_query_is_nothing_but_text(self, store: Store, text: str) -> None:
        record = make_record(request_id=text, route=text, method=text, trace_id=text)
        store.write([record, make_record()])
        assert list(store.query(Query(request_id=text, route=text, method=text, trace_id=text))) == [record]
        assert list(store.query(Query(request_id=f"{text}'"))) == []

    def test_limit_bounds_the_answer(self, store: Store) -> None:
        records = [make_record() for _ in range(120)]
        store.write(records)
        newest_first = records[::-1]
        assert list(store.query(Query())) == newest_first[:100]
        assert list(store.query(Query(limit=1))) == newest_first[:1]
        assert list(store.query(Query(limit=0))) == []
        assert list(store.query(Query(limit=None))) == newest_first

    def test_answer_that_takes_too_long_is_given_up(self, store: Store) -> None:
        """A limit that no store can keep ends the answer, and a later one is whole again."""
        records = [make_record() for _ in range(3)]
        store.write(records)
        with pytest.raises(QueryTimeout) as info:
            list(store.query(Query(), timeout=timedelta(microseconds=1)))
        assert info.value.timeout == timedelta(microseconds=1)
        for timeout in (timedelta(minutes=1), None):
            assert list(store.query(Query(), timeout=timeout)) == records[::-1]

    def test_limit_counts_what_matches(self, store: Store) -> None:
        records = [make_record(variables={"even": index % 2 == 0}) for index in range(1_400)]
        store.write(records)
        even = records[::-2] if len(records) % 2 else records[-2::-2]
        assert list(store.query(Query(where={"even": True}, limit=600))) == even[:600]

    def test_record_may_be_written_while_an_answer_is_read(self, store: Store) -> None:
        records = [make_record() for _ in range(1_200)]
        store.write(records)
        answer = iter(store.query(Query(limit=None)))
        first = next(answer)
        store.write([make_record()])
        assert [first, *answer] == records[::-1]

    def test_status_counts_what_is_kept(self, store: Store) -> None:
        empty = store.status()
        assert (empty.records, empty.oldest_unix_nano, empty.newest_unix_nano) == (0, None, None)
        store.write([make_record(time_unix_nano=time) for time in (20, 10, 30)])
        status = store.status()
        assert (status.records, status.oldest_unix_nano, status.newest_unix_nano) == (3, 10, 30)
        assert status.description

    def test_id_that_comes_again_with_other_content_is_counted(self, store: Store) -> None:
        record = make_record(variables={"v": 1})
        store.write([record])
        store.write([record])
        assert store.status().conflicts == 0
        store.write([msgspec.structs.replace(record, variables={"v": True}), make_record()])
        assert store.status().conflicts == 1

    def test_many_threads_may_write_at_once(self, store: Store) -> None:
        batches = [[make_record() for _ in range(10)] for _ in range(40)]
        start = threading.Barrier(8)

        def write(mine: list[list[Record]]) -> None:
            start.wait()
            for batch in mine:
                store.write(batch)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, [batches[thread::8] for thread in range(8)]))
        kept = [record.id for record in store.query(Query(limit=None))]
        assert sorted(kept) == sorted(record.id for batch in batches for record in batch)


def _found(store: Store, condition: Condition) -> list[Record]:
    return list(store.query(Query(conditions=(("v", condition),), limit=None)))


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    return {record.id: record for record in records}


def _assert_bounds_hold(store: Store, bounds: Sequence[float | str], values: Sequence[JSONValue]) -> None:
    records = [make_record(variables={"v": each}) for each in values]
    store.write([*records, make_record(variables={})])
    for operator, value in product(_OPERATORS, bounds):
        bound = Bound(operator, value)
        assert _found(store, bound) == [each for each in records[::-1] if bound.holds(each.variables["v"])]
