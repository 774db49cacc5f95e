"""The app of the visits, with a store that waits ten minutes for a lock."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.visits import FOLDER, Site, make_app
from flask import Flask


def serve() -> Flask:
    app, _ = make_app(Site(Path(os.environ[FOLDER])), busy_timeout=600)
    return app
