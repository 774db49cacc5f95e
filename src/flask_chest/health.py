"""`health_blueprint`: whether a chest loses records, for alerts and never for routing."""

from __future__ import annotations

from flask import Blueprint, Response

from flask_chest.capture.tracking import record_never
from flask_chest.extension.chest import FlaskChest

OK = "ok\n"
NOT_OK = "not ok\n"


def health_blueprint(
    *chests: FlaskChest, url: str = "/alerts/chest", name: str = "flask_chest_health"
) -> Blueprint:
    """Return a blueprint whose one route answers 200, or 503 for a minute after a chest lost a record.

    Use it for alerts. No load balancer or orchestrator should route by it: a full journal is full for every
    process, and all of them would be taken out of service because of lost records, though they answer requests.
    Whether the app is ready only the app knows. No store is asked, so the answer comes at once; it says no more,
    since strangers may read it: the app has ``chest.health()``. Requests to *url* are not recorded.
    """
    blueprint = Blueprint(name, __name__)

    @blueprint.get(url)
    @record_never
    def health() -> Response:
        well = all(chest.health().ok for chest in chests)
        response = Response(OK if well else NOT_OK, status=200 if well else 503, mimetype="text/plain")
        response.headers["Cache-Control"] = "no-store"
        return response

    return blueprint
