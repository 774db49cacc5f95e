"""``flask chest``: look at a chest, find out why one stays empty, and run what it needs.

Only ``migrate``, ``worker``, ``journal replay``, ``load`` and ``restore`` make a database.
"""

from flask_chest.cli import (  # noqa: F401 - each adds its commands to the group
    aggregate,
    backup,
    doctor,
    dump,
    export,
    exporters,
    index,
    journal,
    load,
    migrate,
    prune,
    records,
    serve,
    status,
    worker,
)
from flask_chest.cli._group import chest_group

__all__ = ["chest_group"]
