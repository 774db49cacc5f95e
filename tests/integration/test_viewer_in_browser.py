"""The viewer in Chromium: every page, its links, its console, without scripts, for screen readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from examples.busy_shop import make_app, requests
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from browsing import Crawl, accessibility, chromium, serving, visit, width
from flask_chest import JSONValue, Record
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.viewer import viewer
from flask_chest.viewer.serving import make_viewer_app
from servers import DatabaseServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RECORDS = 1_200
PAGES = frozenset(
    {
        *("/chest/?", "/chest/?since", "/chest/records?", "/chest/records?route&since", "/chest/records/<id>?"),
        *("/chest/explore?", "/chest/compare?", "/chest/timeline?", "/chest/delivery?", "/chest/records.json?"),
        "/chest/explore.csv?by&every&measure&since&top",
    }
)
"""Some of the kinds of pages that are reached by two links."""
ALL_PAGES = PAGES | {"/chest/timeline?where"}
"""Some of the kinds that are reached by three."""

SCRIPT = "<script>document.title='pwned'</script>"
HOSTILE: dict[str, JSONValue] = {
    "markup": SCRIPT,
    "attribute": '"><svg onload=document.title="pwned">',
    "quote": "' onmouseover='document.title=1",
    "template": "{{ 7 * 7 }}{% raw %}",
    "rtl": "\u202egnp.exe\u2066",
    "word": "w" * 8_192,
    "terminal": "\x1b]0;pwned\x07\x1b[31m",
    "<b>name</b>": {"<i>": [SCRIPT]},
    "user_id": "javascript:document.title='pwned'",
}


def hostile(time_unix_nano: int) -> Record:
    return Record(
        id="<hostile>&?#%2F",
        request_id='"><svg onload=document.title="pwned">',
        time_unix_nano=time_unix_nano,
        duration_ns=1,
        method="<b>",
        route=f"/{SCRIPT}",
        endpoint=SCRIPT,
        status_code=500,
        instance=SCRIPT,
        error=f"{SCRIPT}Error",
        trace_id="javascript:alert(1)",
        variables=HOSTILE,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def shop(store: SQLiteStore | PostgreSQLStore) -> Iterator[str]:
    """Serve the shop with its viewer, at an address of its own and below /prefix."""
    now = datetime.now(UTC)
    store.open()
    store.write([*requests(RECORDS, now, days=2), hostile(int(now.timestamp() * 1e9) - 1_000_000_000)])
    app, chest = make_app(store)
    app.register_blueprint(viewer(chest, allow=lambda: True))
    with closing(chest), serving(DispatcherMiddleware(app, {"/prefix": app})) as address:
        yield address


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with shop(SQLiteStore(tmp_path_factory.mktemp("viewer") / "db.sqlite3")) as address:
        yield address


def page_of(
    browser: Browser,
    *,
    scripts: bool = True,
    scheme: Literal["dark", "light"] = "light",
    width: int = 1_280,
) -> Page:
    context = browser.new_context(
        java_script_enabled=scripts, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    context.set_default_timeout(60_000)
    return context.new_page()


def look(page: Page) -> list[str]:
    complaints = accessibility(page) + width(page)
    if page.title() in ("pwned", "1"):
        complaints.append("a text was obeyed")
    return complaints


def test_every_kind_of_page_is_sound_and_accessible(browser: Browser, site: str) -> None:
    crawl = Crawl(page_of(browser), look=look)
    crawl.run(f"{site}/chest/")
    assert crawl.wrong == []
    assert crawl.seen >= ALL_PAGES


def test_refusal_is_accessible(browser: Browser, site: str) -> None:
    for scheme in ("light", "dark"):
        page = page_of(browser, scheme=scheme, width=360)
        visit(page, f"{site}/chest/records?colour=red")
        assert look(page) == []


def test_every_kind_of_page_is_sound_on_postgresql(browser: Browser, postgresql: DatabaseServer) -> None:
    with shop(PostgreSQLStore(postgresql.uri, name="in_browser")) as address:
        crawl = Crawl(page_of(browser))
        crawl.run(f"{address}/chest/")
    assert crawl.wrong == []
    assert crawl.seen >= ALL_PAGES


def test_every_kind_of_page_does_without_scripts_and_on_a_small_screen(browser: Browser, site: str) -> None:
    crawl = Crawl(page_of(browser, scripts=False, width=360), look=width)
    crawl.run(f"{site}/chest/", depth_at_most=2)
    assert crawl.wrong == []
    assert crawl.seen >= PAGES


def test_every_kind_of_page_is_reached_under_a_prefix(browser: Browser, site: str) -> None:
    crawl = Crawl(page_of(browser))
    crawl.run(f"{site}/prefix/chest/", depth_at_most=2)
    assert crawl.wrong == []
    assert {kind.removeprefix("/prefix") for kind in crawl.seen} >= PAGES
    assert all(kind.startswith("/prefix/chest") for kind in crawl.seen)


def test_every_kind_of_page_is_accessible_in_the_dark(browser: Browser, site: str) -> None:
    page = page_of(browser, scheme="dark")
    for path in ("", "records", "explore", "explore?by=plan", "compare?by=version", "delivery", "none"):
        visit(page, f"{site}/chest/{path}")
        assert accessibility(page) == []
    visit(page, f"{site}/chest/records")
    page.get_by_role("group", name="Records, newest first").get_by_role("link").first.click()
    assert accessibility(page) == []


def test_hostile_record_is_shown_as_text(browser: Browser, site: str) -> None:
    page = page_of(browser)
    crawl = Crawl(page, look=look)
    for path in (
        "records/%3Chostile%3E&%3F%23%252F",
        "records?errors=1",
        "?since=1h",
        "explore?by=markup&since=1h",
        "explore?by=%22%3Cb%3Ename%3C/b%3E%22&by=word&since=1h&every=none",
        "compare?by=user_id&a=%3Cscript%3E&b=javascript:document.title=1&since=1h",
        "timeline?user_id=javascript:document.title='pwned'",
    ):
        crawl.run(f"{site}/chest/{path}", depth_at_most=0)
    assert crawl.wrong == []
    visit(page, f"{site}/chest/records/%3Chostile%3E&%3F%23%252F")
    shown = page.inner_text("main")
    for text in (SCRIPT, '"\\"><svg onload=', "{{ 7 * 7 }}", "\\u202egnp.exe\\u2066", "\\u001b]0;pwned\\u0007"):
        assert text in shown


def test_records_of_a_slow_route_are_found_by_clicking(browser: Browser, site: str) -> None:
    page = page_of(browser)
    visit(page, f"{site}/chest/?since=6h")
    page.get_by_role("link", name="/search", exact=True).click()
    page.get_by_role("group", name="Most frequent values of plan").get_by_role("link", name="team").click()
    page.get_by_role("link", name="as records").click()
    page.get_by_role("group", name="Records, newest first").get_by_role("link").first.click()
    shown = page.inner_text("main")
    assert "/search" in shown
    assert '"team"' in shown


def test_page_refreshes_itself_and_shows_local_times(browser: Browser, site: str) -> None:
    context = browser.new_context(timezone_id="Asia/Kolkata")
    page = context.new_page()
    visit(page, f"{site}/chest/records")
    assert "GMT+5:30" in page.inner_text("footer")
    button = page.get_by_role("button", name="Refresh every 10 s")
    with page.expect_response(lambda response: response.url.endswith("/chest/records")):
        button.click()
    assert button.get_attribute("aria-pressed") == "true"
    page.reload()
    assert button.get_attribute("aria-pressed") == "true"


def test_another_server_on_this_machine_does_not_get_the_cookie(browser: Browser, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []
    stranger = Flask("stranger")

    @stranger.get("/")
    @stranger.get("/<path:path>")
    def note(path: str = "") -> str:
        asked.append((path, request.headers.get("Cookie")))
        return "hi"

    store = SQLiteStore(tmp_path / "db.sqlite3")
    store.open()
    app, chest = make_app(store)
    served = make_viewer_app(chest, app, token="token", folder="/folder")
    with closing(chest), serving(served) as address, serving(stranger) as elsewhere:
        page = page_of(browser)
        visit(page, f"{address}/?token=token")
        page.wait_for_url(f"{address}/folder/")
        assert page.inner_text("h1") == "Overview"
        for path in ("", "records", "folders/"):
            visit(page, f"{elsewhere}/{path}")
    assert {path for path, _ in asked} >= {"", "records", "folders/"}
    assert {cookie for _, cookie in asked} == {None}
