"""Makes the pictures of the viewer for the docs, of a shop whose requests are made up.

    python -m examples.screenshots

Needs Debian's package chromium; nothing is downloaded.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from examples.busy_shop import make_app, requests
from flask import Flask
from playwright.sync_api import sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_chest import Record
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.viewer import viewer

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
IMAGES = Path(__file__).parents[1] / "docs" / "images"
MAX_BYTES = 150_000
REQUESTS = 12_000


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/chest"
    server.shutdown()
    thread.join()
    server.server_close()


def pictures(records: list[Record]) -> dict[str, tuple[str, Literal["light", "dark"], int, int]]:
    """Return the address, the scheme and the size of each picture."""
    failed = next(each for each in reversed(records) if each.error is not None and each.route == "/checkout")
    user_id = failed.variables["user_id"]
    return {
        "overview": ("/?since=24h", "light", 1_200, 980),
        "overview-dark": ("/?since=24h", "dark", 1_200, 980),
        "explore": ("/explore?measure=p95(duration)&by=plan&route=/search&since=6h", "light", 1_200, 800),
        "record": (f"/records/{failed.id}", "light", 1_200, 900),
        "timeline": (f"/timeline?user_id={user_id}&since=24h", "light", 1_200, 800),
        "compare": ("/compare?by=version&a=v41&b=v42&since=24h&route=/search", "light", 1_200, 900),
        "small": ("/?since=24h", "dark", 390, 840),
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return take(Path(folder))


def take(folder: Path) -> int:
    """Take the pictures of a shop whose records lie in *folder*; return 1 if one is too large, else 0."""
    records = list(requests(REQUESTS, datetime.now(UTC), days=2))
    store = SQLiteStore(folder / "chest.db")
    store.open()
    store.write(records)
    app, chest = make_app(store)
    app.register_blueprint(viewer(chest, allow=lambda: True))
    IMAGES.mkdir(exist_ok=True)
    with closing(chest), serving(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, (path, scheme, width, height) in pictures(records).items():
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
            page = context.new_page()
            page.goto(f"{address}{path}")
            picture = IMAGES / f"{name}.png"
            page.screenshot(path=picture)
            context.close()
            print(f"{picture.relative_to(Path.cwd())}: {picture.stat().st_size / 1_000:.0f} kB")
        browser.close()
    return int(any(each.stat().st_size > MAX_BYTES for each in IMAGES.glob("*.png")))


if __name__ == "__main__":
    sys.exit(main())
