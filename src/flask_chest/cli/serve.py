"""``flask chest serve``: the viewer on this machine, without a place in the app."""

from __future__ import annotations

from contextlib import suppress

import click
from flask import current_app

from flask_chest.cli._group import Failure, chest_group, the_chest
from flask_chest.cli._options import chest_option
from flask_chest.cli._output import say
from flask_chest.extension.middleware import behind
from flask_chest.viewer.serving import start

PORT = 5151


@chest_group.command("serve")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=PORT,
    show_default=True,
    help="Port on 127.0.0.1; 0 for any that is free.",
)
@chest_option
def serve(*, port: int, name: str | None) -> None:
    """Show a chest in the browser, until interrupted: on 127.0.0.1 alone, to whoever has the printed address.

    By werkzeug's server, without an access log. From another machine, forward the port by ssh -L.

    \b
    Example: flask --app shop chest serve --port 5151
    """  # noqa: D301 - \b is click's mark for lines to keep
    chest = the_chest(name)
    try:
        server, address = start(chest, behind(current_app), port=port)
    except OSError as exc:
        raise Failure(
            f"port {port} cannot be used ({exc.strerror}); choose another by --port, or --port 0"
        ) from exc
    say(f"Open {address}", "Whoever has this address sees what the chest holds. Ctrl+C ends it.")
    with suppress(KeyboardInterrupt):  # which is how to end it
        server.serve_forever()
