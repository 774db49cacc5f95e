"""The blueprint: every address goes through one gate, then one question at a time is asked and shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

import msgspec
from flask import Blueprint, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import NotFound

from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.capture.tracking import record_never
from flask_chest.errors import (
    ConfigurationError,
    QueryTimeout,
    StoreAbsent,
    StoreError,
    StoreUnavailable,
    describe,
)
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.record_text import escaped_json
from flask_chest.viewer._access import Allow, Gate, logger
from flask_chest.viewer._asking import Ask, Links, Parameter, Refusal, Shown
from flask_chest.viewer._response import ViewerResponse
from flask_chest.viewer._templates import render, with_notice
from flask_chest.viewer._turns import LastPages, turn
from flask_chest.viewer.pages import compare, delivery, explore, overview, record, records, timeline

READS = ("GET", "HEAD")
FILES: Mapping[str, str] = {
    "viewer.css": "text/css",
    "viewer.js": "text/javascript",
    "favicon.svg": "image/svg+xml",
}
HTML, JSON, CSV = "text/html", "application/json", "text/csv"


class Page(NamedTuple):
    """One page, which is there as HTML and, with ``.json`` behind its address, as JSON."""

    endpoint: str
    rule: str
    """Its address below the viewer's."""
    json_rule: str
    show: Callable[[Ask], Shown]


EXPLORE = Page("explore", "/explore", "/explore.json", explore.show)
PAGES: Sequence[Page] = (
    Page("overview", "/", "/overview.json", overview.show),
    Page("records", "/records", "/records.json", records.show),
    Page("record", "/records/<record_id>", "/records/<record_id>.json", record.show),
    EXPLORE,
    Page("compare", "/compare", "/compare.json", compare.show),
    Page("timeline", "/timeline", "/timeline.json", timeline.show),
    Page("delivery", "/delivery", "/delivery.json", delivery.show),
)


def viewer(
    chest: FlaskChest, *, url: str = "/chest", allow: Allow, name: str = "flask_chest_viewer"
) -> Blueprint:
    """Return a blueprint with pages that show what *chest* holds, below *url*.

    *allow* is called in each request, without arguments. Where it does not return ``True`` itself, every address
    answers as one that does not exist; with `basic_auth` it asks for a password. The pages only read, their
    requests are recorded by no chest, and one question at a time is asked in a process. A second viewer on an app
    needs a *name* of its own.
    """
    if not url.startswith("/"):
        raise ConfigurationError(f"url must begin with a slash, as in url='/chest', got {url!r}")
    return mounted(chest, url=url, gate=Gate(allow), name=name, app_context=nullcontext)


def mounted(
    chest: FlaskChest,
    *,
    url: str,
    gate: Gate,
    name: str,
    app_context: Callable[[], AbstractContextManager[object]],
) -> Blueprint:
    """Return the blueprint of a viewer that asks *chest* within *app_context*."""
    blueprint = Blueprint(name, __name__, url_prefix=url.rstrip("/") or None)
    mount = _Mount(chest, gate, app_context)
    for page in PAGES:
        blueprint.add_url_rule(page.rule, page.endpoint, mount.view_of(page, HTML), **_ROUTING)
        blueprint.add_url_rule(page.json_rule, f"{page.endpoint}_json", mount.view_of(page, JSON), **_ROUTING)
    blueprint.add_url_rule("/explore.csv", "explore_csv", mount.view_of(EXPLORE, CSV), **_ROUTING)
    blueprint.add_url_rule("/static/<filename>", "file", mount.guarded(_file), **_ROUTING)
    # Whatever else lies below, so that it is asked who comes before anything is said; routing answers 400 to a
    # websocket's request where only another kind of route is.
    absent = mount.guarded(_absent)
    blueprint.add_url_rule("/<path:path>", "absent", absent, **_ROUTING)
    for rule in ("/", "/<path:path>"):
        blueprint.add_url_rule(rule, "websocket", absent, websocket=True, **_ROUTING)
    blueprint.record(_take_every_method)
    return blueprint


_ROUTING = {"strict_slashes": False, "merge_slashes": False, "provide_automatic_options": False}
"""Routing neither redirects nor answers by itself, which would tell that there is a viewer."""


def _take_every_method(state: BlueprintSetupState) -> None:
    """Let the rules take every method, also one that no server knows, where routing would answer 405."""
    prefix = f"{state.name_prefix}.{state.name}.".lstrip(".")
    for rule in state.app.url_map.iter_rules():
        if rule.endpoint.startswith(prefix):
            rule.methods = None


_PATH = frozenset({"record_id", "filename", "path"})
"""Variables in the addresses of the pages; others are in the prefix that the app gave."""


