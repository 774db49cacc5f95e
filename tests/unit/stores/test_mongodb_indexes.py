"""What MongoDB says of the indexes that it builds just then."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chest.stores.mongodb.indexes import builds


def operation(*, progress: object = None, **command: object) -> dict[str, Any]:
    indexes = [{"key": {"variables.plan": 1}, "name": "chest_by_plan"}]
    return {
        "op": "command",
        "ns": "shop.chest",
        "command": {"createIndexes": "chest", "indexes": indexes, "$db": "shop", **command},
        **({} if progress is None else {"msg": "Index Build: scanning collection", "progress": progress}),
    }


def found(*operations: dict[str, Any]) -> dict[str, float]:
    return dict(builds(operations, database="shop", collection="chest"))


def test_build_has_the_share_that_the_server_reports() -> None:
    assert found(operation(progress={"done": 30, "total": 120})) == {"chest_by_plan": 0.25}


def test_build_that_others_wait_for_is_one() -> None:
    waiting, building = operation(), operation(progress={"done": 30, "total": 120})
    assert found(waiting, building) == found(building, waiting) == {"chest_by_plan": 0.25}


@pytest.mark.parametrize(
    "progress",
    [None, {}, {"done": 0, "total": 0}, {"done": "1"}, "1 of 2"],
    ids=["none", "empty", "0", "odd", "text"],
)
def test_build_whose_progress_is_not_told_has_begun(progress: object) -> None:
    assert found(operation(progress=progress)) == {"chest_by_plan": 0.0}


@pytest.mark.parametrize(
    "other",
    [
        {"op": "command", "command": {"find": "chest", "$db": "shop"}},
        {"op": "none"},
        operation(createIndexes="another"),
        operation(**{"$db": "blog"}),
    ],
    ids=["question", "idle", "collection", "database"],
)
def test_what_else_the_server_does_is_no_build(other: dict[str, Any]) -> None:
    assert found(other) == {}
