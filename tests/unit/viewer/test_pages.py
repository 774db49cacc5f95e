"""What each page shows, and where its links lead."""

from __future__ import annotations

import csv
import shlex
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_chest import FlaskChest, QueryTimeout, Record, ge, is_set, lt, one_of
from flask_chest.aggregates import AggregateQuery, Answer, Histogram
from flask_chest.protocols import ExporterStatus
from flask_chest.record import MAX_LEVELS
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.viewer import viewer
from flask_chest.viewer._filters import Filters, shell_command
from flask_chest.viewer.pages.compare import wilson
from flask_chest.viewer.pages.explore import split_measures
from viewer_app import MINUTE, NOON, Keep, keeper

Get: TypeAlias = Callable[[str], Any]
"""Gets a page of JSON, which must be there as HTML, too."""
DAY = "since=2024-02-29T00:00&until=2024-03-01T00:00"


@pytest.fixture
def client(app: Flask, chest: FlaskChest) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def get(client: FlaskClient) -> Get:

    def get(path: str) -> Any:
        page, question, query = path.partition("?")
        shown = client.get(f"/chest{'' if page == '/overview' else page}{question}{query}")
        assert shown.status_code == 200, shown.text
        answer = client.get(f"/chest{page}.json{question}{query}")
        assert answer.status_code == 200
        return answer.json

    return get


def ids(page: Any) -> list[str]:
    return [record["id"] for record in page["records"]]


def test_every_record_is_on_one_page_also_among_those_of_one_time(get: Get, keep: Keep) -> None:
    for number in range(130):
        keep(time_unix_nano=NOON + number // 70)
    found: list[str] = []
    address = "/records"
    while address:
        page = get(address)
        found += ids(page)
        address = (page["older"] or "").replace("/chest", "", 1)
    assert sorted(found) == sorted(f"id-{number + 1}" for number in range(130))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["id-4", "id-3", "id-2", "id-1"]),
        ("route=/cart", ["id-3"]),
        ("status=5xx", ["id-3"]),
        ("errors=1", ["id-3"]),
        ("error=TimeoutError", ["id-3"]),
        ("error=Timeout", []),
        ("method=post", ["id-2"]),
        ("where=user_id%3D7", ["id-1"]),
        ("where=user_id%3D%227%22", ["id-2"]),
        ("where=user_id+is+set&where=plan+in+pro,free", ["id-1"]),
        ("since=2024-02-29T12:02:00&until=2024-02-29T12:04:00", ["id-3", "id-2"]),
        ("request_id=r-4", ["id-4"]),
        ("route=&status=&where=", ["id-4", "id-3", "id-2", "id-1"]),
    ],
)
def test_filters_narrow_the_records(get: Get, keep: Keep, query: str, expected: list[str]) -> None:
    keep(variables={"user_id": 7, "plan": "pro"})
    keep(variables={"user_id": "7"}, method="POST")
    keep(route="/cart", status_code=503, error="TimeoutError")
    keep()
    assert ids(get(f"/records?{query}")) == expected


def test_records_can_be_narrowed_by_what_the_newest_have(client: FlaskClient, get: Get, keep: Keep) -> None:
    for number in range(60):
        keep(route="/cart" if number % 3 else "/", variables={"plan": "pro" if number % 2 else "free"})
    page = get("/records?method=GET")
    assert page["facets"] == {
        "of_the_newest": 60,
        "route": [{"value": "/cart", "records": 40}, {"value": "/", "records": 20}],
        "plan": [{"value": "pro", "records": 30}, {"value": "free", "records": 30}],
    }
    text = unescape(client.get("/chest/records?method=GET").text)
    assert 'href="/chest/records?method=GET&where=plan%3D%22pro%22"' in text


