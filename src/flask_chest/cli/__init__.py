"""``flask chest``: look at a chest, find out why one stays empty, and run what it needs.

Only ``migrate``, ``worker`` and ``journal replay`` make a database.
"""

from flask_chest.cli import (
    aggregate,
    doctor,
    export,
    exporters,
    index,
    journal,
    migrate,
    prune,
    records,
    serve,
    status,
    worker,
)
from flask_chest.cli._group import chest_group

__all__ = [
    "aggregate",
    "chest_group",
    "doctor",
    "export",
    "exporters",
    "index",
    "journal",
    "migrate",
    "prune",
    "records",
    "serve",
    "status",
    "worker",
]
