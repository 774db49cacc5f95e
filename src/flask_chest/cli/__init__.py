"""``flask chest``: look at a chest, and find out why one stays empty. Only ``migrate`` creates a database."""

from flask_chest.cli import doctor, exporters, exporting, migrating, records, retention, status, worker
from flask_chest.cli._group import chest_group

__all__ = [
    "chest_group",
    "doctor",
    "exporters",
    "exporting",
    "migrating",
    "records",
    "retention",
    "status",
    "worker",
]