def test_record_tells_all_and_why_something_is_hidden(client: FlaskClient, keep: Keep) -> None:
    record = keep(
        variables={"user_id": 7, "total": 9.5, "email": "hmac:00", "cart": {"items": [1]}}, trace_id="ab" * 16
    )
    text = unescape(client.get(f"/chest/records/{record.id}").text)
    for shown in (
        '<bdi class="value">9.5</bdi> <span class="unit">s</span>',
        "email was hashed by the rule (hash: names email)",
        "secret is never kept, by the rule (drop: names secret)",
        f'href="https://traces.example/{record.trace_id}"',
        f'href="/chest/records?trace_id={record.trace_id}"',
        "2024-02-29 12:01:00.000 UTC",
        "1,500,000 ns",
    ):
        assert shown in text


def test_record_leads_to_what_its_user_did_around_it(client: FlaskClient, keep: Keep) -> None:
    keep(variables={"user_id": 7}, request_id="before")
    record = keep(variables={"user_id": 7}, request_id="shown")
    keep(variables={"user_id": 8}, request_id="other")
    keep(variables={"user_id": 7}, request_id="late", time_unix_nano=NOON + 60 * MINUTE)
    keep(request_id="shown", id="retry")
    text = client.get(f"/chest/records/{record.id}").text
    assert "Within 15 min: user_id=7" in text
    assert '/chest/records/id-1"' in text
    assert '/chest/records/id-3"' not in text
    assert '/chest/records/id-4"' not in text
    assert "The same request id" in text
    assert '/chest/records/retry"' in text
    assert "/chest/timeline?where=user_id%3D7" in text


def test_timeline_is_parted_where_nothing_happened_for_long(client: FlaskClient, get: Get, keep: Keep) -> None:
    for minute in (0, 5, 90):
        keep(variables={"user_id": 7}, time_unix_nano=NOON + minute * MINUTE)
    keep(variables={"user_id": "7"})
    assert ids(get("/timeline?user_id=7")) == ["id-3", "id-2", "id-1"]
    assert ids(get("/timeline?variable=user_id&value=7")) == ["id-3", "id-2", "id-1"]
    assert ids(get('/timeline?user_id="7"')) == ["id-4"]
    text = client.get("/chest/timeline?user_id=7").text
    assert text.count('class="visit"') == 2
    assert "1 h 25 min without a request" in text
    assert "2 requests within 5 min" in text


def test_timeline_says_that_an_index_would_help(client: FlaskClient, keep: Keep) -> None:
    keep(variables={"cart": 1, "user_id": 7})
    assert "flask chest index add cart" in client.get("/chest/timeline?cart=1").text
    assert "flask chest index add" not in client.get("/chest/timeline?user_id=7").text


def test_overview_counts_and_leads_to_what_it_counted(client: FlaskClient, get: Get, keep: Keep) -> None:
    for number in range(8):
        keep(variables={"user_id": 7 + number % 2}, duration_ns=1_000_000 * (number + 1))
    keep(route="/cart", status_code=500, error="KeyError", duration_ns=900_000_000)
    page = get(f"/overview?{DAY}")
    assert page["all"] == {
        "records": 9,
        "count": 9,
        "error_rate": pytest.approx(1 / 9),
        "p50(duration)": pytest.approx(0.005, rel=0.2),
        "p95(duration)": pytest.approx(0.9, rel=0.2),
        "p99(duration)": pytest.approx(0.9, rel=0.2),
    }
    assert [(route["route"], route["count"]) for route in page["routes"]] == [("/buy/<item>", 8), ("/cart", 1)]
    assert sum(bucket["count"] for bucket in page["series"]) == 9
    assert [(row["value"], row["count"]) for row in page["variables"]["user_id"]] == [(7, 4), (8, 4)]
    text = unescape(client.get(f"/chest/?{DAY}").text)
    assert 'href="/chest/records?since=2024-02-29T00:00&until=2024-03-01T00:00&route=/cart&errors=1"' in text
    failed = "/chest/records?since=2024-02-29T00:00&until=2024-03-01T00:00&errors=1&route=/cart&error=KeyError"
    assert f'<a href="{failed}"><bdi>KeyError · /cart</bdi></a>' in text
    assert "As a table" in text


