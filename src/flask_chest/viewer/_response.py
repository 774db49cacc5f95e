"""Responses of the viewer, whose headers nobody else decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flask import Response
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class ViewerResponse(Response):
    """A response with the viewer's headers, also where a hook of the app has set others."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers that go out; this is called after all hooks."""
        headers = super().get_wsgi_headers(environ)
        for name, value in HEADERS.items():
            headers[name] = value
        return headers
