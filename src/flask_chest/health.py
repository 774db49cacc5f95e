"""Whether a chest loses anything: for probes of an orchestrator or a load balancer."""

from __future__ import annotations

from flask import Blueprint, Response

from flask_chest.extension import FlaskChest, skip

OK = "ok\n"
NOT_OK = "not ok\n"


def health_blueprint(
    *chests: FlaskChest, url: str = "/health/chest", name: str = "flask_chest_health"
) -> Blueprint:
    """Make a blueprint whose one route answers 200 while no chest loses records, else 503.

    It tells strangers nothing but that; ``chest.health()`` tells the app more. Its own requests are not recorded.
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