def test_values_of_the_newest_are_counted_where_there_are_many(
    client: FlaskClient, get: Get, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_chest.viewer.pages.overview.BREAKDOWN_RECORDS", 3)
    for hour in (1, 1, 5, 9, 9):
        keep(variables={"user_id": hour}, time_unix_nano=NOON + hour * 60 * MINUTE)
    page = get(f"/overview?{DAY}")
    assert page["variables_since"] == "2024-02-29T17:00:00.000Z"
    assert [(row["value"], row["count"]) for row in page["variables"]["user_id"]] == [(9, 2), (5, 1)]
    text = client.get(f"/chest/?{DAY}").text
    assert "since <time" in text
    assert "Values of variables are those of the newest requests" in text


@pytest.mark.parametrize("page", ["", "explore", "compare"])
def test_page_says_that_records_stand_for_more_requests(client: FlaskClient, keep: Keep, page: str) -> None:
    keep(sample_rate=0.1, variables={"plan": "pro"})
    keep(variables={"plan": "free"})
    asked = {"": DAY, "explore": f"measure=p95(duration)&{DAY}", "compare": f"by=plan&a=pro&b=free&{DAY}"}[page]
    assert "2 records stand for 11 requests" in client.get(f"/chest/{page}?{asked}").text


def test_no_page_but_one_of_a_sample_speaks_of_one(client: FlaskClient, keep: Keep) -> None:
    keep()
    assert "stand for" not in client.get(f"/chest/?{DAY}").text


@pytest.mark.parametrize("page", ["", "delivery"])
def test_page_tells_the_command_that_asks_the_same(client: FlaskClient, keep: Keep, page: str) -> None:
    keep()
    command = {"": "flask chest aggregate count error_rate", "delivery": "flask chest status"}[page]
    query = f"?{DAY}" if not page else ""
    assert f"<code>{command}" in client.get(f"/chest/{page}{query}").text


def test_page_says_what_took_too_long(client: FlaskClient, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    keep()
    monkeypatch.setattr("flask_chest.viewer._asking.LIMIT_SECONDS", 0.0)
    text = unescape(client.get(f"/chest/?{DAY}").text)
    assert "than the 2 s of a page: charts, durations, requests and routes, errors, user_id" in text
    late = client.get("/chest/records")
    assert (late.status_code, "The answer took longer than" in late.text) == (503, True)
    assert "It took longer than the 2 s" in client.get(f"/chest/explore?{DAY}").text
    assert "It took longer than the 2 s" in client.get(f"/chest/compare?by=plan&a=free&b=pro&{DAY}").text


class Slow(MemoryStore):
    """A store in which durations take too long."""

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        if timeout is not None and any(isinstance(each, Histogram) for each in query.measures):
            raise QueryTimeout(timeout)
        return super().aggregate(query, timeout=timeout)


def test_overview_without_durations_shows_the_rest(app: Flask) -> None:
    chest = FlaskChest(app, store=Slow, tracked_vars=["plan"], strict=True)
    app.register_blueprint(viewer(chest, allow=lambda: True))
    with closing(chest):
        keeper(chest)()
        text = unescape(app.test_client().get(f"/chest/?{DAY}").text)
    assert "Left out, since it took longer than the 2 s of a page: charts, durations." in text
    assert "/buy/<item></bdi></a>" in text
    assert ">p95<" not in text


def test_explore_is_chart_table_json_and_csv(client: FlaskClient, get: Get, keep: Keep) -> None:
    for plan, total in (("pro", 2.0), ("pro", 4.0), ("free", 1.0)):
        keep(variables={"plan": plan, "total": total})
    query = f"measure=mean(total)+count&by=plan&{DAY}&every=1h"
    page = get(f"/explore?{query}")
    assert [(row["key"], row["mean(total)"], row["count"]) for row in page["groups"]] == [
        (["pro"], 3.0, 2),
        (["free"], 1.0, 1),
    ]
    text = unescape(client.get(f"/chest/explore?{query}").text)
    assert "mean(total) by plan" in text
    assert "3 s" in text
    assert "flask chest aggregate 'mean(total)' count --by plan --every 1h" in text
    assert "chest.aggregate(Mean(Variable('total')), Count(), by=[Variable('plan')]" in text
    response = client.get(f"/chest/explore.csv?{query}")
    assert response.mimetype == "text/csv"
    rows = list(csv.DictReader(response.text.splitlines()))
    assert [row["mean(total)"] for row in rows if row["plan"] == "pro" and row["records"] != "0"] == ["3.0"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "=cmd|' /C calc'!A0"])
def test_csv_holds_no_formula(client: FlaskClient, keep: Keep, text: str) -> None:
    keep(variables={"plan": text})
    lines = client.get(f"/chest/explore.csv?by=plan&every=none&{DAY}").text.split("\r\n", 1)
    (row,) = csv.reader([lines[1]])
    assert row[0].startswith("'")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("measure=median", "'median' is no measure"),
        ("measure=p50+count+sum(a)+sum(b)+sum(c)+sum(d)+sum(e)", "at most 6 measures"),
        ("by=a&by=b&by=c", "2 groups"),
        ("top=1000", "Top must be a number from 1 to 100"),
        ("every=1s&since=30d", "there would be a span, and 150 are the most"),
        ("every=often", "'often' is not a span of time"),
    ],
)
def test_question_that_is_too_much_is_refused(client: FlaskClient, keep: Keep, query: str, said: str) -> None:
    keep()
    response = client.get(f"/chest/explore?{query}")
    assert response.status_code == 400
    assert said in unescape(response.text)