@dataclass(frozen=True, slots=True)
class _Mount:
    """A viewer on the apps where its blueprint is registered."""

    chest: FlaskChest
    gate: Gate
    app_context: Callable[[], AbstractContextManager[object]]
    last_pages: LastPages = field(default_factory=LastPages)

    def guarded(self, answer: Callable[..., ViewerResponse]) -> Callable[..., ViewerResponse]:
        """Return a view that asks who comes, then what for, and then gives *answer*."""

        def view(**path: str) -> ViewerResponse:
            if not self.gate.opens():
                if self.gate.challenge is None:
                    raise NotFound  # as the app answers what does not exist
                # Nothing of the app's in it, and no link.
                response = ViewerResponse("This page asks for a password.\n", 401, mimetype="text/plain")
                response.headers["WWW-Authenticate"] = self.gate.challenge
                return response
            if request.method not in READS:
                return self._refused(Refusal(405, "Only to read", "The viewer changes nothing."))
            try:
                return answer(**path)
            except Refusal as exc:
                return self._refused(exc)

        return record_never(view)

    def view_of(self, page: Page, mimetype: str) -> Callable[..., ViewerResponse]:
        """Return the view of *page* in one of its two forms."""

        def answer(**path: str) -> ViewerResponse:
            app, address = current_app._get_current_object(), request.url  # type: ignore[attr-defined]  # of the proxy
            with turn() as free, suppress_instrumentation():
                kept = self.last_pages.resting(app, address) if free else None
                if free and kept is None:
                    began = time.monotonic()
                    body = self._made(page, mimetype, path)
                    self.last_pages.keep(app, address, body, took=time.monotonic() - began)
                    return ViewerResponse(body, mimetype=mimetype)
            kept = kept or self.last_pages.instead(app, address)
            if kept is None:
                raise Refusal(
                    503,
                    "One moment",
                    "Another question is being answered, and there is one at a time in a process. "
                    "This page tries again by itself.",
                    retry_after=1,
                )
            body = with_notice(kept.body, kept.age) if mimetype == HTML else kept.body
            return ViewerResponse(body, mimetype=mimetype, headers={"Age": str(int(kept.age))})

        return self.guarded(answer)

    def _made(self, page: Page, mimetype: str, path: Mapping[str, str]) -> bytes:
        try:
            ask = Ask(chest=self.chest, given=Parameter(request.args), path=path, links=_links())
            with self.app_context():
                shown = page.show(ask)
            return self._written(page, mimetype, path, ask, shown)
        except UnicodeEncodeError:  # JSON's "\\ud800" is half a character, which no answer and no store can hold
            raise Refusal(
                400, "This address means nothing", "It holds half of a character, as \\ud800; leave it out."
            ) from None
        except StoreAbsent:
            raise Refusal(
                200,
                "Nothing is kept yet",
                "The first record makes the store: send the app a request whose variables are tracked. "
                "If nothing appears then, flask chest doctor says why.",
            ) from None
        except ConfigurationError as exc:
            raise Refusal(400, "This address means nothing", f"{exc}.") from None
        except QueryTimeout as exc:
            raise Refusal(503, "It takes too long", f"{exc}.") from exc
        except StoreUnavailable as exc:
            raise Refusal(503, "The store does not answer", describe(exc), retry_after=5) from exc
        except StoreError as exc:  # a table or a row that another program changed; it says how to go on
            raise Refusal(503, "The store cannot be read", describe(exc)) from exc
        except Refusal:
            raise
        except Exception as exc:
            logger.warning("the viewer could not show a page: %s", describe(exc))
            raise Refusal(500, "The page could not be made", describe(exc)) from exc

    def _written(self, page: Page, mimetype: str, path: Mapping[str, str], ask: Ask, shown: Shown) -> bytes:
        """Return *shown* as it goes out."""
        if mimetype == JSON:
            return f"{escaped_json(msgspec.json.encode(shown.as_json(), enc_hook=_as_dict).decode())}\n".encode()
        if isinstance(shown, explore.ExplorePage) and mimetype == CSV:
            return "".join(f"{line}\r\n" for line in shown.csv_lines()).encode()
        return render(
            shown.template,
            name=self._name(),
            links=ask.links,
            page=shown,
            now=ask.now_unix_nano,
            address=ask.links.to(f"{page.endpoint}_json", request.args.to_dict(flat=False), **path),
            endpoint=page.endpoint,
            milliseconds=ask.milliseconds,
        ).encode()

    def _name(self) -> str:
        """Return how to call the chest: like its app, and itself where it is not the usual one."""
        with self.app_context():
            app_name = self.chest._state.app_name
        return app_name if self.chest.name == "chest" else f"{app_name} · {self.chest.name}"

    def _refused(self, refusal: Refusal) -> ViewerResponse:
        if request.path.endswith(".json"):
            text = msgspec.json.encode({"status": refusal.status, "error": str(refusal)}).decode()
            response = ViewerResponse(f"{escaped_json(text)}\n", refusal.status, mimetype=JSON)
        else:
            body = render("refusal.html", name=self._name(), links=_links(), page=refusal, endpoint="")
            response = ViewerResponse(body, refusal.status, mimetype=HTML)
        if refusal.status == 405:  # noqa: PLR2004
            response.headers["Allow"] = ", ".join(READS)
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = str(refusal.retry_after)
        return response


def _as_dict(value: object) -> object:
    """Return as a dict a mapping that is none, which msgspec does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(type(value))


def _links() -> Links:
    # Not url_for, into whose addresses functions of the app may put parameters that no page has.
    adapter, blueprint = current_app.create_url_adapter(request), request.blueprint
    assert adapter is not None and blueprint is not None  # noqa: S101, PT018 - this is a request to it
    of_prefix = {name: value for name, value in (request.view_args or {}).items() if name not in _PATH}
    return Links(adapter, blueprint, of_prefix)


def _file(filename: str, **_: str) -> ViewerResponse:
    if filename not in FILES:
        return _absent()
    content = files("flask_chest.viewer").joinpath("static", filename).read_bytes()
    return ViewerResponse(content, mimetype=FILES[filename])


def _absent(**_: str) -> ViewerResponse:
    raise Refusal(404, "Nothing is here", "The viewer has no such page.")
