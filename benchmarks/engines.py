"""The database servers of the tests, for benchmarks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import DockerException

TESTS = str(Path(__file__).parents[1] / "tests/support")
if TESTS not in sys.path:
    sys.path.append(TESTS)

from relay import Relay  # noqa: E402 - found there
from servers import DatabaseServer, Place, database  # noqa: E402

__all__ = ["DatabaseServer", "Place", "Relay", "database", "database_server", "require_engine"]


def require_engine(kind: str) -> None:
    """Exit with a sentence where no server of this *kind* can be run."""
    try:
        docker.from_env().close()
    except DockerException as exc:
        raise SystemExit(f"{kind} needs a container engine, and none answers: {exc}") from None


@contextmanager
def database_server(kind: str) -> Iterator[DatabaseServer]:
    """Run a database server of this *kind* in a container; exit with a sentence where none can be."""
    require_engine(kind)
    if kind == "documentdb" and "FLASK_CHEST_TEST_DOCUMENTDB_IMAGE" not in os.environ:
        raise SystemExit("documentdb has no official image, and FLASK_CHEST_TEST_DOCUMENTDB_IMAGE names none")
    with database(kind) as server:
        yield server