def test_comparison_tells_a_difference_from_chance(get: Get, keep: Keep) -> None:
    for number in range(200):
        keep(variables={"plan": "free"}, time_unix_nano=NOON + number)
        keep(variables={"plan": "pro"}, time_unix_nano=NOON + number, status_code=500 if number < 60 else 200)
    page = get(f"/compare?by=plan&a=free&b=pro&{DAY}")
    assert [(side["value"], side["count"]) for side in page["sides"]] == [("free", 200), ("pro", 200)]
    assert page["verdict"] == "pro fails more often than free, by more than chance explains."
    assert get(f"/compare?by=plan&a=free&b=free&{DAY}")["verdict"].startswith("The error rates differ by no more")


@pytest.mark.parametrize("page", ["/?", "/explore?", "/compare?by=plan&"])
def test_page_that_is_asked_for_an_end_alone_shows_the_day_before_it(
    client: FlaskClient, keep: Keep, page: str
) -> None:
    keep()
    shown = client.get(f"/chest{page}until=2024-03-01T11:00Z")
    assert shown.status_code == 200
    assert "since=2024-02-29T11:00:00.000Z&until=2024-03-01T11:00Z" in unescape(shown.text)


def test_comparison_offers_what_can_be_compared(client: FlaskClient, keep: Keep) -> None:
    keep(variables={"user_id": 7})
    keep(variables={"user_id": "7"})
    text = unescape(client.get(f"/chest/compare?by=user_id&{DAY}").text)
    assert "/chest/compare?since=2024-02-29T00:00&until=2024-03-01T00:00&by=user_id&a=7" in text
    assert "&a=%227%22" in text


@pytest.mark.parametrize(
    ("share", "count", "low", "high"), [(0.5, 10, 0.2366, 0.7634), (0.0, 10, 0.0, 0.2775), (None, 0, 0, 1)]
)
def test_interval_is_that_of_wilson(share: float | None, count: int, low: float, high: float) -> None:
    assert wilson(share, count) == pytest.approx((low, high), abs=1e-4)


def test_delivery_shows_the_way_of_the_records(client: FlaskClient, get: Get, keep: Keep) -> None:
    keep()
    page = get("/delivery")
    assert page["health"]["ok"] is True
    assert page["store"] == "MemoryStore"
    assert "The chest has none" in client.get("/chest/delivery").text


