"""Which requests are recorded where not all are, and those of which the app wants no record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Unpack

import pytest
from flask import Flask, Response, g, request, stream_with_context
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import flask_chest as package
from flask_chest import FlaskChest
from flask_chest.capture.sampling import Sampling
from flask_chest.extension.settings import SettingOptions
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record

traces = st.integers(1, 2**128 - 1)


@contextmanager
def opened(app: Flask, **options: Unpack[SettingOptions]) -> Iterator[FlaskChest]:
    options.setdefault("tracked_vars", ["x"])
    chest = FlaskChest(app, store=MemoryStore, **options)
    try:
        yield chest
    finally:
        chest.close()


def always(rate: float) -> Sampling:
    return Sampling(rate=rate, keep_errors=False, keep_slower_than_ns=None)


@pytest.fixture
def shop(app: Flask) -> Flask:
    app.add_url_rule("/", "index", lambda: "index")

    @app.route("/boom")
    def boom() -> str:
        raise RuntimeError

    @app.route("/bad")
    def bad() -> tuple[str, int]:
        return "bad", 503

    return app


@pytest.mark.slow
def test_share_of_the_requests_is_recorded_and_the_rest_counted(shop: Flask) -> None:
    with opened(shop, sample=0.3) as chest:
        for _ in range(1_000):
            shop.test_client().get("/")
        stats = chest.stats()
        assert 200 < stats.captured < 400
        assert stats.sampled_out == 1_000 - stats.captured
        assert len(chest.query(limit=None)) == stats.captured
        assert (stats.lost, stats.faults) == ({}, {})


def test_errors_are_recorded_whatever_the_share(shop: Flask) -> None:
    with opened(shop, sample=0) as chest:
        for path in ("/", "/boom", "/bad", "/nowhere"):
            shop.test_client().get(path)
        assert sorted(record.status_code for record in chest.query()) == [500, 503]


def test_errors_are_sampled_too_if_so_wanted(shop: Flask) -> None:
    with opened(shop, sample=0, keep_errors=False) as chest:
        for path in ("/", "/boom", "/bad"):
            shop.test_client().get(path)
        assert chest.query() == []


@pytest.mark.parametrize("bound", [1.5, timedelta(seconds=1.5)])
def test_slow_requests_are_recorded_whatever_the_share(bound: float | timedelta) -> None:
    sampling = Sampling(rate=0, keep_errors=True, keep_slower_than_ns=1_500_000_000)
    slow = make_record(duration_ns=1_500_000_000)
    assert sampling.sampled(slow, 0) == slow
    assert sampling.sampled(make_record(duration_ns=1_499_999_999), 0) is None
    app = Flask("shop")
    with opened(app, sample=0, keep_slower_than=bound) as chest:
        assert chest._state.sampling == sampling


@given(traces, st.floats(0, 1), st.floats(0, 1))
def test_what_a_low_rate_keeps_a_higher_one_keeps_too(trace: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    record = make_record(trace_id=f"{trace:032x}")
    assert always(high).sampled(record, high) or not always(low).sampled(record, low)


@given(traces, st.floats(0, 1))
def test_trace_decides_alone_and_as_opentelemetry_decides(trace: int, rate: float) -> None:
    sampler = pytest.importorskip("opentelemetry.sdk.trace.sampling").TraceIdRatioBased(rate)
    record = make_record(trace_id=f"{trace:032x}")
    kept = always(rate).sampled(record, rate)
    assert kept in (None, replace(record, sample_rate=rate))
    other = always(rate).sampled(replace(record, request_id="other"), rate)
    assert (kept is None) == (other is None)
    assert (kept is not None) == (sampler.should_sample(None, trace, "span").decision.value == 2)


def test_function_says_the_share_of_the_current_request(shop: Flask) -> None:
    with opened(shop, sample=lambda: request.args.get("keep") == "yes") as chest:
        for path in ("/?keep=yes", "/", "/?keep=no", "/?keep=yes"):
            shop.test_client().get(path)
        assert len(chest.query()) == 2


@pytest.mark.parametrize("rate", [1 / 3, lambda: 1 / 3, lambda: AppFloat(1 / 3)])
def test_record_carries_the_rate_that_decided_on_it(shop: Flask, rate: float | Callable[[], float]) -> None:
    with opened(shop, sample=rate) as chest:
        for _ in range(60):
            shop.test_client().get("/")
        records = chest.query()
        assert 0 < len(records) < 60
        assert {(type(record.sample_rate), record.sample_rate) for record in records} == {(float, 1 / 3)}


class AppFloat(float):
    """Comes back from the app's own function, as NumPy's floats do."""


@pytest.mark.parametrize("rate", [1, lambda: 1, lambda: True])
def test_rate_of_one_is_a_float_however_it_is_said(shop: Flask, rate: float | Callable[[], float]) -> None:
    with opened(shop, sample=rate) as chest:
        shop.test_client().get("/")
        assert [repr(record.sample_rate) for record in chest.query()] == ["1.0"]


def test_what_is_kept_whole_carries_the_rate_of_one(shop: Flask) -> None:
    with opened(shop, sample=0.25) as chest:
        for _ in range(40):
            shop.test_client().get("/boom")
        assert [record.sample_rate for record in chest.query()] == [1.0] * 40
    slow = make_record(duration_ns=1_000, sample_rate=1.0)
    sampling = Sampling(rate=0.25, keep_errors=False, keep_slower_than_ns=1_000)
    assert sampling.sampled(slow, 0.25) == slow


def test_errors_that_are_sampled_carry_the_rate(shop: Flask) -> None:
    with opened(shop, sample=0.25, keep_errors=False) as chest:
        for _ in range(100):
            shop.test_client().get("/boom")
        assert {record.sample_rate for record in chest.query()} == {0.25}


def raising() -> float:
    raise RuntimeError("hunter2")


@pytest.mark.parametrize("sample", [raising, lambda: 2, lambda: -0.1, lambda: float("nan"), lambda: "many"])
def test_function_that_fails_costs_no_record(
    shop: Flask, sample: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(shop, sample=sample) as chest:
        assert shop.test_client().get("/").status_code == 200
        assert [record.sample_rate for record in chest.query()] == [1.0]
        assert sum(chest.stats().faults.values()) == 1
    assert "hunter2" not in caplog.text


def test_chests_of_one_app_sample_by_themselves(shop: Flask) -> None:
    with opened(shop, sample=0) as few:
        every = FlaskChest(shop, store=MemoryStore, tracked_vars=["x"], config_prefix="SECOND")
        shop.test_client().get("/")
        assert (few.query(), len(every.query())) == ([], 1)
        every.close()


def streaming(app: Flask, *, fails: bool) -> None:
    @app.route("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            if fails:
                raise RuntimeError
            g.x = 1

        return Response(stream_with_context(body()))


@pytest.mark.parametrize("fails", [True, False])
def test_stream_is_sampled_by_how_it_ended(app: Flask, *, fails: bool) -> None:
    streaming(app, fails=fails)
    with opened(app, sample=0) as chest:
        response = app.test_client().get("/stream", buffered=False)
        try:
            list(response.response)
        except RuntimeError:
            response.close()
        response.close()
        assert [record.error for record in chest.query()] == (["RuntimeError"] if fails else [])


def test_request_that_the_app_skips_is_in_no_chest(app: Flask) -> None:
    @app.route("/<word>")
    def page(word: str) -> str:
        if word == "quiet":
            package.skip()
        return word

    with opened(app) as chest:
        second = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], config_prefix="SECOND")
        for word in ("loud", "quiet", "loud"):
            assert app.test_client().get(f"/{word}").text == word
        assert (len(chest.query()), len(second.query())) == (2, 2)
        assert chest.stats().faults == {}
        second.close()


def test_what_the_app_skips_is_told_to_no_observer(app: Flask) -> None:
    class Observer:
        seen = 0

        def observe(self, variables: Mapping[str, object], environ: Mapping[str, object], /) -> int:
            self.seen += 1
            return 0

    observer = Observer()
    app.before_request(package.skip)
    app.add_url_rule("/", "index", lambda: "hi")
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], span_attributes=observer)
    app.test_client().get("/")
    assert (observer.seen, chest.query()) == (0, [])
    chest.close()


def test_stream_that_the_app_skips_is_not_recorded_either(app: Flask) -> None:
    streaming(app, fails=False)
    app.before_request(package.skip)
    with opened(app) as chest:
        assert app.test_client().get("/stream").text == "a"
        assert chest.query() == []
        assert chest.stats().faults == {}


def test_skip_is_harmless_where_nothing_is_recorded(app: Flask) -> None:
    package.skip()
    app.before_request(package.skip)
    app.add_url_rule("/", "index", lambda: "hi")
    assert app.test_client().get("/").text == "hi"
