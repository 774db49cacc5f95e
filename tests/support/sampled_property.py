"""What is measured of a sample, compared with what all requests were."""

from __future__ import annotations

from functools import lru_cache

import pytest
from flask import Flask, g
from werkzeug.test import EnvironBuilder

from flask_chest import Count, ErrorRate, FlaskChest
from flask_chest.aggregates import AggregateQuery, Measure
from flask_chest.record import Query, Record
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing.contracts import AggregatingStore

REQUESTS = 20_000
ONE_IN = 20
"""Every so many-th request fails."""


class SampledProperty:
    """Needs the fixture *store*, which is open and empty."""

    @pytest.mark.slow
    def test_sample_tells_the_share_of_errors_among_all_requests(self, store: AggregatingStore) -> None:
        records = sampled_records()
        store.write(records)
        assert len(records) < REQUESTS / 5
        assert sum(record.is_error for record in records) == REQUESTS / ONE_IN
        measures: tuple[Measure[object], ...] = (Count(), ErrorRate(), ErrorRate(weighted=False))
        row = store.aggregate(AggregateQuery(measures=measures, query=Query())).all
        assert abs((row[ErrorRate()] or 0) - 1 / ONE_IN) < 0.007
        assert (row[ErrorRate(weighted=False)] or 0) > 0.25
        assert abs(row[Count()] - REQUESTS) < REQUESTS / 20


@lru_cache(maxsize=1)
def sampled_records() -> list[Record]:
    """Return what a chest keeps of many requests, of which one in `ONE_IN` fails, at a rate of a tenth."""
    app = Flask(__name__)
    store = MemoryStore()
    numbers = iter(range(REQUESTS))
    chest = FlaskChest(
        app,
        store=store,
        tracked_vars={"GET": ["n"]},
        request_id_generator=lambda: f"request {g.n}",
        sample=0.1,
        keep_errors=True,
    )

    @app.get("/")
    def index() -> tuple[str, int]:
        g.n = next(numbers)
        return "", 500 if g.n % ONE_IN == 0 else 200

    environ = EnvironBuilder(path="/").get_environ()
    for _ in range(REQUESTS):
        for _ in app(dict(environ), lambda *_: lambda _: None):
            pass
    with app.app_context():
        assert chest.flush(60)
    return list(store.query(Query(limit=None)))
