"""Debian's Chromium, which follows the links of a site and notes all that is wrong with its pages."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shutil import which
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, Response, sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

BROWSERS = ("chromium-headless-shell", "chromium")
"""Debian's packages; the first has no windows, which takes half the time of the processor."""
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    # One process for all pages: to start one for each takes a sixth of its time.
    *("--process-per-site", "--renderer-process-limit=1", "--disable-features=SpareRendererForSitePerProcess"),
]
DEPTH = 3
KINDS_LOOKED_AT = 5
"""Kinds of pages of one path that are looked at: more filters are shown as the first are, and axe takes long."""
VISITS = 3
"""Times that a page is visited of which the machine broke off what belongs to it."""
PATIENCE = 30.0
"""Seconds for which a page is visited whose own loading the machine broke off."""
SETTLING_MS = 200
"""Time that Chromium gets to show what it shows in place of such a page: it would interrupt the next visit."""
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"
"""What Chromium says when it breaks off: a container came or went meanwhile, which is no matter of the page."""
INTERRUPTED = "is interrupted by another navigation"
"""What playwright says of a visit that comes while the one before is still being broken off."""
LINKS = "all => all.map(each => each.getAttribute('href'))"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser; skip where it is not installed."""
    found = next(filter(None, map(which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser: apt-get install {BROWSERS[0]}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""


@contextmanager
def serving(app: WSGIApplication) -> Iterator[str]:
    """Serve *app* in threads; give the address."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def visit(page: Page, address: str) -> Response | None:
    """Load *address*, again where the machine broke that off."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return page.goto(address)
        except Error as exc:
            broken_off = NETWORK_CHANGED in exc.message or INTERRUPTED in exc.message
            if not broken_off or time.monotonic() > deadline:
                raise
            page.wait_for_timeout(SETTLING_MS)


class Crawl:
    """What was seen of a site, of which one page of each kind is visited.

    Of one kind are pages of one path, but for ids, with parameters of the same names.
    """

    def __init__(self, page: Page, *, look: Callable[[Page], list[str]] = lambda _: []) -> None:
        """Visit with *page*; *look* returns what is wrong with the pages of some kinds of each path."""
        self._page = page
        self._look = look
        self.seen: set[str] = set()
        """Kinds of the pages."""
        self.wrong: list[str] = []
        self._kinds_looked_at: Counter[str] = Counter()
        self._origin = ""
        self._address = ""
        self._broke_off = False
        page.on("console", self._on_console)
        page.on("request", self._on_request)
        page.on("pageerror", lambda error: self._blame(f"a script failed: {error}"))
        page.on("dialog", lambda dialog: self._blame(f"a dialog came up: {dialog.message}"))

    def run(self, start: str, *, depth_at_most: int = DEPTH) -> None:
        """Follow the links from *start*, as deep as may be, and look at each page."""
        self._origin = f"{urlsplit(start).scheme}://{urlsplit(start).netloc}"
        waiting, known = deque([(start, 0)]), {start}
        while waiting:
            self._address, depth = waiting.popleft()
            if kind_of(self._address) in self.seen:
                continue
            self.seen.add(kind_of(self._address))
            for link in self._visit():
                address = urldefrag(urljoin(self._address, link)).url
                if depth < depth_at_most and address not in known and address.startswith(f"{self._origin}/"):
                    known.add(address)
                    waiting.append((address, depth + 1))

    def _visit(self) -> list[str]:
        if re.search(r"\.(json|csv|css|js|svg)(\?|$)", self._address):
            response = self._page.request.get(self._address)
            if not response.ok:
                self._blame(f"answered {response.status}")
            return []
        answer = self._loaded()
        if answer is None or not answer.ok:
            self._blame(f"answered {answer.status if answer else 'nothing'}: {self._page.inner_text('main')}")
        path, _, _ = kind_of(self._address).partition("?")
        if self._kinds_looked_at[path] < KINDS_LOOKED_AT:
            self._kinds_looked_at[path] += 1
            for complaint in self._look(self._page):
                self._blame(complaint)
        links: list[str] = self._page.eval_on_selector_all("a[href]", LINKS)
        return links

    def _loaded(self) -> Response | None:
        """Load the page, again where the machine broke off what belongs to it."""
        answer: Response | None = None
        for _ in range(VISITS):
            self._broke_off = False
            answer = visit(self._page, self._address)
            if not self._broke_off:
                return answer
        self._blame(f"was broken off {VISITS} times: {NETWORK_CHANGED}")
        return answer

    def _on_console(self, message: ConsoleMessage) -> None:
        if NETWORK_CHANGED in message.text:  # which may come after the page
            self._broke_off = True
        else:
            self._blame(f"the console says: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith(f"{self._origin}/"):
            self._blame(f"asked another origin: {request.url}")

    def _blame(self, what: str) -> None:
        self.wrong.append(f"{self._address}: {what}")


def kind_of(address: str) -> str:
    """Return what the addresses of pages of one kind have in common."""
    parts = urlsplit(address)
    path = re.sub(r"/records/[^/]+?(\.json)?$", r"/records/<id>\1", parts.path)
    return f"{path}?{'&'.join(sorted(parse_qs(parts.query)))}"


def accessibility(page: Page) -> list[str]:
    """Return the violations that axe finds on *page*."""
    found = Axe().run(page).response["violations"]
    return [
        f"axe: {each['id']}: {each['help']}: {', '.join(str(node['html'])[:160] for node in each['nodes'][:3])}"
        for each in found
    ]


def width(page: Page) -> list[str]:
    """Return how much wider than its window *page* is."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [f"is {wider} px wider than its window"] if wider else []
