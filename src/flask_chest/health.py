"""Whether a chest loses anything: to alert on, and never to route on."""

from __future__ import annotations

from flask import Blueprint, Response

from flask_chest.extension.chest import FlaskChest, skip

OK = "ok\n"
NOT_OK = "not ok\n"


def health_blueprint(
    *chests: FlaskChest, url: str = "/alerts/chest", name: str = "flask_chest_health"
) -> Blueprint:
    """Make a blueprint whose one route answers 200 while no chest loses records, else for a minute 503.

    Alert on it. No load balancer or orchestrator should route by it: a full journal is full for every process,
    and all would be taken out of service for records that are lost, while requests are answered. Whether the
    app is ready is for the app to say. It asks no store, so it answers at once; it tells strangers nothing more,
    while ``chest.health()`` tells the app; and its own requests are not recorded.
    """
    blueprint = Blueprint(name, __name__)

    @blueprint.get(url)
    def health() -> Response:
        skip()
        well = all(chest.health().ok for chest in chests)
        response = Response(OK if well else NOT_OK, status=200 if well else 503, mimetype="text/plain")
        response.headers["Cache-Control"] = "no-store"
        return response

    return blueprint