def test_delivery_waits_for_the_store_as_long_as_a_page_may(app: Flask) -> None:
    class Full(MemoryStore):
        def exporters(self, *, timeout: timedelta | None = None) -> Sequence[ExporterStatus]:
            assert timeout is not None
            raise QueryTimeout(timeout)

    chest = FlaskChest(app, store=Full, tracked_vars=["plan"], strict=True)
    app.register_blueprint(viewer(chest, allow=lambda: True))
    with closing(chest):
        keeper(chest)()
        response = app.test_client().get("/chest/delivery")
    assert response.status_code == 200
    assert "the answer took longer than" in response.text
    assert "The chest has none" not in response.text


ROWS = ["records", "records.json", "records/id-1", "timeline?w=1"]
DEPTHS = [(MAX_LEVELS, 200), (MAX_LEVELS + 1, 503), (900, 503), (8_000, 503)]


@pytest.mark.parametrize(
    ("page", "levels", "status"),
    [
        *(
            (page, *depth)
            for page in ("records", "records.json", "records/id-1", "timeline?w=1")
            for depth in DEPTHS
        ),
        # SQLite itself makes the groups, and reads a thousand levels.
        (f"explore?by=v&{DAY}", MAX_LEVELS, 200),
        (f"explore?by=v&{DAY}", 900, 200),
        (f"explore?by=v&{DAY}", 8_000, 503),
    ],
)
def test_row_that_is_nested_too_deeply_is_told(
    app: Flask, tmp_path: Path, page: str, levels: int, status: int
) -> None:
    path = tmp_path / "chest.db"
    chest = FlaskChest(app, store=SQLiteStore(path), tracked_vars=["v", "w"], strict=True)
    app.register_blueprint(viewer(chest, allow=lambda: True))
    with closing(chest):
        keeper(chest)(variables={"w": 1})
        with closing(sqlite3.connect(path)) as other_program:
            brackets = levels - 1  # the object of all variables is the first level
            deep = f'{{"v": {"[" * brackets}{"]" * brackets}, "w": 1}}'
            other_program.execute("UPDATE flask_chest SET variables = ?", (deep,))
            other_program.commit()
        response = app.test_client().get(f"/chest/{page}")
    assert (response.status_code, "correct or delete its row" in response.text) == (status, status == 503)


def test_empty_chest_says_what_to_do(client: FlaskClient) -> None:
    for path in ("/chest/", "/chest/records"):
        assert "flask chest doctor" in client.get(path).text
    for path in (
        "/chest/explore",
        "/chest/compare",
        "/chest/compare?by=plan",
        "/chest/timeline",
        "/chest/delivery",
    ):
        assert client.get(path).status_code == 200


HOSTILE = [
    "it's",
    "a b",
    "$(reboot)",
    "`reboot`",
    "a;b",
    "\x1b[31m",
    "\n",
    "\u202e",
    "ü",
    '"',
    "\\",
    "!x",
    "-",
    "*",
]


@pytest.mark.parametrize("word", HOSTILE)
def test_command_means_the_same_to_a_shell(word: str) -> None:
    command = shell_command("printf", "%s", word)
    assert command.isprintable()
    shown = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    assert shown.stdout.decode() == word


@pytest.mark.parametrize("word", HOSTILE)
def test_python_means_the_same(app: Flask, chest: FlaskChest, keep: Keep, word: str) -> None:
    keep(variables={"note": word, "n": 5}, route=word)
    keep(variables={"note": "other", "n": 5})
    filters = Filters(
        route=word,
        since="2024-02-29",
        where=(("note", word), ("n", ge(2)), ("n", lt(9)), ("n", one_of(5, "x")), ("n", is_set())),
    ).checked()
    call = f"chest.query({', '.join(filters.arguments())})"
    assert call.isascii()
    names = {"chest": chest, "datetime": datetime, "ge": ge, "is_set": is_set, "lt": lt, "one_of": one_of}
    with app.app_context():
        found: list[Record] = eval(call, names)
    assert [record.variables["note"] for record in found] == [word]


