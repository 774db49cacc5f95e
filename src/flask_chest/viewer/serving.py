"""The viewer by itself, for whoever has a shell on the machine: an app of its own that answers on 127.0.0.1.

Its address holds a random token. That becomes a cookie which no script can read and no other site can have sent.
Browsers know no ports in cookies, so the pages lie below a random path, and the cookie is for that path alone:
another server on this machine is never asked for it, and thus never gets the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import socket
from urllib.parse import urlsplit

from flask import Flask, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from flask_chest.extension.chest import FlaskChest
from flask_chest.viewer._access import Gate, are_same
from flask_chest.viewer._mount import mounted
from flask_chest.viewer._response import ViewerResponse
from flask_chest.viewer._templates import render

HOST = "127.0.0.1"
LOCAL_NAMES = frozenset({HOST, "localhost", "[::1]"})
"""Names of this machine; a page of another site that resolves its own name to it is refused by them."""
OWN_ORIGIN = frozenset({None, "none", "same-origin"})
"""Values of ``Sec-Fetch-Site`` of what a person opens, and of what the pages ask for themselves."""
COOKIE = "chest"


def make_viewer_app(chest: FlaskChest, app: Flask, *, token: str, folder: str) -> Flask:
    """Return an app that shows *chest*, as it is on *app*, below *folder*, to whoever knows the *token*."""
    served = Flask("flask_chest.viewer", static_folder=None, template_folder=None)
    door = _Door(token, folder)
    served.before_request(door.turn_away)
    gate = Gate(door.is_known)
    served.register_blueprint(mounted(chest, url=folder, gate=gate, name="viewer", app_context=app.app_context))
    return served


class _Door:
    """Lets in who brings the token, and after that whoever has the cookie which that person got."""

    def __init__(self, token: str, folder: str) -> None:
        self._token = token
        self._folder = folder
        # Not the token, so that nobody who sees the cookie can hand it on as an address.
        self._pass = hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()

    def is_known(self) -> bool:
        """Return whether the current request has the cookie."""
        return are_same(request.cookies.get(COOKIE, ""), self._pass)

    def turn_away(self) -> ViewerResponse | None:
        """Answer what is not let in, and who brings the token; ``None`` for whom the viewer answers."""
        # Without the port, which differs behind a forward of SSH's.
        if re.sub(r":\d+$", "", request.host) not in LOCAL_NAMES:
            return _refused("This viewer is for 127.0.0.1, and was asked for under another name.")
        token = request.args.get("token")
        if token is not None and request.method == "GET":
            return self._welcome() if are_same(token, self._token) else _refused("This is not the token.")
        if request.headers.get("Sec-Fetch-Site") not in OWN_ORIGIN or not _is_own_origin():
            return _refused("A page of another origin asked for this.")
        if not self.is_known() or not f"{request.path}/".startswith(f"{self._folder}/"):
            return _refused("Open the address that flask chest serve printed; it holds a token.")
        return None

    def _welcome(self) -> ViewerResponse:
        # A page and no redirect: whoever follows a link of another site would be sent on without the cookie.
        response = ViewerResponse(render("welcome.html", folder=self._folder), mimetype="text/html")
        response.set_cookie(COOKIE, self._pass, path=self._folder, httponly=True, samesite="Strict")
        return response


def _is_own_origin() -> bool:
    origin = request.headers.get("Origin")
    try:
        return origin is None or urlsplit(origin).netloc == request.host
    except ValueError:  # of "http://["
        return False


def _refused(why: str) -> ViewerResponse:
    return ViewerResponse(f"{why}\n", 403, mimetype="text/plain")


class _Quiet(WSGIRequestHandler):
    """Writes no access log, in which the token and the values of variables would stand."""

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's signature
        """Write nothing."""


def start(chest: FlaskChest, app: Flask, *, port: int) -> tuple[BaseWSGIServer, str]:
    """Return werkzeug's server for *chest*, as it is on *app*, and the address to open, which holds the token.

    Port 0 takes one that is free. Raises ``OSError`` for a port that is taken.
    """
    token, folder = secrets.token_urlsafe(32), f"/{secrets.token_urlsafe(16)}"
    with socket.create_server((HOST, port)) as listening:  # werkzeug's own error would end the process
        port = listening.getsockname()[1]
        viewer_app = make_viewer_app(chest, app, token=token, folder=folder)
        server = make_server(HOST, port, viewer_app, threaded=True, request_handler=_Quiet, fd=listening.fileno())
    return server, f"http://{HOST}:{port}/?token={token}"