def test_same_question_asks_the_same(client: FlaskClient, keep: Keep) -> None:
    keep(variables={"note": "it's"}, route="/a b")
    question = "route=/a+b&where=note%3Dit's&error=KeyError&errors=1&since=30d"
    text = unescape(client.get(f"/chest/records?{question}").text)
    command = text.partition("flask chest query")[2].partition("</code>")[0]
    assert shlex.split(command) == [
        *("--route", "/a b", "--error", "KeyError", "--errors", "--where", 'note="it\'s"', "--since", "30d"),
        *("--limit", "50"),
    ]


def test_links_of_a_filter_leave_it_out(client: FlaskClient, keep: Keep) -> None:
    keep()
    text = unescape(client.get("/chest/records?route=/x&where=a%3D1&where=b%3D2").text)
    links = [part.partition('"')[0] for part in text.split('<li><a href="')[1:]]
    queries = [parse_qs(urlsplit(link).query) for link in links if "/records?" in link]
    assert {"route": ["/x"], "where": ["b=2"]} in queries
    assert {"where": ["a=1", "b=2"]} in queries


def test_page_is_made_of_the_time_it_says(client: FlaskClient, keep: Keep) -> None:
    keep(time_unix_nano=time.time_ns() - 3 * MINUTE)
    assert '<span class="ago">3 min ago</span>' in client.get("/chest/records").text


@pytest.mark.parametrize(
    ("text", "measures"),
    [
        ("count  p95(duration)\tmean(total)", ["count", "p95(duration)", "mean(total)"]),
        ("histogram(price, 10, 20) count", ["histogram(price, 10, 20)", "count"]),
        ("p95 (duration)", ["p95", "(duration)"]),
        (" count ", ["count"]),
    ],
)
def test_measures_are_parted_by_spaces_outside_of_parentheses(text: str, measures: list[str]) -> None:
    assert split_measures(text) == measures


def test_long_run_of_spaces_takes_no_time_by_its_cube(client: FlaskClient) -> None:
    # Thousands of characters would take minutes in one call, in which no other thread of the process runs.
    assert client.get("/chest/explore", query_string={"measure": f"a{' ' * 8_000})"}).status_code == 400


def test_number_of_groups_has_few_digits(client: FlaskClient) -> None:
    for top in ("9" * 5_000, "\N{ARABIC-INDIC DIGIT THREE}", "0", "101"):
        assert client.get("/chest/explore", query_string={"top": top}).status_code == 400


@pytest.mark.parametrize(
    ("page", "name", "text"),
    [
        ("records", "since", f"{'9' * 5_000}d"),
        ("explore", "every", f"{'9' * 5_000}d"),
        ("explore", "measure", f"p{'9' * 5_000}(duration)"),
    ],
)
def test_number_of_thousands_of_digits_means_nothing(
    client: FlaskClient, page: str, name: str, text: str
) -> None:
    assert client.get(f"/chest/{page}", query_string={name: text}).status_code == 400


@pytest.mark.parametrize("value", ["[" * 900 + "]" * 900, "[" * 2_000 + "]" * 2_000, "9" * 5_000, "[" * 4_000])
@pytest.mark.parametrize("condition", ["v={}", "v in {}"])
def test_value_that_no_record_can_hold_is_found_nowhere(
    client: FlaskClient, keep: Keep, condition: str, value: str
) -> None:
    keep(variables={"v": 1})
    response = client.get("/chest/records", query_string={"where": condition.format(value)})
    assert response.status_code == 200
    assert "Nothing" in response.text or "No record" in response.text


@pytest.mark.parametrize("value", ["[" * 900 + "]" * 900, "[" * 4_000])
def test_value_nested_too_deeply_is_compared_as_a_text(client: FlaskClient, keep: Keep, value: str) -> None:
    keep(variables={"v": 1})
    response = client.get("/chest/compare", query_string={"by": "v", "a": value, "b": "1"})
    assert response.status_code == 200


def test_command_that_makes_an_index_holds_the_name_as_one_word(client: FlaskClient, keep: Keep) -> None:
    keep(variables={"$(id)": 7})
    text = unescape(client.get("/chest/timeline", query_string={"where": "$(id)=7"}).text)
    assert "<code>flask chest index add '$(id)'</code>" in text
